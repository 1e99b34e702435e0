"""Perturbation and randomisation against what is known for linear networks; agreement of maps."""

import math

import pytest
import torch
from scipy.stats import spearmanr
from torch import nn

from glioma_xai.errors import ConfigError, ShapeError
from glioma_xai.metrics.functional.agreement import rank_correlation
from glioma_xai.metrics.functional.faithfulness import (
    area_between,
    blurred,
    cut_regions,
    mean_tissue,
    patch_regions,
    perturbation_curve,
)
from glioma_xai.metrics.functional.randomization import weight_randomization


def linear(shape=(2, 1, 4, 4), seed=0):
    """A linear score, images, and its exact relevance weight times image."""
    generator = torch.Generator().manual_seed(seed)
    weight = torch.randn(shape[1:], generator=generator, dtype=torch.float64)
    images = torch.randn(shape, generator=generator, dtype=torch.float64)
    return (lambda x: (x * weight).flatten(1).sum(dim=1)), images, weight * images


@pytest.mark.parametrize("shape", [(2, 1, 4, 4), (2, 3, 4, 4), (1, 2, 4, 2, 4)])
@pytest.mark.parametrize("order", ["most", "least"])
def test_a_linear_score_loses_the_relevance_that_is_removed(shape, order):
    predict, images, relevance = linear(shape)
    regions = patch_regions(shape[2:], 2)
    steps = int(regions.max()) + 1
    curve = perturbation_curve(
        predict, images, relevance, fill=torch.zeros_like(images), regions=regions, order=order,
        steps=steps,
    )  # fmt: skip
    for row in range(shape[0]):
        sums = [relevance[row][:, regions[0, 0] == r].sum() for r in range(steps)]
        removed = torch.stack(sorted(sums, reverse=order == "most")).cumsum(0)
        expected = torch.cat([curve[row, :1], predict(images)[row] - removed])
        torch.testing.assert_close(curve[row], expected)
    torch.testing.assert_close(curve[:, -1], torch.zeros_like(curve[:, -1]))


def test_a_faithful_map_beats_a_random_order_and_an_unfaithful_one_does_not():
    predict, images, relevance = linear((8, 1, 8, 8))
    options = {"fill": torch.zeros_like(images), "regions": patch_regions((8, 8), 2), "steps": 8}
    generator = torch.Generator().manual_seed(1)
    random = perturbation_curve(
        predict, images, relevance, order="random", generator=generator, **options
    )
    most = perturbation_curve(predict, images, relevance, **options)
    least = perturbation_curve(predict, images, relevance, order="least", **options)
    upside_down = perturbation_curve(predict, images, -relevance, **options)
    assert (area_between(random, most) > 0).all()
    assert (area_between(least, random) > 0).all()
    assert (area_between(random, upside_down) < 0).all()


def test_area_by_hand():
    curve, other = torch.tensor([[1.0, 0.5, 0.0]]), torch.tensor([[1.0, 0.0, 0.0]])
    assert area_between(curve, other).item() == pytest.approx(0.25)


def test_regions_of_unequal_size_are_ranked_by_their_mean():
    images = torch.ones(1, 1, 1, 4)
    relevance = torch.tensor([[[[0.4, 0.4, 0.4, 1.0]]]])
    curve = perturbation_curve(
        lambda x: x.flatten(1)[:, 3], images, relevance, fill=torch.zeros_like(images),
        regions=torch.tensor([[[[0, 0, 0, 1]]]]), steps=2,
    )  # fmt: skip
    assert curve.tolist() == [[1.0, 0.0, 0.0]]


@pytest.mark.parametrize("order", ["most", "least", "random"])
def test_samples_with_fewer_regions_lose_the_same_share_at_each_step(order):
    """The first sample has two regions and the second four, which are numbered with a gap."""
    images = torch.ones(2, 1, 1, 4)
    relevance = torch.tensor([[[[1.0, 1.0, 3.0, 3.0]]], [[[1.0, 2.0, 3.0, 4.0]]]])
    regions = torch.tensor([[[[0, 0, 5, 5]]], [[[0, 2, 5, 6]]]])
    curve = perturbation_curve(
        lambda x: (x * relevance).flatten(1).sum(1), images, relevance, order=order,
        fill=torch.zeros_like(images), regions=regions, steps=4,
        generator=torch.Generator().manual_seed(0),
    )  # fmt: skip
    assert curve[:, 0].tolist() == [8, 10]
    assert curve[:, 4].tolist() == [0, 0]
    if order == "most":
        assert curve.tolist() == [[8, 8, 2, 2, 0], [10, 6, 3, 1, 0]]
    if order == "least":
        assert curve.tolist() == [[8, 8, 6, 6, 0], [10, 9, 7, 4, 0]]


def test_borders_cut_patches():
    tumour = torch.tensor([[[[True, False, False, False]]], [[[False, False, False, True]]]])
    found = cut_regions(patch_regions((1, 4), 2), tumour)
    assert found[:, 0, 0].tolist() == [[1, 0, 2, 2], [0, 0, 2, 3]]


