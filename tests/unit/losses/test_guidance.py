import functools
import math

import pytest
import torch
from torch import Tensor

from glioma_xai.errors import ConfigError, ShapeError
from glioma_xai.losses import (
    energy,
    focus,
    guided_samples,
    isnet,
    l1,
    natural_range,
    ppce,
    rrr,
    weighted_sum,
    within_brain,
)
from glioma_xai.losses.ranked import global_weighted_rank_pooling
from tests.reference import losses as reference

NAN = math.nan
RANGE = (3.0, 9.0)
LOSSES = {
    "energy": (energy, reference.energy),
    "energy_positive": (
        functools.partial(energy, sign="positive"),
        functools.partial(reference.energy, sign="positive"),
    ),
    "focus": (focus, reference.focus),
    "rrr": (rrr, reference.rrr),
    "l1": (l1, reference.l1),
    "ppce": (ppce, reference.ppce),
    "isnet": (
        functools.partial(isnet, relevance_range=RANGE, decay=0.9),
        functools.partial(reference.isnet, low=RANGE[0], high=RANGE[1], decay=0.9),
    ),
}
each_loss = pytest.mark.parametrize("name", LOSSES)
each_shape = pytest.mark.parametrize("space", [(5, 6), (3, 4, 5)], ids=["2d", "3d"])


def batch(space: tuple[int, ...], seed: int = 0) -> tuple[Tensor, Tensor]:
    """Seven samples: two plain, one partly unknown, one resampled, then missing, empty, full."""
    generator = torch.Generator().manual_seed(seed)
    relevance = torch.randn(7, 3, *space, generator=generator, dtype=torch.float64)
    mask = (torch.rand(7, 1, *space, generator=generator) < 0.3).double()
    mask[:, :, 0, 0] = 1
    mask[:, :, -1, -1] = 0
    mask[2, :, 1] = NAN
    mask[3] = mask[3] * 0.75
    mask[4], mask[5], mask[6] = NAN, 0, 1
    return relevance, mask


@each_loss
@each_shape
def test_equals_the_slow_reference(name, space):
    fast, slow = LOSSES[name]
    relevance, mask = batch(space)
    relevance *= torch.tensor([0.05, 0.2, 0.3, 1, 1, 1, 1]).view(-1, *[1] * (len(space) + 1))
    torch.testing.assert_close(
        fast(relevance, mask), reference.over_batch(slow, relevance, mask), rtol=1e-9, atol=1e-12
    )


@each_loss
@each_shape
def test_gradient_matches_finite_differences(name, space):
    loss, _ = LOSSES[name]
    relevance, mask = batch(space, seed=1)
    relevance.requires_grad_()
    assert torch.autograd.gradcheck(lambda r: loss(r, mask), relevance, eps=1e-7, atol=1e-5)


@each_loss
def test_sample_that_is_not_guided_gives_zero_and_zero_gradient_even_for_nan(name):
    loss, _ = LOSSES[name]
    relevance, mask = batch((5, 6))
    relevance[4], relevance[5, 0, 0, 0] = NAN, math.inf
    relevance.requires_grad_()
    values = loss(relevance, mask)
    assert guided_samples(mask).tolist() == [True] * 4 + [False] * 2 + [True]
    assert values[4:6].tolist() == [0, 0]
    values.sum().backward()
    assert torch.equal(relevance.grad[4:6], torch.zeros_like(relevance.grad[4:6]))
    assert torch.isfinite(relevance.grad).all()


@each_loss
def test_nan_in_a_guided_sample_is_not_hidden(name):
    loss, _ = LOSSES[name]
    relevance, mask = batch((5, 6))
    relevance[0, 0, 0, 0] = NAN
    values = loss(relevance, mask)
    assert torch.isnan(values[0])
    assert torch.isfinite(values[1:]).all()


@each_loss
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_counts_the_pixels_of_a_volume(name, dtype):
    loss, _ = LOSSES[name]
    relevance, mask = torch.full((1, 2, 48, 48, 48), 0.5), torch.zeros(1, 1, 48, 48, 48)
    mask[..., :24, :] = 1  # both halves have more pixels than the 65504 of float16
    relevance[..., :24, :] *= 2
    values = loss(relevance.to(dtype), mask.to(dtype))
    assert values.dtype == torch.float32
    torch.testing.assert_close(values, loss(relevance, mask))


@each_loss
def test_a_bool_mask_is_one_of_zeros_and_ones(name):
    loss, _ = LOSSES[name]
    relevance, mask = batch((5, 6))
    sharp = mask[[0, 1, 6]]
    torch.testing.assert_close(loss(relevance[:3], sharp.bool()), loss(relevance[:3], sharp))


@each_loss
@pytest.mark.parametrize(
    ("value", "shown"), [(4.0, "from 0 to 4"), (-1.0, "from -1 to 1"), (math.inf, "to inf")]
)
def test_a_mask_of_labels_is_refused(name, value, shown):
    loss, _ = LOSSES[name]
    mask = torch.tensor([0.0, 1.0, value, NAN]).view(1, 1, 2, 2)
    with pytest.raises(ShapeError, match=rf"shares in \[0, 1\] or NaN.*{shown}.*Merge"):
        loss(torch.ones(1, 1, 2, 2), mask)


