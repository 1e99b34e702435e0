"""Overlays: sides, scale and colours, read back from the picture."""

from io import BytesIO

import numpy as np
import pytest
import torch
from PIL import Image

from glioma_xai.errors import ShapeError
from glioma_xai.visualization.colours import relevance_colours
from glioma_xai.visualization.overlays import overlay_figure, to_png
from glioma_xai.visualization.panels import to_display


def draw(**options):
    generator = torch.Generator().manual_seed(0)
    lesion_mask = torch.zeros(1, 12, 10)
    lesion_mask[0, 3:6, 3:6] = 1
    arguments = {
        "image": torch.rand(2, 12, 10, generator=generator),
        "relevance": torch.randn(2, 12, 10, generator=generator),
        "lesion_mask": lesion_mask,
        "modalities": ("t1", "flair"),
        "title": "patient",
    } | options
    return overlay_figure(**arguments)


def texts(figure):
    found = [text.get_text() for text in figure.texts]
    for axis in figure.axes:
        found += [axis.get_title(), *(text.get_text() for text in axis.texts)]
    return found


def test_radiological_view():
    ras = np.zeros((4, 5), dtype=np.float32)
    ras[3, 4] = 1  # the patient's right, in front
    assert to_display(ras).shape == (5, 4)
    assert to_display(ras)[0, 0] == 1  # upper left


def test_panels_show_each_modality_and_the_sum():
    relevance = torch.zeros(2, 12, 10)
    relevance[0, 11, 9], relevance[1, 11, 9] = 1.0, -3.0
    figure = draw(relevance=relevance, limit=2.0)
    shown = {}
    for axis in figure.axes[:6]:
        shown.setdefault(axis.get_title(), []).append(axis.images[-1].get_array())
    assert [title for title in shown if title] == ["t1", "flair", "sum of channels"]
    below = shown[""][:3]
    assert [panel[0, 0] for panel in below] == [0.5, -1.0, -1.0]  # cut at the limit


def test_outside_the_brain_is_black_also_where_the_brain_is_negative():
    image = torch.zeros(2, 12, 10)
    image[:, 3:9, 3:9] = torch.linspace(-3, 2, 36).reshape(6, 6)
    panel = draw(image=image).axes[0].images[0]
    grey = panel.cmap(panel.norm(panel.get_array()))[..., 0]
    assert grey[0, 0] == 0
    assert grey.max() == 1


def test_scale_is_symmetric_and_states_its_ends():
    relevance = torch.zeros(2, 12, 10)
    relevance[0, 0, 0] = 5.0
    figure = draw(relevance=relevance, limit=4.0)
    labels = [tick.get_text() for tick in figure.axes[-1].get_yticklabels()]
    assert labels == ["-4", "-2", "0", "+2", "+4"]
    small = draw(relevance=relevance, limit=4e-5)
    assert [tick.get_text() for tick in small.axes[-1].get_yticklabels()] == labels
    assert any("[1e-5 logit per pixel]" in text for text in texts(small))
    assert any("logit per pixel" in text for text in texts(figure))
    assert any("99.5 % quantile" in text for text in texts(draw()))
    assert not any("quantile" in text for text in texts(figure))


@pytest.mark.parametrize("values", [0.0, float("nan")])
def test_an_empty_map_can_be_drawn(values):
    assert to_png(draw(relevance=torch.full((2, 12, 10), values))).startswith(b"\x89PNG")


def test_sides_are_marked_only_where_they_are_known():
    assert {"R", "L"} <= set(texts(draw()))
    figure = draw(sides_known=False)
    assert not {"R", "L"} & set(texts(figure))
    assert any("sides unknown" in text for text in texts(figure))


def test_tumour_is_outlined_or_said_to_be_missing():
    assert any("white line: tumour" in text for text in texts(draw()))
    for lesion_mask in (None, torch.full((1, 12, 10), torch.nan), torch.zeros(1, 12, 10)):
        assert any("no tumour annotation" in text for text in texts(draw(lesion_mask=lesion_mask)))


def test_the_same_figure_is_the_same_file_and_names_are_no_formulas():
    first, second = (to_png(draw(title=r"$\frac$ patient_1^")) for _ in range(2))
    assert first == second
    assert Image.open(BytesIO(first)).size[0] > 600


def test_colours_are_as_bright_on_either_side_and_transparent_at_zero():
    colours = relevance_colours()(np.linspace(0, 1, 256))
    linear = np.where(
        colours[:, :3] <= 0.04045, colours[:, :3] / 12.92, ((colours[:, :3] + 0.055) / 1.055) ** 2.4
    )
    luminance = linear @ [0.2126, 0.7152, 0.0722]
    lightness = 116 * np.cbrt(luminance) - 16  # CIE L*
    np.testing.assert_allclose(lightness, lightness[::-1], atol=6)
    assert (np.diff(lightness[128:]) > 0).all()
    assert (np.diff(lightness[:128]) < 0).all()
    assert colours[127:129, 3].max() < 0.02
    assert colours[0, 3] == colours[-1, 3] > 0.9


# Machado, Oliveira and Fernandes (2009), severity 1, rounded to four decimals
PROTAN = [[0.1523, 1.0526, -0.2049], [0.1145, 0.7863, 0.0992], [-0.0039, -0.0481, 1.0520]]
DEUTAN = [[0.3673, 0.8606, -0.2280], [0.2801, 0.6725, 0.0474], [-0.0118, 0.0429, 0.9689]]
TRITAN = [[1.2555, -0.0767, -0.1788], [-0.0784, 0.9308, 0.1476], [0.0047, 0.6914, 0.3039]]


@pytest.mark.parametrize("deficiency", [PROTAN, DEUTAN, TRITAN])
def test_signs_are_told_apart_with_every_colour_vision(deficiency):
    colours = relevance_colours()(np.linspace(0, 1, 256))[:, :3]
    linear = ((colours + 0.055) / 1.055) ** 2.4
    seen = np.clip(linear @ np.array(deficiency).T, 0, 1) ** (1 / 2.4)
    strong = np.abs(np.linspace(-1, 1, 256)) > 0.4
    distance = np.abs(seen - seen[::-1]).max(axis=1)[strong]
    assert distance.min() > 0.25


def test_errors_say_how_to_fix():
    with pytest.raises(ShapeError, match=r"got \(2, 12, 10\) and \(2, 12\). Take a slice"):
        draw(relevance=torch.zeros(2, 12))
    with pytest.raises(ShapeError, match=r"expected \(3, 12, 10\).*name each channel"):
        draw(modalities=("t1", "t2", "flair"))
    with pytest.raises(ShapeError, match=r"got \(2, 12, 10\). Take the same slice"):
        draw(lesion_mask=torch.zeros(2, 12, 10))
