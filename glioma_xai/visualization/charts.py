"""Line charts of a page as inline SVG: text stays text, nothing is fetched."""

from collections.abc import Collection, Mapping, Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from numpy.typing import NDArray

from glioma_xai.visualization.frames import (
    INK,
    LINES,
    RULE,
    common_legend,
    draw_named,
    grid,
    label_epochs,
    marker,
    style,
    tidy,
    to_svg,
)

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
    figure, axes = grid(len(panels), most_columns=4, width=2.75, height=2.1)
    for axis, (metric, lines) in zip(axes, panels.items(), strict=True):
        for split, (epochs, values) in lines.items():
            colour, dash = SPLIT_STYLES.get(split, (LINES[3], "-."))
            line = axis.plot(epochs, values, color=colour, linestyle=dash, linewidth=1.5)[0]
            line.set(label=split, marker=marker(len(values)), markersize=3.5)
        if selected_epoch is not None:
            axis.axvline(selected_epoch, color=RULE, linewidth=1, zorder=0)
        label_epochs(axis, metric)
    common_legend(figure, axes)
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
    draw_named(axis, curves, "lower right")
    axis.set_xlabel("1 - specificity", fontsize=8.5)
    axis.set_ylabel("sensitivity", fontsize=8.5)
    axis.set_aspect("equal")
    figure.tight_layout()
    return to_svg(figure)


def line_chart(
    curves: Mapping[str, tuple[Sequence[float] | NDArray[np.float64], ...]],
    x_label: str,
    y_label: str,
) -> str:
    """Lines by name, told apart by colour and dash.

    Args:
        curves: Name to x and y.
        x_label: Of the axis, with the unit.
        y_label: Of the axis, with the unit.

    Returns:
        SVG; empty without curves.
    """
    if not curves:
        return ""
    figure = Figure(figsize=(4.6, 3.0))
    axis = figure.subplots()
    draw_named(axis, curves, "best")
    axis.set_xlabel(x_label, fontsize=8.5, parse_math=False)
    axis.set_ylabel(y_label, fontsize=8.5, parse_math=False)
    figure.tight_layout()
    return to_svg(figure)


def overlaid_curves(
    histories: Mapping[str, Sequence[Mapping[str, Sequence[float]]]], columns: Sequence[str]
) -> str:
    """One small chart a column of ``metrics.csv``, one colour a setting, one line a run.

    Args:
        histories: Short name of a setting to the histories of its runs.
        columns: Columns to draw.

    Returns:
        SVG; empty if no column is known.
    """
    runs = [run for members in histories.values() for run in members]
    drawn = [name for name in columns if any(np.isfinite(run.get(name, [])).any() for run in runs)]
    if not drawn:
        return ""
    figure, axes = grid(len(drawn), most_columns=3, width=3.6, height=2.5)
    for axis, column in zip(axes, drawn, strict=True):
        _draw_runs(axis, histories, column)
        label_epochs(axis, column)
    common_legend(figure, axes)
    return to_svg(figure)


def pareto_chart(
    points: Mapping[str, tuple[float, float, float]], front: Collection[str], names: Sequence[str]
) -> str:
    """Two of three objectives in each of three panels; the front is filled.

    Args:
        points: Short name of a setting to its three objectives.
        front: Names that no other beats.
        names: Of the objectives.

    Returns:
        SVG; empty without points.
    """
    if not points:
        return ""
    figure = Figure(figsize=(10.2, 3.2))
    axes = figure.subplots(1, 3)
    for axis, (x, y) in zip(axes, ((0, 1), (0, 2), (2, 1)), strict=True):
        for name, objectives in points.items():
            fill = LINES[0] if name in front else "white"
            axis.scatter(objectives[x], objectives[y], s=44, facecolor=fill, edgecolor=LINES[0])
            at = (objectives[x], objectives[y])
            axis.annotate(name, at, (5, 4), textcoords="offset points", fontsize=9, color=INK)
        axis.set_xlabel(names[x], fontsize=8.5, color=INK)
        axis.set_ylabel(names[y], fontsize=8.5, color=INK)
        axis.margins(0.15)
        tidy(axis)
    figure.tight_layout()
    return to_svg(figure)


def _draw_runs(
    axis: Axes, histories: Mapping[str, Sequence[Mapping[str, Sequence[float]]]], column: str
) -> None:
    for position, (name, runs) in enumerate(histories.items()):
        colour, dash = style(position)
        for run in runs:
            values = np.asarray(run.get(column, []), dtype=float)
            epochs = np.asarray(run.get("epoch", []), dtype=float)[: len(values)]
            known = np.isfinite(values)
            line = axis.plot(epochs[known], values[known], color=colour, linestyle=dash)[0]
            line.set(linewidth=1.3, alpha=0.85, label=name, marker=marker(known.sum()))
            line.set_markersize(3.5)
