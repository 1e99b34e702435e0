"""Two images side by side, and which part of one goes together with which part of the other."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import ConnectionPatch
from torch import Tensor

from glioma_xai.errors import ShapeError
from glioma_xai.visualization.colours import relevance_colours
from glioma_xai.visualization.panels import (
    INK,
    OUTLINE,
    PAPER,
    PERCENTILE,
    Image,
    draw_anatomy,
    draw_relevance,
    finish_panel,
    mark_sides,
    to_display,
)


@dataclass(frozen=True)
class Side:
    """One of the two images.

    Args:
        image: Slice of one modality, (H, W), as in ``overlay_figure``.
        relevance: What in it makes it like the other, (H, W).
        lesion_mask: 1 in the tumour, (H, W), NaN where unknown; None if there is none.
        title: Patient and slice.
        subtitle: Class and prediction.
    """

    image: Tensor
    relevance: Tensor
    lesion_mask: Tensor | None
    title: str
    subtitle: str


@dataclass(frozen=True)
class Link:
    """A place in the first image and one in the second, as pixels (H axis, W axis).

    Args:
        first: In the first image.
        second: In the second image.
        relevance: For (positive) or against (negative) the similarity.
    """

    first: tuple[float, float]
    second: tuple[float, float]
    relevance: float


def links_figure(
    first: Side,
    second: Side,
    links: Sequence[Link],
    *,
    title: str,
    caption: str,
    sides_known: bool = True,
) -> Figure:
    """Anatomy with links above, what makes each image like the other below.

    The wider and brighter a line, the more its two ends together say for (orange) or against (blue)
    the similarity. Each map has a scale of its own, symmetric about zero.

    Args:
        first: The case.
        second: What it is compared with.
        links: To be drawn, a few.
        title: What the figure says.
        caption: How to read it, below.
        sides_known: Mark right and left.

    Returns:
        A figure of its own; nothing is registered with pyplot.

    Raises:
        ShapeError: If image, relevance and mask of a side differ in size.
    """
    figure = Figure(figsize=(9.6, 10.0), facecolor=PAPER)
    axes = figure.subplots(2, 2, squeeze=False)
    figure.subplots_adjust(left=0.02, right=0.98, top=0.885, bottom=0.065, wspace=0.22, hspace=0.05)
    for column, side in enumerate((first, second)):
        _check(side)
        picture, relevance, lesion = (
            None if values is None else to_display(values.detach().cpu().float().numpy())
            for values in (side.image, side.relevance, side.lesion_mask)
        )
        assert picture is not None
        assert relevance is not None
        outline = None if lesion is None or not (lesion > 0.5).any() else np.nan_to_num(lesion)
        for row in (0, 1):
            draw_anatomy(axes[row, column], picture)
        draw_relevance(axes[1, column], relevance, _limit(relevance))
        for row in (0, 1):
            finish_panel(axes[row, column], outline)
        if sides_known:
            mark_sides(axes[0, column])
        for text, height, size, weight in (
            (side.title, 1.07, 11, "bold"),
            (side.subtitle, 1.025, 9.5, "normal"),
        ):
            line = axes[0, column].text(
                0.5, height, text, transform=axes[0, column].transAxes, ha="center", va="center"
            )
            line.set(color=INK, fontsize=size, fontweight=weight, parse_math=False)
    _draw_links(axes[0, 0], axes[0, 1], links, tuple(first.image.shape), tuple(second.image.shape))
    heading = figure.text(0.02, 0.972, title, ha="left", va="center", parse_math=False)
    heading.set(color=INK, fontsize=13, fontweight="bold")
    figure.text(0.02, 0.03, caption, fontsize=8.5, color=INK, ha="left", va="center")
    return figure


def _draw_links(
    left: Axes,
    right: Axes,
    links: Sequence[Link],
    first: tuple[int, ...],
    second: tuple[int, ...],
) -> None:
    """Weak links first, so that strong ones lie on top."""
    strongest = max((abs(link.relevance) for link in links), default=0.0) or 1.0
    colours = relevance_colours()
    for link in sorted(links, key=lambda link: abs(link.relevance)):
        weight = link.relevance / strongest
        *colour, _ = colours(0.5 + 0.5 * weight)
        ends = (_shown(link.first, first), _shown(link.second, second))
        line = ConnectionPatch(*ends, "data", "data", axesA=left, axesB=right)
        line.set(
            color=tuple(colour), linewidth=0.8 + 3.2 * abs(weight), alpha=0.35 + 0.6 * abs(weight)
        )
        line.set_path_effects(OUTLINE if abs(weight) > 0.5 else [])
        line.set_zorder(5)
        right.add_artist(line)
        for axis, end in zip((left, right), ends, strict=True):
            axis.plot(*end, "o", color=tuple(colour), markersize=3 + 4 * abs(weight), zorder=6)


def _shown(place: tuple[float, float], size: tuple[int, ...]) -> tuple[float, float]:
    """Column and row of a pixel in the radiological view."""
    return size[0] - 1 - place[0], size[1] - 1 - place[1]


def _limit(relevance: Image) -> float:
    """Relevance at the ends of a map's scale, never 0."""
    strength = np.abs(relevance)
    return float(np.percentile(strength, PERCENTILE)) or float(strength.max()) or 1.0


def _check(side: Side) -> None:
    shapes = [t.shape for t in (side.image, side.relevance, side.lesion_mask) if t is not None]
    if side.image.ndim != 2 or len(set(shapes)) != 1:
        raise ShapeError(
            f"image, relevance and mask must be one slice: expected (H, W) each, got "
            f"{', '.join(str(tuple(shape)) for shape in shapes)}. Take a slice of one modality."
        )
