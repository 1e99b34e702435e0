"""Localization scores against loops, by hand, and at the edges of their policy."""

import itertools
import math

import pytest
import torch

from glioma_xai.errors import ConfigError, ShapeError
from glioma_xai.metrics.functional import localization, overlap, regions
from tests.reference import metrics as reference

SCORES = {
    "mass": localization.relevance_mass_accuracy,
    "absolute": localization.absolute_relevance_mass,
    "rank": localization.relevance_rank_accuracy,
    "pointing": localization.pointing_game,
    "focus": localization.focus_score,
    "overlap": lambda *args, **options: overlap.intersection_over_union(
        *args, threshold=0.4, **options
    ),
}
LOOPS = {
    "mass": lambda counted: reference.mass(counted, lambda value: max(value, 0.0)),
    "absolute": lambda counted: reference.mass(counted, abs),
    "rank": lambda counted: reference.rank(counted, [range(len(counted))]),
    "pointing": reference.pointing,
    "focus": reference.focus,
    "overlap": lambda counted: reference.overlap(counted, 0.4),
}


def sample(shape=(3, 4), *, batch=5, channels=2, seed=0):
    generator = torch.Generator().manual_seed(seed)
    relevance = torch.randn(batch, channels, *shape, generator=generator, dtype=torch.float64)
    lesion_mask = (torch.rand(batch, 1, *shape, generator=generator) < 0.4).float()
    lesion_mask[:, 0].flatten(1)[:, 0] = 1
    lesion_mask[:, 0].flatten(1)[:, 1] = 0
    lesion_mask[:, 0].flatten(1)[:, 5] = math.nan
    brain_mask = (torch.rand(batch, 1, *shape, generator=generator) < 0.8).float()
    brain_mask[:, 0].flatten(1)[:, :4] = 1
    return relevance, lesion_mask, brain_mask


@pytest.mark.parametrize("name", SCORES)
@pytest.mark.parametrize("shape", [(3, 4), (3, 2, 4)])
@pytest.mark.parametrize("with_brain", [False, True])
def test_equals_the_loop(name, shape, with_brain):
    relevance, lesion_mask, brain_mask = sample(shape)
    brain_mask = brain_mask if with_brain else None
    found = SCORES[name](relevance, lesion_mask, brain_mask=brain_mask)
    for position in range(len(relevance)):
        brain = None if brain_mask is None else brain_mask[position]
        counted = reference.pixels(relevance[position], lesion_mask[position], brain)
        assert found[position].item() == pytest.approx(LOOPS[name](counted), abs=1e-12)


@pytest.mark.parametrize("name", SCORES)
def test_scale_does_not_matter_and_unknown_pixels_are_not_seen(name):
    relevance, lesion_mask, brain_mask = sample()
    score = SCORES[name](relevance, lesion_mask, brain_mask=brain_mask)
    torch.testing.assert_close(
        SCORES[name](7 * relevance, lesion_mask, brain_mask=brain_mask), score
    )
    changed = torch.where(lesion_mask.isnan() | (brain_mask == 0), 1e6, relevance)
    torch.testing.assert_close(SCORES[name](changed, lesion_mask, brain_mask=brain_mask), score)


@pytest.mark.parametrize("name", [name for name in SCORES if name not in ("focus", "overlap")])
def test_a_lesion_everywhere_scores_one(name):
    relevance, lesion_mask, _ = sample()
    torch.testing.assert_close(
        SCORES[name](relevance, torch.ones_like(lesion_mask)), torch.ones(5, dtype=torch.float64)
    )


@pytest.mark.parametrize("name", SCORES)
@pytest.mark.parametrize("case", ["no lesion", "all unknown", "zero", "negative", "nan", "inf"])
def test_undefined_is_nan_and_never_a_hit(name, case):
    relevance, lesion_mask, _ = sample(batch=2)
    if case == "no lesion":
        lesion_mask[0] = 0
    elif case == "all unknown":
        lesion_mask[0] = math.nan
    else:
        one = {"nan": math.nan, "inf": math.inf}
        if case in one:
            relevance[0, 0, 0, 0] = one[case]
        else:
            relevance[0] = 0 if case == "zero" else -1
    scores = SCORES[name](relevance, lesion_mask)
    assert scores.isnan().tolist() == [True, False]
    mean, undefined = regions.mean_of_defined(scores)
    assert mean == scores[1].item()
    assert undefined == 1


