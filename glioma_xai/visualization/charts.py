"""Line charts of a page as inline SVG: text stays text, nothing is fetched."""

from collections.abc import Mapping, Sequence
from io import StringIO

import numpy as np
from matplotlib import rc_context
from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from numpy.typing import NDArray

INK, RULE = "#1b1f23", "#c9ced4"
# Okabe and Ito (2008), told apart with every colour-vision deficiency
LINES = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#56B4E9", "#E69F00", "#000000")
DASHES = ("-", "--", "-.", ":")
SPLIT_STYLES = {"train": ("#0072B2", "-"), "validation": ("#D55E00", "--"), "test": (INK, ":")}
MOST_PANELS = 12


def learning_curves(
    history: Mapping[str, Sequence[float]], *, selected_epoch: int | None = None
) -> str:
    """One small chart a metric, one line a split; losses first.

    Args:
        history: Column ``<split>/<metric>`` to values by epoch, and ``epoch``.
        selected_epoch: Marked by a vertical line.

    Returns:
        SVG; empty if there is no column to draw.
    """
    panels = curves_by_metric(history)
    if not panels:
        return ""
    columns = min(4, len(panels))
    rows = -(-len(panels) // columns)
    figure = Figure(figsize=(2.75 * columns, 2.1 * rows))
    axes = figure.subplots(rows, columns, squeeze=False)
    for axis, (metric, lines) in zip(axes.flat, panels.items(), strict=False):
        for split, (epochs, values) in lines.items():
            colour, dash = SPLIT_STYLES.get(split, (LINES[3], "-."))
            axis.plot(epochs, values, color=colour, linestyle=dash, linewidth=1.5, label=split)
        if selected_epoch is not None:
            axis.axvline(selected_epoch, color=RULE, linewidth=1, zorder=0)
        axis.set_title(metric.replace("_", " "), fontsize=9, color=INK, parse_math=False)
        axis.set_xlabel("epoch", fontsize=8)
        axis.xaxis.get_major_locator().set_params(integer=True)
        _tidy(axis)
    for axis in list(axes.flat)[len(panels) :]:
        axis.set_visible(False)
    handles = {label: line for axis in axes.flat for line, label in _legend_of(axis)}
    figure.legend(
        handles.values(), handles.keys(), loc="upper left", ncols=len(handles), fontsize=8,
        frameon=False,
    )  # fmt: skip
    figure.tight_layout(rect=(0, 0, 1, 1 - 0.3 / figure.get_figheight()))
    return to_svg(figure)


def curves_by_metric(
    history: Mapping[str, Sequence[float]],
) -> dict[str, dict[str, tuple[NDArray[np.float64], NDArray[np.float64]]]]:
    """Metric to split to the epochs and values that are known, losses first.

    Args:
        history: As in :func:`learning_curves`.

    Returns:
        At most twelve metrics; those with fewer than one known value are left out.
    """
    epochs = np.asarray(history.get("epoch", ()), dtype=float)
    panels: dict[str, dict[str, tuple[NDArray[np.float64], NDArray[np.float64]]]] = {}
    for column, values in history.items():
        split, _, metric = column.partition("/")
        numbers = np.asarray(values, dtype=float)
        known = np.isfinite(numbers)
        if metric and known.any() and not metric.endswith("_undefined"):
            panels.setdefault(metric, {})[split] = (epochs[known], numbers[known])
    ordered = sorted(panels, key=lambda metric: "loss" not in metric)
    return {metric: panels[metric] for metric in ordered[:MOST_PANELS]}


def roc_chart(
    curves: Mapping[str, tuple[NDArray[np.float64], NDArray[np.float64]]],
) -> str:
    """Curves of sensitivity against 1 - specificity, by name.

    Args:
        curves: Name to false positive rate and true positive rate.

    Returns:
        SVG; empty without curves.
    """
    if not curves:
        return ""
    figure = Figure(figsize=(3.6, 3.5))
    axis = figure.subplots()
    axis.plot([0, 1], [0, 1], color=RULE, linewidth=1)
    for position, (name, (alarms, hits)) in enumerate(curves.items()):
        colour, dash = LINES[position % len(LINES)], DASHES[position % len(DASHES)]
        axis.plot(alarms, hits, color=colour, linestyle=dash, linewidth=1.8, label=name)
    axis.set_xlabel("1 - specificity", fontsize=8.5)
    axis.set_ylabel("sensitivity", fontsize=8.5)
    axis.set_aspect("equal")
    legend = axis.legend(fontsize=8, frameon=False, loc="lower right")
    for text in legend.get_texts():
        text.set_parse_math(False)
    _tidy(axis)
    figure.tight_layout()
    return to_svg(figure)


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


def _legend_of(axis: Axes) -> list[tuple[Artist, str]]:
    handles, labels = axis.get_legend_handles_labels()
    return list(zip(handles, labels, strict=True))


def _tidy(axis: Axes) -> None:
    axis.tick_params(labelsize=8, color=RULE, labelcolor=INK)
    axis.grid(color=RULE, linewidth=0.4)
    for side in ("top", "right"):
        axis.spines[side].set_visible(False)
    for side in ("left", "bottom"):
        axis.spines[side].set_color(RULE)
