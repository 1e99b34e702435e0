"""Frames of charts: axes of one look, legends, and the way into a page."""

from collections.abc import Mapping, Sequence
from io import StringIO
from textwrap import fill
from typing import Literal

import numpy as np
from matplotlib import rc_context
from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.legend import Legend
from matplotlib.ticker import MaxNLocator
from numpy.typing import NDArray

INK, RULE = "#1b1f23", "#c9ced4"
# Okabe and Ito (2008), told apart with every colour-vision deficiency
LINES = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#56B4E9", "#E69F00", "#000000")
DASHES = ("-", "--", "-.", ":")
LETTER, LEGEND_KEY = 0.075, 0.7
"""Inches of a letter at 8 points, and of a line with its space in a legend."""


def to_svg(figure: Figure) -> str:
    """The figure as an SVG element for a page, the same text for the same figure.

    Args:
        figure: A matplotlib figure.

    Returns:
        ``<svg>`` without XML header, hidden from screen readers: the page says in words and in a
        table what the chart shows.
    """
    stream = StringIO()
    with rc_context({"svg.fonttype": "none", "svg.hashsalt": "glioma_xai", "font.size": 8}):
        figure.savefig(stream, format="svg", metadata={"Date": None, "Creator": None})
    text = stream.getvalue()
    return text[text.index("<svg") :].replace("<svg", '<svg aria-hidden="true"', 1)


def grid(
    panels: int, *, most_columns: int, width: float, height: float
) -> tuple[Figure, list[Axes]]:
    """A figure with small charts.

    Args:
        panels: How many.
        most_columns: Side by side.
        width: Of each, inches.
        height: Of each, inches.
    """
    columns = min(most_columns, panels)
    rows = -(-panels // columns)
    figure = Figure(figsize=(width * columns, height * rows))
    axes = list(figure.subplots(rows, columns, squeeze=False).flat)
    for axis in axes[panels:]:
        axis.set_visible(False)
    return figure, axes[:panels]


def label_epochs(axis: Axes, name: str) -> None:
    """Title and epochs below.

    Args:
        axis: One chart.
        name: Of the metric.
    """
    axis.set_title(name.replace("_", " "), fontsize=9, color=INK, parse_math=False)
    axis.set_xlabel("epoch", fontsize=8)
    axis.xaxis.set_major_locator(MaxNLocator(nbins=5, integer=True))
    tidy(axis)


def style(position: int) -> tuple[str, str]:
    """Colour and dash of a line, the next dash once the colours are used up.

    Args:
        position: Of the line among all.
    """
    return LINES[position % len(LINES)], DASHES[position // len(LINES) % len(DASHES)]


def marker(points: int) -> str:
    """Few points are marked: a line through one of them would not be seen.

    Args:
        points: Of the line.
    """
    return "o" if points < 3 else ""


def common_legend(figure: Figure, axes: Sequence[Axes]) -> None:
    """Names above all charts, in as many columns as there is room for.

    Args:
        figure: With the charts.
        axes: Whose lines are named.
    """
    handles: dict[str, Artist] = {}
    for axis in axes:
        handles |= dict(zip(*axis.get_legend_handles_labels()[::-1], strict=True))
    width = figure.get_figwidth()
    names = [fill(name, int((width - LEGEND_KEY) / LETTER)) for name in handles]
    longest = max(len(line) for name in names for line in name.splitlines())
    columns = min(len(names), max(1, int(width / (LETTER * longest + LEGEND_KEY))))
    rows = -(-len(names) // columns) * (1 + max(name.count("\n") for name in names))
    _plain(figure.legend(handles.values(), names, loc="upper left", ncols=columns))
    height = 0.12 + 0.18 * rows
    figure.set_figheight(figure.get_figheight() + height)
    figure.tight_layout(rect=(0, 0, 1, 1 - height / figure.get_figheight()))


def draw_named(
    axis: Axes,
    curves: Mapping[str, tuple[Sequence[float] | NDArray[np.float64], ...]],
    place: Literal["best", "lower right"],
) -> None:
    """Lines by name, told apart by colour and dash, with a legend.

    Args:
        axis: One chart.
        curves: Name to x and y.
        place: Of the legend, as matplotlib says it.
    """
    for position, (name, (x, y)) in enumerate(curves.items()):
        colour, dash = LINES[position % len(LINES)], DASHES[position % len(DASHES)]
        axis.plot(x, y, color=colour, linestyle=dash, linewidth=1.8, label=name)
    _plain(axis.legend(loc=place))
    tidy(axis)


def tidy(axis: Axes) -> None:
    """Few and light lines.

    Args:
        axis: One chart.
    """
    axis.tick_params(labelsize=8, color=RULE, labelcolor=INK)
    axis.grid(color=RULE, linewidth=0.4)
    axis.set_axisbelow(True)
    for side in ("top", "right"):
        axis.spines[side].set_visible(False)
    for side in ("left", "bottom"):
        axis.spines[side].set_color(RULE)


def _plain(legend: Legend) -> None:
    """No frame, and names that are no formulas."""
    legend.set_frame_on(False)
    for text in legend.get_texts():
        text.set(fontsize=8, parse_math=False)
