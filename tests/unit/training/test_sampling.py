"""Samples drawn from those with masks: who is drawn, what is kept, and that it can be repeated."""

from collections.abc import Sequence
from functools import partial

import pytest
import torch
from torch import Tensor

from glioma_xai import losses
from glioma_xai.data.loading import SampleBatch, SampleKey
from glioma_xai.errors import ConfigError
from glioma_xai.losses.objective import Objective
from glioma_xai.models.networks import SmallCNN
from glioma_xai.records import Batch
from glioma_xai.training.guidance import Attribution, Guidance
from glioma_xai.training.module import GuidedClassifier
from glioma_xai.training.sampling import MaskedSamples, Supply, exchanged, tumour_alone
from tests.unit.training.test_module import SHAPE, make_batch

POSITIONS = [1, 4, 5, 7]
PATIENTS = ["a", "b", "b", "c"]


class Numbered:
    """A training split whose images hold their position; the hundredth part tells changes apart."""

    def __getitems__(self, keys: Sequence[SampleKey]) -> SampleBatch:
        numbers = torch.tensor([key.index + (key.epoch % 97) / 1000 for key in keys])
        mask = torch.zeros(len(keys), 1, *SHAPE[1:])
        mask[..., 8:14, 9:17] = 1
        return {
            "image": numbers.view(-1, 1, 1, 1).repeat(1, *SHAPE),
            "lesion_mask": mask,
            "brain_mask": torch.ones_like(mask),
            "label": torch.tensor([key.index % 2 for key in keys]),
            "index": torch.tensor([key.index for key in keys]),
            "slice_index": torch.zeros(len(keys), dtype=torch.int64),
            "patient_id": [PATIENTS[POSITIONS.index(key.index)] for key in keys],
            "subject_id": ["s"] * len(keys),
            "site": [""] * len(keys),
        }


def bank() -> MaskedSamples:
    return MaskedSamples(Numbered(), POSITIONS, PATIENTS)


def positions_of(images: Tensor) -> list[int]:
    return [int(value) for value in images[:, 0, 0, 0]]


def make_module(**guidance: object) -> GuidedClassifier:
    torch.manual_seed(0)
    return GuidedClassifier(
        SmallCNN(input_shape=SHAPE, classes=2, channels=(4, 4, 4, 4), hidden=8),
        attribution=Attribution("epsilon_plus", "contrastive", options={"epsilon": 0.01}),
        guidance=Guidance(loss=partial(losses.energy), **guidance),  # type: ignore[arg-type]
        objective=Objective(guidance_weight=1.0),
        optimizer=partial(torch.optim.Adam, lr=1e-3),
        bank=bank(),
    ).eval()


def test_a_draw_is_a_function_of_its_key_and_repeats_nobody_while_there_are_enough() -> None:
    drawn = bank().draw(4, key=(0, 1, 2))
    assert sorted(positions_of(drawn["image"])) == POSITIONS
    again = bank().draw(4, key=(0, 1, 2))
    assert torch.equal(drawn["image"], again["image"])
    others = [positions_of(bank().draw(4, key=(0, 1, k))["image"]) for k in range(8)]
    assert len({tuple(order) for order in others}) > 1


def test_a_sample_drawn_twice_is_changed_and_probed_in_two_ways() -> None:
    drawn = bank().draw(8, key=(0, 1))
    assert sorted(positions_of(drawn["image"])) == sorted(POSITIONS * 2)
    assert drawn["index"].tolist() == list(range(8))
    assert len(drawn["image"][:, 0, 0, 0].unique()) == 8


def test_donors_are_of_other_patients() -> None:
    for key in range(20):
        given = bank().donors(["a", "b", "x"], key=(0, key))
        assert given is not None
        assert given["patient_id"][0] != "a"
        assert given["patient_id"][1] != "b"
    alone = MaskedSamples(Numbered(), [1], ["a"])
    assert alone.donors(["a"], key=(0,)) is None


