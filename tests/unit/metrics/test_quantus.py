"""Quantus 0.6 as a second opinion: where it is right we agree, where it is not we say so."""

import math

import numpy as np
import pytest
import torch
from torch import nn

from glioma_xai.metrics.functional.faithfulness import patch_regions, perturbation_curve
from glioma_xai.metrics.functional.localization import (
    pointing_game,
    relevance_mass_accuracy,
    relevance_rank_accuracy,
)

quantus = pytest.importorskip("quantus", minversion="0.6")
pytestmark = pytest.mark.filterwarnings("ignore")
PAIRS = {
    "PointingGame": pointing_game,
    "RelevanceMassAccuracy": relevance_mass_accuracy,
    "RelevanceRankAccuracy": relevance_rank_accuracy,
}


class Linear(nn.Module):
    """Two logits of an 8 by 8 image."""

    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.layer = nn.Linear(64, 2)

    def forward(self, images):
        return self.layer(images.flatten(1))


def sample(*, positive=False):
    generator = np.random.default_rng(0)
    relevance = generator.normal(size=(6, 1, 8, 8))
    lesion_mask = generator.random((6, 1, 8, 8)) < 0.3
    return (np.abs(relevance) if positive else relevance), lesion_mask


def theirs(name, relevance, lesion_mask):
    metric = getattr(quantus, name)(abs=False, normalise=False, disable_warnings=True)
    images, labels = np.ones_like(relevance, dtype=np.float32), np.zeros(len(relevance), dtype=int)
    scores = metric(
        model=Linear(), x_batch=images, y_batch=labels, a_batch=relevance, s_batch=lesion_mask
    )
    return np.array(scores, dtype=float)


def ours(name, relevance, lesion_mask):
    return PAIRS[name](torch.tensor(relevance), torch.tensor(lesion_mask).float()).numpy()


@pytest.mark.parametrize("name", PAIRS)
def test_agrees_on_maps_without_negative_relevance(name):
    relevance, lesion_mask = sample(positive=True)
    np.testing.assert_allclose(
        ours(name, relevance, lesion_mask), theirs(name, relevance, lesion_mask)
    )


@pytest.mark.parametrize("name", ["PointingGame", "RelevanceRankAccuracy"])
def test_agrees_on_signed_maps_where_only_the_order_counts(name):
    relevance, lesion_mask = sample()
    np.testing.assert_allclose(
        ours(name, relevance, lesion_mask), theirs(name, relevance, lesion_mask)
    )


def test_their_mass_accuracy_of_a_signed_map_is_no_share():
    """They divide by the signed sum, which may be 0 or negative. Ours takes positive relevance."""
    relevance, lesion_mask = sample()
    found = theirs("RelevanceMassAccuracy", relevance, lesion_mask)
    assert not ((found >= 0) & (found <= 1)).all()
    found = ours("RelevanceMassAccuracy", relevance, lesion_mask)
    assert ((found >= 0) & (found <= 1)).all()


def test_their_pointing_game_counts_an_empty_mask_as_a_hit():
    """A NaN put into an array of booleans becomes True."""
    relevance, lesion_mask = sample()
    lesion_mask[0] = False
    assert theirs("PointingGame", relevance, lesion_mask)[0] == 1.0
    assert math.isnan(ours("PointingGame", relevance, lesion_mask)[0])


def test_their_pointing_game_counts_a_map_of_zeros_as_a_hit():
    relevance, lesion_mask = sample()
    relevance[0] = 0
    assert theirs("PointingGame", relevance, lesion_mask)[0] == 1.0
    assert math.isnan(ours("PointingGame", relevance, lesion_mask)[0])


@pytest.mark.parametrize(("theirs_order", "order"), [("morf", "most"), ("lerf", "least")])
def test_region_perturbation_agrees(theirs_order, order):
    relevance, _ = sample()
    images = np.random.default_rng(1).normal(size=(6, 1, 8, 8)).astype(np.float32)
    model = Linear().eval()
    metric = quantus.RegionPerturbation(
        patch_size=2, order=theirs_order, regions_evaluation=16, perturb_baseline=0.0,
        abs=False, normalise=False, disable_warnings=True, display_progressbar=False,
    )  # fmt: skip
    drops = np.array(
        metric(
            model=model, x_batch=images, y_batch=np.zeros(6, dtype=int), a_batch=relevance,
            softmax=False,
        )
    )  # fmt: skip
    curve = perturbation_curve(
        lambda x: model(x)[:, 0], torch.tensor(images), torch.tensor(relevance),
        fill=torch.zeros(6, 1, 8, 8), regions=patch_regions((8, 8), 2), order=order, steps=16,
    ).numpy()  # fmt: skip
    np.testing.assert_allclose(curve[:, :1] - curve[:, 1:], drops, atol=1e-5)
