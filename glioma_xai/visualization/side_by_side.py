"""Relevance maps of one case by several runs, on the same slices."""

from collections.abc import Mapping, Sequence

import numpy as np
from matplotlib.figure import Figure
from numpy.typing import NDArray

from glioma_xai.errors import ShapeError
from glioma_xai.visualization.panels import (
    INK,
    PAPER,
    PERCENTILE,
    draw_anatomy,
    draw_relevance,
    finish_panel,
    mark_sides,
    to_display,
)

Slices = NDArray[np.float32]


def side_by_side_figure(
    anatomy: Slices,
    maps: Mapping[str, Slices],
    lesion: Slices | None,
    *,
    levels: Sequence[int],
    notes: Mapping[str, str],
    title: str,
    sides_known: bool = True,
) -> Figure:
    """Anatomy on the left, then one column a run; one row a slice.

    Logits of different networks have no common unit, so each run has a scale of its own: its
    strongest colours stand at the 99.5 % quantile of its |R| on these slices.

    Args:
        anatomy: One modality, (slices, H, W), axes as in ``overlay_figure``.
        maps: Run to its relevance on the same slices, same shape.
        lesion: 1 in the tumour, same shape; outlined. None draws no outline.
        levels: Number of each slice in the file.
        notes: Run to a few words below its name.
        title: First line.
        sides_known: Mark right and left.

    Returns:
        A figure of its own; nothing is registered with pyplot.

    Raises:
        ShapeError: If sizes differ.
    """
    for name, found in {**maps, **({} if lesion is None else {"lesion": lesion})}.items():
        if found.shape != anatomy.shape:
            raise ShapeError(
                f"all maps must lie on the same slices: expected {anatomy.shape}, got "
                f"{found.shape} for {name}. Bring them to the subject's own grid first."
            )
    rows, columns = len(anatomy), len(maps) + 1
    height = 2.6 * anatomy.shape[2] / anatomy.shape[1]
    figure = Figure(figsize=(2.6 * columns + 0.3, height * rows + 1.25), facecolor=PAPER)
    axes = figure.subplots(rows, columns, squeeze=False)
    inch = 1 / figure.get_figheight()
    figure.subplots_adjust(
        left=0.03, right=0.99, top=1 - 0.98 * inch, bottom=0.27 * inch, wspace=0.03, hspace=0.04
    )
    for row in range(rows):
        picture = to_display(anatomy[row])
        outline = None if lesion is None or not lesion[row].any() else to_display(lesion[row])
        for column in range(columns):
            draw_anatomy(axes[row, column], picture)
        for column, relevance in enumerate(maps.values(), start=1):
            draw_relevance(axes[row, column], to_display(relevance[row]), _limit(relevance))
        for axis in axes[row]:
            finish_panel(axis, outline)
        if sides_known:
            mark_sides(axes[row, 0])
        axes[row, 0].text(
            0.03, 0.03, f"slice {levels[row]}", transform=axes[row, 0].transAxes, color="white"
        ).set_fontsize(8)
    for column, name in enumerate(("anatomy", *maps)):
        heading = axes[0, column].set_title(f"{name}\n{notes.get(name, '')}", fontsize=8.5)
        heading.set(color=INK, parse_math=False)
    line = figure.text(0.03, 1 - 0.24 * inch, title, ha="left", va="center", parse_math=False)
    line.set(color=INK, fontsize=12, fontweight="bold")
    figure.text(
        0.03,
        0.1 * inch,
        "Orange for, blue against; each run on a scale of its own. "
        f"{'White line: tumour.' if lesion is not None else 'No tumour annotation.'}",
        fontsize=7.5,
        color=INK,
        va="center",
    )
    return figure


def _limit(relevance: Slices) -> float:
    """The strongest relevance of a run, without single hot pixels; never 0."""
    strength = np.abs(relevance)
    return float(np.percentile(strength, PERCENTILE)) or float(strength.max()) or 1.0