def test_exchange_with_few_masks_takes_backgrounds_of_the_bank_and_leaves_the_others() -> None:
    batch = make_batch(6, masked=1)
    inside = batch["lesion_mask"][:1] == 1
    changed = exchanged(batch, key=(0, 0), bank=bank())
    assert torch.equal(changed[1:], batch["image"][1:])
    kept = inside.expand_as(changed[:1])
    assert torch.equal(changed[:1][kept], batch["image"][:1][kept])
    assert int(changed[0, 0, 0, 0]) in POSITIONS  # the batch itself has nobody who could give
    assert torch.equal(exchanged(batch, key=(0, 0)), batch["image"])
    nobody = make_batch(6, masked=0)
    assert torch.equal(exchanged(nobody, key=(0, 0), bank=bank()), nobody["image"])


def test_masked_input_keeps_the_tumour_and_what_has_no_mask() -> None:
    batch = make_batch(6, masked=4)
    images, mask = tumour_alone(batch), batch["lesion_mask"]
    assert torch.equal(images[:4], batch["image"][:4] * mask[:4])
    assert torch.equal(images[4:], batch["image"][4:])


def test_the_warm_start_on_guided_samples_sees_nobody_else() -> None:
    batch = make_batch(6, masked=0)
    settings = Guidance(warm_start_epochs=2, warm_start_on="guided", guided_batch=4)
    supply = Supply(settings, bank(), seed=0)
    seen = supply.seen(batch, epoch=1, batch_idx=0, warm=True)
    assert len(seen["label"]) == 6
    assert set(seen["patient_id"]) <= {"a", "b", "c"}
    middle = seen["image"][:, 0, 10, 12].int()
    assert all(int(place) in POSITIONS for place in middle)
    assert (seen["image"][:, 0, 0, 0].int() != middle).any()  # backgrounds of others
    assert supply.seen(batch, epoch=2, batch_idx=0, warm=False) is batch


def test_guidance_with_few_masks_is_that_of_drawn_samples_and_labels_those_of_the_batch() -> None:
    module = make_module(guided_batch=4)
    batch = make_batch(6, masked=0)
    parts = module.losses(batch, step=1, total_steps=2)
    drawn, _ = module.supply.guided(batch["index"], epoch=0)
    _, relevance = module.attribution.relevance(module.model, drawn["image"], labels=drawn["label"])
    expected = losses.energy(relevance, drawn["lesion_mask"]).mean()
    assert parts.guidance.item() == pytest.approx(expected.item(), rel=1e-5)
    plain = torch.nn.functional.cross_entropy(module.model(batch["image"]), batch["label"])
    assert parts.classification.item() == pytest.approx(plain.item(), rel=1e-6)


def test_what_is_drawn_depends_on_epoch_and_batch_only() -> None:
    def drawn(batch: Batch, epoch: int) -> list[int]:
        supply = Supply(Guidance(guided_batch=3), bank(), seed=5)
        return positions_of(supply.guided(batch["index"], epoch=epoch)[0]["image"])

    first, other = make_batch(6), {**make_batch(6), "index": torch.arange(6, 12)}
    assert drawn(first, 0) == drawn(first, 0)
    assert len({tuple(drawn(first, e)) for e in range(6)}) > 1
    assert len({tuple(drawn(b, 0)) for b in (first, other)}) == 2  # type: ignore[arg-type]


def test_equal_logits_of_a_drawn_batch_are_asked_of_other_samples_at_every_step(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    module = make_module(
        guided_batch=3, warm_start_epochs=1, warm_start_on="guided", warm_start="exchange"
    )
    module.objective = Objective(consistency_weight=1.0)
    compared = []

    def seen(model: object, batch: Batch, **_: object) -> None:
        compared.append(tuple(positions_of(batch["image"])))

    monkeypatch.setattr("glioma_xai.training.module.consistency_term", seen)
    for step in range(6):
        batch = {**make_batch(6, masked=0), "index": torch.arange(6) + 6 * step}
        drawn = module.supply.seen(batch, epoch=0, batch_idx=step, warm=True)  # type: ignore[arg-type]
        assert drawn["index"].tolist() == list(range(6))
        module.losses(drawn, step=1, total_steps=2, guide=False, loaded=batch["index"])
    assert len(set(compared)) > 1


def test_nobody_to_draw_from_is_an_error_with_a_remedy() -> None:
    supply = Supply(Guidance(guided_batch=3), MaskedSamples(Numbered(), [], []), seed=0)
    with pytest.raises(ConfigError, match=r"found none\. Raise data\.mask_share"):
        supply.guided(make_batch()["index"], epoch=0)
