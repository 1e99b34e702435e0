"""One slice as radiologists look at it: orientation, grey window, relevance, outline, sides."""

from collections.abc import Sequence

import numpy as np
from matplotlib import patheffects
from matplotlib.axes import Axes
from numpy.typing import NDArray
from torch import Tensor

from glioma_xai.visualization.colours import relevance_colours

Image = NDArray[np.float32]

PERCENTILE = 99.5
INK, PAPER = "#1b1f23", "#ffffff"
OUTLINE = [patheffects.Stroke(linewidth=2.4, foreground="black"), patheffects.Normal()]


def to_display(values: Image) -> Image:
    """Turn the last two axes into rows and columns of a radiological view.

    Args:
        values: (..., H, W), as in :func:`glioma_xai.visualization.overlays.overlay_figure`.

    Returns:
        Rows from anterior to posterior, columns from the patient's right to left.
    """
    return np.swapaxes(values, -1, -2)[..., ::-1, ::-1]


def common_limit(relevance: Sequence[Tensor]) -> float:
    """Relevance at the ends of a colour scale that several slices share.

    Args:
        relevance: Signed, (C, H, W) each.

    Returns:
        The 99.5 % quantile of |R| over the channels and their sums; the largest |R| if that is 0,
        and 1 if that is 0 too.
    """
    values = np.concatenate(
        [
            part.detach().cpu().float().numpy().ravel()
            for slice_relevance in relevance
            for part in (slice_relevance, slice_relevance.sum(dim=0))
        ]
    )
    finite = np.abs(values[np.isfinite(values)])
    quantile = float(np.percentile(finite, PERCENTILE)) if finite.size else 0.0
    return quantile or float(finite.max(initial=0.0)) or 1.0


def background(modalities: Sequence[str]) -> int:
    """Position of the modality under the sum: FLAIR shows the whole tumour best.

    Args:
        modalities: Name of each channel.
    """
    names = [name.lower() for name in modalities]
    return names.index("flair") if "flair" in names else 0


def grey_window(picture: Image) -> tuple[float, float, Image]:
    """What is shown black and what white, and the picture with black around the brain.

    Args:
        picture: Any intensities; 0 outside the brain.

    Returns:
        The 1 % and 99.5 % quantiles of what is not 0, the second at least a little larger, and the
        picture. Normalised images have negative values in the brain, so 0 is not their darkest.
    """
    inside = picture[picture != 0]
    low, high = np.percentile(inside, [1, 99.5]) if inside.size else (0.0, 1.0)
    return float(low), float(max(high, low + 1e-6)), np.where(picture == 0, min(low, 0.0), picture)


def draw_anatomy(axis: Axes, picture: Image) -> None:
    """Draw a slice in grey, as displayed; air stays black."""
    low, high, shown = grey_window(picture)
    axis.imshow(shown, cmap="gray", vmin=low, vmax=high, interpolation="nearest")


def draw_relevance(axis: Axes, relevance: Image, limit: float) -> None:
    """Lay relevance over it; ``limit`` has the strongest colour."""
    axis.imshow(
        np.clip(relevance / limit, -1, 1),
        cmap=relevance_colours(),
        vmin=-1,
        vmax=1,
        interpolation="nearest",
    )


def finish_panel(axis: Axes, outline: Image | None) -> None:
    """Outline the tumour and take the frame away."""
    if outline is not None:
        contour = axis.contour(outline, levels=[0.5], colors="white", linewidths=1.0)
        contour.set_path_effects(OUTLINE)
    axis.set_axis_off()


def mark_sides(axis: Axes) -> None:
    """R and L at half height, where no corner is hidden."""
    for side, x in (("R", 0.04), ("L", 0.96)):
        mark = axis.text(x, 0.5, side, transform=axis.transAxes, ha="center", va="center")
        mark.set(color="white", fontsize=9, fontweight="bold", path_effects=OUTLINE)