def test_golden_numbers_by_hand():
    relevance = torch.tensor([[[[4.0, 2.0], [1.0, -3.0]]]])
    lesion_mask = torch.tensor([[[[1.0, 0.0], [0.0, 1.0]]]])
    scores = localization.localization_scores(relevance, lesion_mask)
    found = {name: value.item() for name, value in scores.items()}
    assert found == pytest.approx(
        {
            "relevance_mass_accuracy": 4 / 7,
            "absolute_relevance_mass": 7 / 10,
            "relevance_rank_accuracy": 1 / 2,
            "pointing_game": 1.0,
            "focus_score": 2 / (2 + 1.5),
            "negative_share": 0.3,
            "lesion_share": 0.5,
        }
    )


def test_a_constant_map_scores_what_chance_does():
    lesion_mask = torch.zeros(1, 1, 4, 5)
    lesion_mask[..., :3] = 1
    lesion_mask[..., 0, 4] = math.nan
    constant = torch.ones(1, 2, 4, 5)
    for name in ("mass", "absolute", "rank", "pointing"):
        assert SCORES[name](constant, lesion_mask).item() == pytest.approx(12 / 19)
    assert localization.lesion_share(lesion_mask).item() == pytest.approx(12 / 19)
    assert localization.focus_score(constant, lesion_mask).item() == pytest.approx(0.5)


def test_rank_ties_count_by_their_mean_over_random_orders():
    relevance = torch.tensor([[[[3.0, 1.0, 1.0, 1.0, 0.0]]]])
    lesion_mask = torch.tensor([[[[1.0, 1.0, 0.0, 1.0, 0.0]]]])
    counted = reference.pixels(relevance[0], lesion_mask[0])
    mean = reference.rank(counted, list(itertools.permutations(range(5))))
    found = localization.relevance_rank_accuracy(relevance, lesion_mask)
    assert found.item() == pytest.approx(mean)


def test_focus_without_a_rest_of_the_brain_is_undefined():
    relevance, lesion_mask, _ = sample()
    assert localization.focus_score(relevance, torch.ones_like(lesion_mask)).isnan().all()


def test_relevance_on_a_marker_outside_the_brain_is_seen():
    relevance, lesion_mask = torch.zeros(1, 1, 4, 4), torch.zeros(1, 1, 4, 4)
    brain_mask = torch.zeros(1, 1, 4, 4)
    brain_mask[..., 1:, 1:] = 1
    lesion_mask[..., 2, 2] = 1
    relevance[..., 0, 0], relevance[..., 2, 2] = 3.0, 1.0
    scores = localization.localization_scores(relevance, lesion_mask, brain_mask=brain_mask)
    assert scores["relevance_mass_accuracy"].item() == pytest.approx(0.25)
    assert scores["outside_brain"].item() == pytest.approx(0.75)
    assert scores["focus_score"].item() == pytest.approx(1.0)


def test_threshold_is_chosen_where_the_overlap_is_highest():
    relevance = torch.tensor([[[[1.0, 0.62, 0.38, 0.1]]]])
    lesion_mask = torch.tensor([[[[1.0, 1.0, 0.0, 0.0]]]])
    assert overlap.choose_iou_threshold(relevance, lesion_mask) == pytest.approx(0.4)
    assert math.isnan(overlap.choose_iou_threshold(relevance, torch.zeros_like(lesion_mask)))


def test_errors_say_how_to_fix():
    relevance, lesion_mask, brain_mask = sample()
    with pytest.raises(ShapeError, match=r"expected \(5, 1, 3, 4\), got \(5, 2, 3, 4\). Merge"):
        localization.pointing_game(relevance, lesion_mask.repeat(1, 2, 1, 1))
    with pytest.raises(ShapeError, match=r"2-D mask met 3-D.*data.spatial_dims"):
        localization.focus_score(relevance, lesion_mask[..., None])
    with pytest.raises(ShapeError, match=r"brain_mask must match.*Resample"):
        localization.focus_score(relevance, lesion_mask, brain_mask=brain_mask[..., 1:])
    with pytest.raises(ConfigError, match=r"between 0 and 1, got 1\.5. Choose it"):
        overlap.intersection_over_union(relevance, lesion_mask, threshold=1.5)