@each_loss
def test_a_mask_on_another_device_is_refused(name):
    loss, _ = LOSSES[name]
    with pytest.raises(ShapeError, match=r"expected a tensor on cpu, got one on meta. Move it"):
        loss(torch.ones(1, 1, 2, 2), torch.ones(1, 1, 2, 2, device="meta"))


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("energy", 1.0),
        ("energy_positive", 1.0),
        ("focus", 1.0),
        ("rrr", 0.0),
        ("l1", 0.25),  # the lesion's share of the image
        ("ppce", math.log(1 / 1e-6 + 1)),
        ("isnet", 3.0),  # foreground weight times (1 - 0 / C1)^2
    ],
)
def test_zero_relevance(name, expected):
    loss, _ = LOSSES[name]
    mask = torch.zeros(1, 1, 4, 4, dtype=torch.float64)
    mask[..., :2, :2] = 1
    relevance = torch.zeros(1, 2, 4, 4, dtype=torch.float64, requires_grad=True)
    value = loss(relevance, mask)
    assert value.item() == pytest.approx(expected, rel=1e-9)
    value.backward()
    assert torch.equal(relevance.grad, torch.zeros_like(relevance))


@pytest.mark.parametrize("name", ["energy", "energy_positive", "focus", "rrr"])
def test_mask_that_covers_everything_gives_zero(name):
    relevance, mask = batch((5, 6))
    assert LOSSES[name][0](relevance, mask)[6].item() == 0


def test_isnet_background_is_zero_if_the_mask_covers_everything():
    relevance, mask = batch((5, 6))
    assert isnet(relevance, mask, relevance_range=None)[6].item() == 0


def test_isnet_all_outside_is_large_and_its_gradient_finite():
    relevance = torch.zeros(1, 1, 4, 4, dtype=torch.float64)
    relevance[..., 3, 3] = 5.0
    relevance.requires_grad_()
    mask = torch.zeros(1, 1, 4, 4)
    mask[..., 0, 0] = 1
    value = isnet(relevance, mask, relevance_range=None, decay=0.0)
    assert value.item() == pytest.approx(math.log1p(16e6))  # 5 / (1e-6 * 5 / 16)
    value.backward()
    assert torch.isfinite(relevance.grad).all()


@pytest.mark.parametrize("name", ["energy", "energy_positive", "focus", "l1", "ppce"])
def test_scale_does_not_matter(name):
    loss, _ = LOSSES[name]
    relevance, mask = batch((5, 6))
    torch.testing.assert_close(loss(relevance * 1e4, mask), loss(relevance, mask))
    torch.testing.assert_close(loss(relevance * 1e-6, mask), loss(relevance, mask))


def test_isnet_background_is_scale_invariant_and_rrr_is_quadratic():
    relevance, mask = batch((5, 6))
    loss = functools.partial(isnet, relevance_range=None)
    torch.testing.assert_close(loss(relevance * 1e3, mask), loss(relevance, mask))
    torch.testing.assert_close(rrr(relevance * 3, mask), rrr(relevance, mask) * 9)


@each_loss
def test_order_of_pixels_and_channels_does_not_matter(name):
    loss, _ = LOSSES[name]
    relevance, mask = batch((5, 6))
    order = torch.randperm(30, generator=torch.Generator().manual_seed(3))
    shuffled = relevance.flatten(2)[:, :, order].view_as(relevance).flip(1)
    shuffled_mask = mask.flatten(2)[:, :, order].view_as(mask)
    torch.testing.assert_close(loss(shuffled, shuffled_mask), loss(relevance, mask))


@each_loss
def test_unknown_pixels_do_not_count(name):
    loss, _ = LOSSES[name]
    relevance, mask = batch((5, 6))
    changed = relevance.clone()
    changed[2, :, 1] = 1e3
    torch.testing.assert_close(loss(changed, mask)[2], loss(relevance, mask)[2], rtol=0, atol=0)


@each_loss
def test_samples_do_not_see_each_other(name):
    loss, _ = LOSSES[name]
    relevance, mask = batch((5, 6))
    alone = torch.cat([loss(relevance[i : i + 1], mask[i : i + 1]) for i in range(7)])
    torch.testing.assert_close(loss(relevance, mask), alone)


@each_loss
def test_bool_masks_and_float32_work(name):
    loss, _ = LOSSES[name]
    relevance, mask = batch((5, 6))
    relevance, mask = relevance[:2].float(), mask[:2]
    values = loss(relevance, mask > 0)
    assert values.dtype == torch.float32
    torch.testing.assert_close(values, loss(relevance, mask))


