"""Colours of signed relevance: blue against, orange for, nothing at zero."""

from functools import cache

import numpy as np
from matplotlib.colors import ListedColormap
from numpy.typing import NDArray

AGAINST_HUE, FOR_HUE = (
    250.0,
    62.0,
)  # degrees in OKLab, apart for every colour vision
WEAK, STRONG = 0.42, 0.86  # OKLab lightness at a small and at the largest relevance
CHROMA = 0.135  # the most that both hues have at every lightness between


@cache
def relevance_colours(steps: int = 256) -> ListedColormap:
    """Diverging colour map that is transparent at zero and as bright on either side.

    Lightness rises linearly with |R| and is the same for both signs, so that equal steps of
    relevance look equally large and neither sign catches the eye first; opacity rises with it, so
    that anatomy stays visible where relevance is small.

    Args:
        steps: Colours, an even number.

    Returns:
        RGBA colours for values from -1 to 1.

    Reference:
        Ottosson (2020), "A perceptual color space for image processing" (OKLab).
    """
    position = np.linspace(-1, 1, steps)
    strength = np.abs(position)
    hue = np.deg2rad(np.where(position < 0, AGAINST_HUE, FOR_HUE))
    lightness = WEAK + (STRONG - WEAK) * strength
    colours = oklab_to_srgb(
        np.stack([lightness, CHROMA * np.cos(hue), CHROMA * np.sin(hue)], axis=1)
    )
    opacity = 0.92 * np.clip(strength / 0.45, 0, 1)
    return ListedColormap(np.column_stack([colours, opacity]), name="relevance")


def oklab_to_srgb(colours: NDArray[np.float64]) -> NDArray[np.float64]:
    """Colours on a screen, cut to what it can show.

    Args:
        colours: Lightness, green to red, blue to yellow, (N, 3).

    Returns:
        Red, green and blue, (N, 3) in [0, 1].
    """
    to_lms = np.array(
        [
            [1, 0.3963377774, 0.2158037573],
            [1, -0.1055613458, -0.0638541728],
            [1, -0.0894841775, -1.2914855480],
        ]
    )
    to_rgb = np.array(
        [
            [4.0767416621, -3.3077115913, 0.2309699292],
            [-1.2684380046, 2.6097574011, -0.3413193965],
            [-0.0041960863, -0.7034186147, 1.7076147010],
        ]
    )
    linear = np.clip((colours @ to_lms.T) ** 3 @ to_rgb.T, 0, 1)
    curve = np.where(linear > 0.0031308, 1.055 * linear ** (1 / 2.4) - 0.055, 12.92 * linear)
    return np.asarray(np.clip(curve, 0, 1))
