"""Every guidance loss in a step: with every target, at layers, and with masks that say little."""

import math
from collections.abc import Callable
from functools import partial

import pytest
import torch

from glioma_xai import losses
from glioma_xai.errors import ConfigError, ShapeError
from glioma_xai.losses.objective import Objective
from glioma_xai.models.networks import SmallCNN
from glioma_xai.training.guidance import Attribution, Guidance
from glioma_xai.training.module import GuidedClassifier
from glioma_xai.training.sampling import MaskedSamples
from glioma_xai.training.terms import guidance_values, relevance_totals
from tests.unit.training.test_module import SHAPE, make_batch
from tests.unit.training.test_sampling import Numbered, bank

LOSSES = {
    "energy": partial(losses.energy),
    "focus": partial(losses.focus),
    "rrr": partial(losses.rrr),
    "isnet": losses.ISNet(relevance_range=[1.0, 25.0]),
    "l1": partial(losses.l1),
    "ppce": partial(losses.ppce),
    "sum": partial(
        losses.weighted_sum,
        losses=[partial(losses.energy), partial(losses.isnet, relevance_range=None)],
        weights=[1.0, 0.5],
    ),
}
TARGETS = (
    "label",
    "contrastive",
    "predicted",
    "random",
    "random_sign",
    "all",
    "log_probability",
    "sum_log_probability",
)


def make_module(
    loss: Callable[..., torch.Tensor],
    *,
    target: str = "contrastive",
    layer: object = None,
    samples: MaskedSamples | None = None,
    **guidance: object,
) -> GuidedClassifier:
    torch.manual_seed(0)
    return GuidedClassifier(
        SmallCNN(input_shape=SHAPE, classes=2, channels=(4, 4, 4, 4), hidden=8, dropout=0.0),
        attribution=Attribution("epsilon", target, layer, options={"epsilon": 0.01}),  # type: ignore[arg-type]
        guidance=Guidance(loss=loss, **guidance),  # type: ignore[arg-type]
        objective=Objective(guidance_weight=1.0),
        optimizer=partial(torch.optim.SGD, lr=1e-2),
        bank=samples,
    ).eval()


@pytest.mark.parametrize("name", LOSSES)
def test_every_loss_reaches_the_weights_with_every_target(name: str) -> None:
    for target in TARGETS:
        module = make_module(LOSSES[name], target=target, probe="mixed")
        parts = module.losses(make_batch(4), step=0, total_steps=1)
        assert parts.guidance > 0, target
        parts.guidance.backward()
        first = module.model[0].weight.grad  # type: ignore[index]
        assert torch.isfinite(first).all(), target
        assert first.abs().sum() > 0, target


def test_guidance_at_several_layers_is_the_mean_of_each() -> None:
    batch = make_batch(4)
    names = ["input", "pool1", "pool2"]
    values = [
        make_module(LOSSES["energy"], layer=None if name == "input" else name)
        .losses(batch, step=0, total_steps=1)
        .guidance.item()
        for name in names
    ]
    both = make_module(LOSSES["energy"], layer=names).losses(batch, step=0, total_steps=1)
    assert both.guidance.item() == pytest.approx(sum(values) / 3, rel=1e-5)
    assert len({round(value, 4) for value in values}) == 3
    both.total.backward()


def test_a_mask_on_a_coarser_grid_by_hand() -> None:
    mask = torch.tensor(
        [[1, 1, 0, 0], [1, 0, 0, 0], [math.nan, math.nan, 1, math.nan], [math.nan, math.nan, 0, 1]]
    )[None, None]
    coarse = losses.mask_on_grid(mask, (2, 2))[0, 0]
    assert coarse[0].tolist() == [0.75, 0.0]
    assert math.isnan(coarse[1, 0])
    assert coarse[1, 1].item() == pytest.approx(2 / 3)
    assert losses.mask_on_grid(mask, (4, 4)) is mask
    volume = torch.ones(1, 1, 4, 4, 4)
    assert torch.equal(losses.mask_on_grid(volume, (2, 1, 4)), torch.ones(1, 1, 2, 1, 4))


def test_a_layer_without_space_is_refused() -> None:
    module = make_module(LOSSES["energy"], layer="relu_hidden")
    with pytest.raises(ShapeError, match=r"2 spatial axes, got 0\. Choose a layer before"):
        guidance_values(module.guidance, torch.ones(2, 8), make_batch(2)["lesion_mask"])