def test_hand_arithmetic():
    # lesion: pixel 0 with 3 and -1 in two channels; outside 2, 2, 0 in channel 0
    relevance = torch.tensor([[[[3.0, 2.0], [2.0, 0.0]], [[-1.0, 0.0], [0.0, 0.0]]]])
    mask = torch.tensor([[[[1.0, 0.0], [0.0, 0.0]]]])
    assert energy(relevance, mask).item() == pytest.approx(4 / 8)
    assert energy(relevance, mask, sign="positive").item() == pytest.approx(4 / 7)
    assert focus(relevance, mask).item() == pytest.approx(1 - 3 / (3 + 4 / 3))
    assert rrr(relevance, mask).item() == pytest.approx(8 / 6)
    assert l1(relevance, mask).item() == pytest.approx((0 + 2 / 3 + 2 / 3 + 0) / 4)
    assert ppce(relevance, mask).item() == pytest.approx(0, abs=1e-6)
    # mean inside 2; channel 0 outside 1, 1, 0, 0 pooled with weights 1, .5, .25, .125 = .8
    value = isnet(relevance, mask, decay=0.5, relevance_range=(1.0, 3.0))
    assert value.item() == pytest.approx(math.log(1.8) / 2 + 3 * 1.0, rel=1e-5)


def test_focus_can_leave_out_what_is_not_brain():
    relevance, mask = batch((5, 6))
    brain = torch.zeros_like(mask)
    brain[..., :3, :] = 1
    cut = within_brain(mask, brain)
    assert torch.isnan(cut[0][(brain[0] == 0) & (mask[0] == 0)]).all()
    assert torch.equal(cut[0][mask[0] == 1], mask[0][mask[0] == 1])
    torch.testing.assert_close(focus(relevance, mask, brain_mask=brain), focus(relevance, cut))
    expected = reference.over_batch(reference.focus, relevance, cut)
    torch.testing.assert_close(focus(relevance, mask, brain_mask=brain), expected)


@pytest.mark.parametrize("decay", [0.0, 0.3, 0.9, 0.996, 1.0])
def test_rank_pooling_equals_the_reference(decay):
    values = torch.rand(4, 3000, dtype=torch.float64)
    expected = [reference.rank_pooling(row, decay) for row in values.tolist()]
    torch.testing.assert_close(
        global_weighted_rank_pooling(values, decay=decay),
        torch.tensor(expected, dtype=torch.float64),
        rtol=1e-10,
        atol=0,
    )


def test_natural_range_by_hand():
    # mean 10, std 1: 10 - 3 and 10 + 3; mean 10, std 5: 10 / 5 and 10 + 15
    assert natural_range(torch.tensor([9.0, 10.0, 11.0])) == pytest.approx((7, 13))
    assert natural_range(torch.tensor([5.0, 10.0, 15.0])) == pytest.approx((2, 25))
    assert natural_range(torch.tensor([0.0] * 99 + [100.0])) == pytest.approx((0.2, 5.0))


@pytest.mark.parametrize("totals", [[1.0], [1.0, NAN], [0.0, 0.0], [2.0, 2.0]])
def test_natural_range_refuses_what_has_no_range(totals):
    with pytest.raises(ConfigError, match="natural_range needs"):
        natural_range(torch.tensor(totals))


def test_weighted_sum():
    relevance, mask = batch((5, 6))
    value = weighted_sum(relevance, mask, losses=[energy, rrr], weights=[2.0, 0.5])
    torch.testing.assert_close(value, 2 * energy(relevance, mask) + rrr(relevance, mask) / 2)
    with pytest.raises(ConfigError, match="one weight for each loss, got 1 losses and 2"):
        weighted_sum(relevance, mask, losses=[energy], weights=[1.0, 2.0])
    for bad in (-1.0, NAN, math.inf):
        with pytest.raises(ConfigError, match="finite weights >= 0"):
            weighted_sum(relevance, mask, losses=[energy], weights=[bad])


@each_loss
@pytest.mark.parametrize(
    ("shape", "message"),
    [
        ((2, 1, 4, 5), r"expected \(2, 1, 4, 4\), got \(2, 1, 4, 5\)"),
        ((3, 1, 4, 4), r"expected \(2, 1, 4, 4\), got \(3, 1, 4, 4\)"),
        ((2, 2, 4, 4), "Merge the tumour labels into one channel"),
        ((2, 4, 4), "A 1-D mask met 2-D relevance"),
    ],
)
def test_masks_that_do_not_fit(name, shape, message):
    with pytest.raises(ShapeError, match=message):
        LOSSES[name][0](torch.ones(2, 3, 4, 4), torch.ones(shape))


@pytest.mark.parametrize(
    ("loss", "options", "message"),
    [
        (energy, {"sign": "both"}, "must be 'absolute' or 'positive', got 'both'"),
        (ppce, {"floor": 0.0}, "floor > 0, got 0.0"),
        (isnet, {"decay": 1.5}, r"decay in \[0, 1\], got 1.5"),
        (isnet, {"relevance_range": (3.0, 3.0)}, "0 < C1 < C2"),
        (isnet, {"background_scale": 0.0}, "background_scale > 0"),
        (isnet, {"foreground_weight": -1.0}, "foreground_weight >= 0"),
    ],
)
def test_options_out_of_range(loss, options, message):
    with pytest.raises(ConfigError, match=message):
        loss(torch.ones(1, 1, 4, 4), torch.ones(1, 1, 4, 4), **options)