def test_patches_tile_the_image():
    assert patch_regions((3, 4), 2)[0, 0].tolist() == [[0, 0, 1, 1], [0, 0, 1, 1], [2, 2, 3, 3]]
    assert patch_regions((4, 4, 4), 2).unique().tolist() == list(range(8))


def test_fills():
    images = torch.zeros(1, 1, 9, 9)
    images[0, 0, 4, 4] = 1
    smooth = blurred(images, sigma=1.0)
    assert smooth.sum().item() == pytest.approx(1.0, abs=1e-3)
    assert smooth.max() < 0.2
    brain, lesion = torch.zeros_like(images), torch.zeros_like(images)
    brain[..., 2:7, 2:7] = 1
    lesion[..., 4, 4] = 1
    images[0, 0, 2, 2] = 24
    filled = mean_tissue(images, brain, lesion)
    assert filled[0, 0, 4, 4].item() == pytest.approx(1.0)  # 24 over 24 healthy pixels
    assert filled[0, 0, 0, 0].item() == 0.0
    torch.testing.assert_close(mean_tissue(images, brain, brain), images)


def test_errors_say_how_to_fix():
    predict, images, relevance = linear()
    fill, regions = torch.zeros_like(images), patch_regions((4, 4), 2)
    with pytest.raises(ConfigError, match=r"expected 1 to 4, got 5\. Use smaller"):
        perturbation_curve(predict, images, relevance, fill=fill, regions=regions, steps=5)
    with pytest.raises(ShapeError, match=r"fill must match the images: expected \(2, 1, 4, 4\)"):
        perturbation_curve(predict, images, relevance, fill=fill[:1], regions=regions, steps=2)
    with pytest.raises(ShapeError, match=r"\(1 or 2, 1, 4, 4\), got \(1, 1, 4, 3\)"):
        perturbation_curve(predict, images, relevance, fill=fill, regions=regions[..., :3], steps=2)


class Net(nn.Sequential):
    """Two convolutions and a dense layer, with a loss of nothing but its own weights."""

    def __init__(self):
        super().__init__(
            nn.Conv2d(1, 4, 3), nn.ReLU(), nn.Conv2d(4, 4, 3), nn.ReLU(), nn.Flatten(),
            nn.Linear(4 * 36, 2),
        )  # fmt: skip


@pytest.mark.parametrize("cascading", [True, False])
def test_randomisation_lowers_similarity_and_spares_the_model(cascading):
    torch.manual_seed(0)
    model, images = Net(), torch.randn(3, 1, 10, 10)
    before = [parameter.clone() for parameter in model.parameters()]

    def gradient_times_input(network):
        x = images.clone().requires_grad_()
        (gradient,) = torch.autograd.grad(network(x)[:, 0].sum(), x)
        return gradient * images

    found = weight_randomization(
        model, gradient_times_input, generator=torch.Generator().manual_seed(0),
        cascading=cascading,
    )  # fmt: skip
    assert list(found) == ["5", "2", "0"]
    assert all(values.shape == (3,) for values in found.values())
    assert found["0"].abs().mean() < 0.6
    for old, new in zip(before, model.parameters(), strict=True):
        assert torch.equal(old, new)
    blind = weight_randomization(
        model, lambda network: images, generator=torch.Generator().manual_seed(0)
    )
    for values in blind.values():  # a map that ignores the weights
        torch.testing.assert_close(values, torch.ones(3))


def test_rank_correlation_equals_scipy():
    a, b = torch.randn(3, 2, 6, 5), torch.randn(3, 2, 6, 5)
    a[0], b[0] = a[0].round(), b[0].round()  # ties
    a[1] = 0
    found = rank_correlation(a, b)
    assert math.isnan(found[1].item())
    for row in (0, 2):
        expected = spearmanr(a[row].sum(0).flatten(), b[row].sum(0).flatten()).statistic
        assert found[row].item() == pytest.approx(expected, abs=1e-5)


def test_maps_of_other_samples_are_refused():
    a = torch.randn(4, 1, 6, 6)
    with pytest.raises(ShapeError, match="Explain the same batch twice"):
        rank_correlation(a, a[:1])


def test_few_layers_of_a_deep_network_are_compared_and_all_are_shuffled():
    torch.manual_seed(0)
    model = nn.Sequential(*[nn.Linear(8, 8) for _ in range(7)])
    seen = []

    def explain(network):
        seen.append([p.clone() for p in network.parameters()])
        return torch.randn(2, 1, 4, 4)

    generator = torch.Generator().manual_seed(0)
    found = weight_randomization(model, explain, generator=generator, most=3)
    assert list(found) == ["6", "3", "0"]
    original, *_, last = seen
    assert all(not torch.equal(a, b) for a, b in zip(original, last, strict=True))