@pytest.mark.parametrize("name", ["energy", "focus", "rrr"])
@pytest.mark.parametrize("probe", ["image", "mixed"])
def test_masks_that_cover_everything_ask_for_nothing(name: str, probe: str) -> None:
    batch = make_batch(4)
    batch["lesion_mask"] = torch.ones_like(batch["lesion_mask"])
    parts = make_module(LOSSES[name], probe=probe).losses(batch, step=0, total_steps=1)
    assert parts.guidance == 0
    parts.total.backward()


@pytest.mark.parametrize("probe", ["image", "mixed"])
def test_empty_masks_are_not_guided(probe: str) -> None:
    batch = make_batch(4)
    batch["lesion_mask"] = torch.zeros_like(batch["lesion_mask"])
    parts = make_module(LOSSES["energy"], probe=probe).losses(batch, step=0, total_steps=1)
    assert torch.equal(parts.total, parts.classification)


def test_a_batch_of_one_patient_is_guided_on_its_own_image() -> None:
    batch = make_batch(3)
    batch["patient_id"] = ["p"] * 3
    alone = make_module(LOSSES["energy"], probe="mixed").losses(batch, step=0, total_steps=1)
    image = make_module(LOSSES["energy"], probe="image").losses(batch, step=0, total_steps=1)
    assert alone.guidance.item() == pytest.approx(image.guidance.item(), rel=1e-5)


@pytest.mark.parametrize("probe", ["image", "mixed"])
def test_a_network_with_too_few_outputs_is_named(probe: str) -> None:
    batch = make_batch(4)
    batch["label"] = torch.tensor([0, 1, 2, 0])
    with pytest.raises(ShapeError, match=r"labels must lie in 0\.\.1.*got 0\.\.2.*as many outputs"):
        make_module(LOSSES["energy"], probe=probe).losses(batch, step=0, total_steps=1)


@pytest.mark.parametrize(
    "settings", [{"exchange_share": 0.5}, {"warm_start_epochs": 1}, {"warm_start": "masked"}]
)
def test_a_run_that_needs_masks_and_has_none_does_not_start(settings: dict[str, object]) -> None:
    module = make_module(LOSSES["energy"], samples=MaskedSamples(Numbered(), [], []), **settings)
    with pytest.raises(ConfigError, match=r"expected samples with lesion masks.*found none"):
        module.on_fit_start()
    make_module(LOSSES["energy"], samples=bank(), **settings).on_fit_start()


def test_isnet_measures_its_range_once_and_keeps_it() -> None:
    module = make_module(losses.ISNet(), samples=bank(), warm_start="plain")
    batch = make_batch(4)
    with pytest.raises(ConfigError, match="isnet: expected a measured range, found none"):
        module.losses(batch, step=0, total_steps=1)
    module.on_train_epoch_start()
    low, high = module.ranged.measured_range.tolist()  # type: ignore[union-attr]
    assert 0 < low < high
    parts = [
        module.supply.take(32, key=(0, 2**31 - 4, part), device=module.device) for part in range(8)
    ]
    totals = [relevance_totals(module.model, module.attribution, p, key=(0,)) for p in parts]
    assert losses.natural_range(torch.cat(totals)) == pytest.approx((low, high), rel=1e-5)
    fresh = make_module(losses.ISNet(), samples=bank(), warm_start="plain")
    fresh.load_state_dict(module.state_dict())
    fresh.on_train_epoch_start()  # a resumed run does not measure again
    assert fresh.ranged.measured_range.tolist() == [low, high]  # type: ignore[union-attr]
    value = fresh.losses(batch, step=0, total_steps=1).guidance
    _, relevance = fresh.attribution.relevance(fresh.model, batch["image"], labels=batch["label"])
    expected = losses.isnet(relevance, batch["lesion_mask"], relevance_range=(low, high)).mean()
    assert value.item() == pytest.approx(expected.item(), rel=1e-5)


def test_isnet_refuses_a_range_of_one_number() -> None:
    with pytest.raises(ConfigError, match=r"expected auto, null or two numbers, found \[1\.0\]"):
        losses.ISNet(relevance_range=[1.0])
