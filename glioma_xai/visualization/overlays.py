"""A slice with its relevance, shown the way radiologists look at slices."""

from collections.abc import Sequence
from io import BytesIO

import numpy as np
from matplotlib.figure import Figure
from numpy.typing import NDArray
from torch import Tensor

from glioma_xai.errors import ShapeError
from glioma_xai.visualization.colours import relevance_colours
from glioma_xai.visualization.panels import (
    INK,
    PAPER,
    PERCENTILE,
    Image,
    background,
    common_limit,
    draw_anatomy,
    draw_relevance,
    finish_panel,
    mark_sides,
    to_display,
)


def overlay_figure(
    image: Tensor,
    relevance: Tensor,
    lesion_mask: Tensor | None,
    *,
    modalities: Sequence[str],
    title: str,
    subtitle: str = "",
    sides_known: bool = True,
    limit: float | None = None,
    unit: str = "logit per pixel",
) -> Figure:
    """Anatomy above, relevance on it below, one column a modality and one for their sum.

    All panels share one colour scale, symmetric about zero. Slices stand as in a reading room: the
    patient's right is on the left, the face is up. A PNG or TIFF stands as it was delivered.

    Args:
        image: Slice, (C, H, W), any intensities; axis 1 runs from the patient's left to right and
            axis 2 from posterior to anterior.
        relevance: Signed relevance of the slice, (C, H, W), in ``unit``.
        lesion_mask: 1 in the tumour, (1, H, W), NaN where unknown; outlined. None draws no outline.
        modalities: Name of each channel.
        title: First line, say the patient and the slice.
        subtitle: Second line, say label, prediction and probability.
        sides_known: Mark right and left. False where nothing says which is which.
        limit: Relevance at the ends of the scale, to compare figures; None takes the 99.5th
            percentile of |R| in this slice, so that single hot pixels do not darken the rest.
        unit: What relevance is measured in.

    Returns:
        A figure of its own; nothing is registered with pyplot.

    Raises:
        ShapeError: If sizes or the number of modalities do not fit.
    """
    pictures, maps, outline = _check(image, relevance, lesion_mask, modalities)
    total = maps.sum(axis=0)
    scale = common_limit([relevance]) if limit is None else limit
    columns = len(modalities) + 1
    height, width = pictures.shape[1:]
    figure = Figure(figsize=(2.1 * columns + 1.25, 4.2 * height / width + 1.1), facecolor=PAPER)
    axes = figure.subplots(2, columns, squeeze=False)
    base = pictures[background(modalities)]
    for column, name in enumerate(modalities):
        draw_anatomy(axes[0, column], pictures[column])
        draw_anatomy(axes[1, column], pictures[column])
        draw_relevance(axes[1, column], maps[column], scale)
        axes[0, column].set_title(name, fontsize=10, color=INK, parse_math=False)
    axes[0, -1].imshow(np.zeros_like(total), cmap="gray", vmin=0, vmax=1)
    draw_relevance(axes[0, -1], total, scale)
    draw_anatomy(axes[1, -1], base)
    draw_relevance(axes[1, -1], total, scale)
    axes[0, -1].set_title("sum of channels", fontsize=10, color=INK)
    for axis in axes.flat:
        finish_panel(axis, outline)
    for axis in axes[0, :-1] if sides_known else ():
        mark_sides(axis)
    _label(figure, axes, title, subtitle)
    robust = f", ends at the {PERCENTILE} % quantile of |R|" if limit is None else ""
    _draw_scale(figure, scale, unit, robust)
    figure.text(0.99, 0.012, _caption(outline, sides_known), fontsize=7.5, color=INK, ha="right")
    return figure


def to_png(figure: Figure, *, dots_per_inch: int = 110) -> bytes:
    """The figure as a PNG file, the same bytes for the same figure.

    Args:
        figure: A matplotlib figure.
        dots_per_inch: Resolution.

    Returns:
        The file's content.
    """
    stream = BytesIO()
    figure.savefig(stream, format="png", dpi=dots_per_inch, metadata={"Software": None})
    return stream.getvalue()


def _check(
    image: Tensor,
    relevance: Tensor,
    lesion_mask: Tensor | None,
    modalities: Sequence[str],
) -> tuple[Image, Image, Image | None]:
    expected = (len(modalities), *image.shape[1:])
    if image.ndim != 3 or tuple(image.shape) != expected or relevance.shape != image.shape:
        raise ShapeError(
            f"image and relevance must be one slice with {len(modalities)} modalities: expected "
            f"{expected}, got {tuple(image.shape)} and {tuple(relevance.shape)}. Take a slice of "
            "the volume, and name each channel in modalities."
        )
    if lesion_mask is not None and tuple(lesion_mask.shape) != (1, *image.shape[1:]):
        raise ShapeError(
            f"lesion_mask must lie on the slice: expected {(1, *image.shape[1:])}, got "
            f"{tuple(lesion_mask.shape)}. Take the same slice of the mask."
        )
    pictures, maps = (
        to_display(tensor.detach().cpu().float().numpy()) for tensor in (image, relevance)
    )
    if lesion_mask is None or not bool((lesion_mask > 0.5).any()):
        return pictures, maps, None
    lesion = lesion_mask[0].detach().cpu().float().nan_to_num(0.0).numpy()
    return pictures, maps, to_display(lesion)


def _label(figure: Figure, axes: NDArray[np.object_], title: str, subtitle: str) -> None:
    inch = 1 / figure.get_figheight()
    figure.subplots_adjust(
        left=0.035, right=0.875, top=1 - 0.82 * inch, bottom=0.27 * inch, wspace=0.03, hspace=0.04
    )
    for text, weight, size, depth in ((title, "bold", 12, 0.24), (subtitle, "normal", 9.5, 0.48)):
        line = figure.text(0.035, 1 - depth * inch, text, ha="left", va="center", parse_math=False)
        line.set(color=INK, fontsize=size, fontweight=weight)
    for axis, name in zip(axes[:, 0], ("anatomy", "relevance"), strict=True):
        line = axis.text(-0.06, 0.5, name, transform=axis.transAxes, rotation=90)
        line.set(color=INK, fontsize=9, va="center", ha="center")


def _draw_scale(figure: Figure, limit: float, unit: str, robust: str) -> None:
    axis = figure.add_axes((0.895, 0.14, 0.014, 0.64))
    axis.set_facecolor("#404040")  # the grey of tissue: the colours as they look in the panels
    ramp = np.linspace(-1, 1, 256)[:, None]
    axis.imshow(ramp, cmap=relevance_colours(), origin="lower", aspect="auto", vmin=-1, vmax=1)
    axis.set_xticks([])
    axis.yaxis.tick_right()
    power = int(np.floor(np.log10(limit)))
    power = 0 if -2 <= power <= 2 else power
    ends = np.linspace(-limit, limit, 5) / 10.0**power
    ticks = [f"{value:+.2g}" if value else "0" for value in ends]
    axis.set_yticks(np.linspace(0, 255, 5), ticks, fontsize=8, color=INK)
    axis.set_title("for", fontsize=9, color=INK)
    axis.set_xlabel("against", fontsize=9, color=INK)
    factor = f"1e{power} " if power else ""
    label = f"relevance [{factor}{unit}]{robust}"
    line = figure.text(0.985, 0.46, label, rotation=90, ha="center", va="center")
    line.set(fontsize=8, color=INK, parse_math=False)


def _caption(outline: Image | None, sides_known: bool) -> str:
    lesion = "white line: tumour" if outline is not None else "no tumour annotation"
    view = "radiological view" if sides_known else "sides unknown: shown as delivered"
    return f"{lesion} · {view}"
