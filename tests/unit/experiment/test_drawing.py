"""Samples as slices: which slices of a volume, on one scale, and as layers."""

import numpy as np
import pytest
import torch

from glioma_xai.experiment.drawing import ShownCase, ShownSlice, _slices_of, levels_around
from glioma_xai.visualization.layers import to_layers


@pytest.mark.parametrize(
    ("main", "inside", "most", "expected"),
    [
        (10, range(6, 15), 7, [4, 6, 8, 10, 12, 14, 16]),
        (6, range(6, 15), 7, [4, 6, 8, 10, 12, 14, 16]),
        (9, range(6, 15), 3, [4, 9, 16]),
        (1, [0, 1, 2], 7, [0, 1, 2, 3, 4]),
        (38, [37, 38, 39], 7, [35, 36, 37, 38, 39]),
        (5, [4, 5, 6], 1, [5]),
        (5, [], 7, [5]),
    ],
)
def test_slices_go_from_below_a_tumour_to_above_it(main, inside, most, expected):
    assert levels_around(main, list(inside), most=most, depth=40) == expected


def test_a_volume_is_shown_where_its_tumour_is():
    lesion_mask = torch.zeros(1, 6, 6, 30)
    lesion_mask[0, 2:4, 2:4, 10:15] = 1
    lesion_mask[0, 1:5, 1:5, 12] = 1
    image, relevance = torch.ones(2, 6, 6, 30), torch.zeros(2, 6, 6, 30)
    relevance[..., 12] = 3.0
    slices, main = _slices_of(image, relevance, lesion_mask, index=-1, most=5)
    assert [shown.level for shown in slices] == [8, 10, 12, 14, 16]
    assert slices[main].level == 12
    assert float(slices[main].relevance.max()) == 3.0
    assert float(slices[main].lesion_mask.sum()) == 16
    unknown = torch.full_like(lesion_mask, torch.nan)
    slices, main = _slices_of(image, relevance, unknown, index=-1, most=5)
    assert slices[main].level == 12  # where relevance is largest
    assert slices[main].lesion_mask is None
    assert (slices[0].level, slices[-1].level) == (0, 29)  # over the whole brain


def case(values):
    slices = [
        ShownSlice(level, torch.rand(2, 8, 6), torch.full((2, 8, 6), value), None)
        for level, value in values.items()
    ]
    return ShownCase("a/b", "LGG", ("t1", "flair"), True, slices, 1, "logit per voxel")


def test_slices_of_a_volume_share_their_scale():
    shown = case({3: 1.0, 4: -5.0})
    ticks = [
        [tick.get_text() for tick in shown.figure(position).axes[-1].get_yticklabels()]
        for position in (0, 1, None)
    ]
    assert ticks == [["-10", "-5", "0", "+5", "+10"]] * 3  # the sum of two channels
    words = [text.get_text() for text in shown.figure(0).texts]
    assert "a/b, slice 3" in words
    assert "relevance [logit per voxel]" in words
    assert shown.name.startswith("a_b_4_")


def test_layers_are_anatomy_tumour_and_where_relevance_is_strong():
    image = torch.zeros(2, 40, 30)
    image[1, 10:30, 5:25] = torch.linspace(-2, 2, 400).reshape(20, 20)
    relevance = torch.zeros(2, 40, 30)
    relevance[0, 39, 29], relevance[1, 20, 20], relevance[1, 21, 21] = 5.0, -1.5, 0.5
    relevance[0, 0, 0] = torch.nan
    lesion_mask = torch.zeros(1, 40, 30)
    lesion_mask[0, 39, 0] = 1
    layers = to_layers(image, relevance, lesion_mask, modalities=("t1", "flair"))
    factor = 8  # 40 pixels to 320
    assert layers.anatomy.shape == (30 * factor, 40 * factor)
    assert layers.anatomy.dtype == np.uint8
    assert (layers.anatomy.min(), layers.anatomy.max()) == (0, 255)
    found = layers.masks["relevance"][::factor, ::factor]
    assert found[0, 0] == 1  # the patient's right, in front: upper left
    assert (found == 2).sum() == 1
    assert (found > 0).sum() == 2  # 0.5 is below a fifth of 5
    assert layers.masks["tumour"][-1, 0] == 1
    assert layers.masks["tumour"].sum() == factor**2
    assert set(layers.words["relevance"]) == {1, 2}


def test_layers_of_nothing():
    layers = to_layers(torch.zeros(1, 4, 4), torch.zeros(1, 4, 4), None, modalities=("t1",))
    assert set(layers.masks) == {"relevance"}
    assert layers.masks["relevance"].max() == layers.anatomy.max() == 0
