"""One training step: which losses it has, what it moves, and what it leaves alone."""

import math
from collections.abc import Mapping
from functools import partial

import pytest
import torch
from pytorch_lightning import Trainer
from torch import Tensor, nn

from glioma_xai import losses
from glioma_xai.attribution.guards import statistics_at_rest
from glioma_xai.errors import ConfigError, NumericsError
from glioma_xai.losses.objective import Objective
from glioma_xai.models.networks import SmallCNN
from glioma_xai.records import Batch
from glioma_xai.training.guidance import Attribution, Guidance
from glioma_xai.training.module import GuidedClassifier
from glioma_xai.training.sampling import exchanged
from glioma_xai.training.validation import LOGGED, OF_EXCHANGE

SHAPE = (3, 24, 28)


def make_batch(size: int = 6, *, masked: int | None = None) -> Batch:
    generator = torch.Generator().manual_seed(1)
    mask = torch.zeros(size, 1, *SHAPE[1:])
    mask[:, :, 8:14, 9:17] = 1
    if masked is not None:
        mask[masked:] = torch.nan
    return {
        "image": torch.randn(size, *SHAPE, generator=generator),
        "lesion_mask": mask,
        "brain_mask": torch.ones_like(mask),
        "label": torch.arange(size) % 2,
        "index": torch.arange(size),
        "slice_index": torch.zeros(size, dtype=torch.int64),
        "patient_id": [f"p{i}" for i in range(size)],
        "subject_id": [f"p{i}" for i in range(size)],
        "site": [""] * size,
    }


def make_module(
    *, weight: float = 1.0, composite: str = "epsilon_plus", **guidance: object
) -> GuidedClassifier:
    torch.manual_seed(0)
    return GuidedClassifier(
        SmallCNN(input_shape=SHAPE, classes=2, channels=(4, 4, 4, 4), hidden=8),
        attribution=Attribution(composite, "contrastive", options={"epsilon": 0.01}),
        guidance=Guidance(**{"loss": partial(losses.energy), **guidance}),  # type: ignore[arg-type]
        objective=Objective(guidance_weight=weight),
        optimizer=partial(torch.optim.Adam, lr=1e-3),
    )


def step(module: GuidedClassifier, batch: Batch, **options: object) -> Tensor:
    torch.manual_seed(3)  # dropout
    return module.losses(batch, step=1, total_steps=2, **options).total  # type: ignore[arg-type]


@pytest.mark.parametrize("probe", ["image", "scaled", "mixed", "noise"])
def test_every_parameter_moves(probe: str) -> None:
    module = make_module(probe=probe).train()
    optimizer = module.build_optimizer(module.model.parameters())
    for _ in range(2):  # the second step catches an optimizer that holds stale parameters
        before = [p.detach().clone() for p in module.model.parameters()]
        optimizer.zero_grad()
        step(module, make_batch()).backward()
        optimizer.step()
        moved = [
            not torch.equal(a, b) for a, b in zip(before, module.model.parameters(), strict=True)
        ]
        assert all(moved)


@pytest.mark.parametrize("probe", ["image", "mixed"])
def test_running_statistics_advance_as_in_a_plain_forward_pass(probe: str) -> None:
    guided, plain = make_module(probe=probe).train(), make_module().train()
    batch = make_batch()
    step(guided, batch).backward()
    torch.manual_seed(3)
    plain.model(batch["image"])
    for name, buffer in plain.model.named_buffers():
        assert torch.equal(buffer, dict(guided.model.named_buffers())[name]), name


def test_guidance_with_probe_image_costs_one_forward_pass() -> None:
    module = make_module().train()
    calls = []
    module.model[0].register_forward_hook(lambda *_: calls.append(1))  # type: ignore[index,operator]
    module.attribution.composite_for(module.model, SHAPE)  # built once, before the first step
    calls.clear()
    step(module, make_batch()).backward()
    assert len(calls) == 1


def test_logits_of_the_guided_pass_are_those_of_the_network() -> None:
    module = make_module().eval()
    batch = make_batch()
    guided = module.losses(batch, step=1, total_steps=2)
    plain = module.losses(batch, step=1, total_steps=2, guide=False)
    assert torch.allclose(guided.classification, plain.classification, rtol=1e-6)
    assert guided.guidance > 0
    assert torch.allclose(guided.total, guided.classification + guided.guidance)


def test_samples_without_a_mask_count_only_for_classification() -> None:
    module = make_module().eval()
    batch = make_batch(6, masked=2)
    parts = module.losses(batch, step=1, total_steps=2)
    _, relevance = module.attribution.relevance(module.model, batch["image"], labels=batch["label"])
    expected = losses.energy(relevance[:2], batch["lesion_mask"][:2]).mean()
    assert torch.allclose(parts.guidance, expected, rtol=1e-5)


def test_a_batch_without_any_mask_is_trained_by_labels() -> None:
    module = make_module().train()
    parts = module.losses(make_batch(6, masked=0), step=1, total_steps=2)
    assert torch.equal(parts.total, parts.classification)
    assert parts.guidance == 0


def test_guidance_on_a_share_of_the_batch() -> None:
    module = make_module(guided_share=0.5).eval()
    batch = make_batch(6)
    parts = module.losses(batch, step=1, total_steps=2)
    _, relevance = module.attribution.relevance(module.model, batch["image"], labels=batch["label"])
    expected = losses.energy(relevance[:3], batch["lesion_mask"][:3]).mean()
    assert torch.allclose(parts.guidance, expected, rtol=1e-5)


def test_bf16_keeps_relevance_in_float32() -> None:
    module = make_module().train()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        parts = module.losses(make_batch(), step=1, total_steps=2)
    assert parts.guidance.dtype == torch.float32
    parts.total.backward()
    assert all(
        torch.isfinite(p.grad).all() for p in module.model.parameters() if p.grad is not None
    )


def test_exchanged_backgrounds_keep_the_tumour_and_change_the_rest() -> None:
    batch = make_batch()
    changed = exchanged(batch, key=(0, 1))
    inside = (batch["lesion_mask"] == 1).expand_as(changed)
    assert torch.equal(changed[inside], batch["image"][inside])
    assert not torch.equal(changed[~inside], batch["image"][~inside])
    assert torch.equal(changed, exchanged(batch, key=(0, 1)))  # a function of seed, epoch, sample
    assert not torch.equal(changed, exchanged(batch, key=(0, 2)))


def test_statistics_move_again_after_an_error() -> None:
    norm = nn.BatchNorm2d(3)
    original = norm.running_mean

    def fail() -> None:
        with statistics_at_rest(norm):
            norm(torch.randn(4, 3, 2, 2))
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        fail()
    assert norm.running_mean is original
    assert norm.running_mean is not None
    assert torch.equal(norm.running_mean, torch.zeros(3))
    norm(torch.randn(4, 3, 2, 2) + 1)
    assert norm.running_mean.abs().min() > 0


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"guided_share": 0.0}, r"loss\.guided_share: expected a share in \(0, 1\], found 0\.0"),
        ({"every_n_steps": 0}, r"loss\.every_n_steps: expected 1 or more, found 0"),
        ({"perturbation": "best"}, r"loss\.perturbation: expected none, random or worst"),
        ({"perturbation_radius": math.nan}, r"loss\.perturbation_radius: expected a finite number"),
        ({"warm_start_epochs": -1}, r"loss\.warm_start_epochs: expected a number of epochs"),
        (
            {"exchange_share": 1.5},
            r"loss\.exchange_share: expected a share in \[0, 1\], found 1\.5",
        ),
        (
            {"probe": "blur"},
            r"loss\.probe: expected one of image, scaled, mixed, noise, found blur",
        ),
    ],
)
def test_guidance_refuses_what_makes_no_sense(options: dict[str, object], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        Guidance(**options)  # type: ignore[arg-type]


def test_the_warm_start_ends_when_the_classes_are_learnt_or_at_its_limit() -> None:
    guidance = Guidance(warm_start_epochs=2, warm_start_limit=4)
    assert [guidance.warm(epoch, learnt=False) for epoch in range(6)] == [True] * 4 + [False] * 2
    assert [guidance.warm(epoch, learnt=True) for epoch in range(6)] == [True] * 2 + [False] * 4
    assert not Guidance().warm(0, learnt=False)
    from_scratch = Guidance(warm_start_epochs=0, warm_start_limit=10)
    assert not from_scratch.warm(0, learnt=False)
    assert not from_scratch.exchanges


def test_a_network_has_learnt_when_its_loss_is_below_that_of_guessing() -> None:
    module = make_module()
    saved: dict[str, object] = {}
    for loss, learnt in ((0.69, False), (0.6, True), (0.69, True)):  # .9 x ln 2 is .624
        trainer = Trainer(logger=False, enable_checkpointing=False, accelerator="cpu")
        trainer.callback_metrics["train/loss_classification"] = torch.tensor(loss)
        module.trainer = trainer
        module.label_counts = torch.tensor([10, 10])
        module.on_train_epoch_end()
        assert module.learnt is learnt
    module.on_save_checkpoint(saved)
    resumed = make_module()
    resumed.on_load_checkpoint(saved)
    assert resumed.learnt


@pytest.mark.parametrize(("loss", "learnt"), [(0.5, False), (0.45, True)])
def test_guessing_the_larger_class_is_not_learning(loss: float, learnt: bool) -> None:
    module = make_module()
    module.trainer = Trainer(logger=False, enable_checkpointing=False, accelerator="cpu")
    module.trainer.callback_metrics["train/loss_classification"] = torch.tensor(loss)
    module.label_counts = torch.tensor([2, 8])  # guessing has a loss of .500
    module.on_train_epoch_end()
    assert module.learnt is learnt


@pytest.mark.parametrize("probe", ["image", "mixed"])
def test_shuffled_masks_are_those_of_others_in_the_loss_alone(probe: str) -> None:
    seen: list[Tensor] = []

    def loss(relevance: Tensor, mask: Tensor) -> Tensor:
        seen.append(mask)
        return losses.energy(relevance, mask)

    batch = make_batch()
    batch["lesion_mask"] = torch.zeros_like(batch["lesion_mask"])
    for place in range(6):
        batch["lesion_mask"][place, :, place] = 1
    module = make_module(loss=loss, probe=probe)
    right = module.losses(batch, step=1, total_steps=2)
    module = make_module(loss=loss, probe=probe, shuffled_masks=True)
    wrong = module.losses(batch, step=1, total_steps=2)
    own, others = (mask.argmax(dim=2)[:, 0, 0].tolist() for mask in seen)
    assert own == list(range(6))
    assert all(a != b for a, b in zip(own, others, strict=True))
    assert right.guidance != wrong.guidance
    assert right.classification == wrong.classification


def test_equal_logits_are_not_asked_of_what_dropout_changes() -> None:
    module = make_module(weight=0.0).train()
    module.objective = Objective(guidance_weight=0.0, consistency_weight=1.0)
    with torch.no_grad():
        for parameter in module.model.parameters():
            parameter.mul_(3)
    assert any(isinstance(layer, nn.Dropout) for layer in module.model.modules())
    batch = make_batch()
    batch["lesion_mask"][:, :, 1:] = 1  # next to nothing that could be exchanged
    batch["image"][:, :, 0] = 0
    parts = module.losses(batch, step=0, total_steps=2)
    assert parts.consistency.item() == pytest.approx(0, abs=1e-10)
    torch.manual_seed(0)
    module.losses(batch, step=0, total_steps=2)
    module.objective = Objective(guidance_weight=0.0)
    after = torch.rand(1)
    torch.manual_seed(0)
    module.losses(batch, step=0, total_steps=2)
    assert torch.equal(torch.rand(1), after)  # the second pass takes no random numbers


def test_an_epoch_that_ends_between_two_guided_steps_has_its_guidance_weight() -> None:
    module = make_module(weight=0.5, every_n_steps=2)
    trainer = Trainer(
        max_epochs=1,
        limit_train_batches=2,  # guided, not guided
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        accelerator="cpu",
    )
    trainer.fit(module, torch.utils.data.DataLoader([make_batch()] * 2, batch_size=None))
    assert trainer.callback_metrics["train/guidance_weight"] == 0.5
    assert 0 < trainer.callback_metrics["train/loss_guidance"] < 1


def trained(module: GuidedClassifier, batches: list[Batch]) -> Trainer:
    """One epoch."""
    trainer = Trainer(
        max_epochs=1,
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        accelerator="cpu",
    )
    trainer.fit(module, torch.utils.data.DataLoader(batches, batch_size=None))  # type: ignore[arg-type]
    return trainer


def logged(batches: list[Batch]) -> dict[str, float]:
    module = make_module(weight=0.5)
    module.build_optimizer = partial(torch.optim.SGD, lr=0.0)
    module.model.eval()
    scores = trained(module, batches).callback_metrics
    return {name: float(value) for name, value in scores.items()}


def test_the_guidance_loss_of_an_epoch_is_the_mean_over_its_guided_samples() -> None:
    full, half, none = make_batch(), make_batch(masked=3), make_batch(masked=0)
    half["image"] = half["image"].flip(0)
    first, second = (logged([batch])["train/loss_guidance"] for batch in (full, half))
    assert first != pytest.approx(second, rel=1e-3)
    found = logged([full, half, none])
    assert found["train/loss_guidance"] == pytest.approx((6 * first + 3 * second) / 9, rel=1e-5)
    assert found["train/guidance_weight"] == 0.5  # not the 0 of the last batch, which has no mask
    assert "train/loss_guidance" not in logged([none])


def test_the_labels_of_an_epoch_are_counted_for_any_number_of_classes() -> None:
    module = make_module(weight=0.0)
    module.model = SmallCNN(input_shape=SHAPE, classes=4, channels=(4, 4, 4, 4), hidden=8)
    batches = [make_batch(), {**make_batch(), "label": torch.tensor([2, 2, 2, 1, 0, 0])}]
    trained(module, batches)
    assert module.label_counts.tolist() == [5, 4, 3, 0]
    assert not module.learnt


def test_a_loss_that_is_not_finite_is_named() -> None:
    module = make_module().train()
    with torch.no_grad():
        next(module.model.parameters()).fill_(torch.nan)
    with pytest.raises(NumericsError, match="finite"):
        step(module, make_batch())


def validated(batch: Batch) -> Mapping[str, float]:
    module = make_module().eval()
    module.validation_step(batch, 0)
    return module.validation_scores.compute()


def test_only_images_that_were_exchanged_have_scores_of_exchange() -> None:
    whole, part = validated(make_batch(6)), validated(make_batch(6, masked=3))
    assert OF_EXCHANGE & LOGGED & whole.keys() >= {"exchanged_auc", "guided_score", "fairwashing"}
    module = make_module().eval()
    batch = make_batch(6, masked=3)
    module.validation_step(batch, 0)
    assert sum(map(len, module.validation_scores.exchanged.labels)) == 3
    assert part["loss"] == pytest.approx(whole["loss"])


class ByCorner(nn.Module):
    """Sees one pixel in a corner: above 0 is class 1."""

    def forward(self, images: Tensor) -> Tensor:
        corner = images[:, 0, 0, 0]
        return torch.stack([-corner, corner], dim=1)


@pytest.mark.parametrize(("inside", "flag"), [(0.97, 1.0), (0.3, 0.0)])
def test_the_flag_goes_by_backgrounds_of_the_other_class(
    monkeypatch: pytest.MonkeyPatch, inside: float, flag: float
) -> None:
    batch = make_batch(6)
    batch["image"][:, 0, 0, 0] = batch["label"] * 2.0 - 1
    module = make_module().eval()
    module.model = ByCorner()
    relevance = torch.where(batch["lesion_mask"] > 0.5, inside / 48, (1 - inside) / (672 - 48))
    measure = lambda self, model, images, labels: (model(images), relevance)  # noqa: E731
    monkeypatch.setattr(Attribution, "measure", measure)
    module.validation_step(batch, 0)
    scores = module.validation_scores.compute()
    assert scores["accuracy"] == 1
    assert scores["exchanged_other_class_accuracy"] == 0  # each has the other class's corner
    assert 0 < scores["exchanged_accuracy"] < 1
    assert scores["absolute_relevance_mass"] == pytest.approx(inside, abs=0.02)
    assert scores["fairwashing"] == flag


def test_without_donors_of_another_class_there_is_no_flag() -> None:
    batch = make_batch(6)
    batch["label"] = torch.zeros_like(batch["label"])
    scores = validated(batch)
    assert "exchanged_accuracy" in scores
    assert not {"fairwashing", "exchanged_other_class_accuracy"} & scores.keys()


@pytest.mark.parametrize(("size", "masked"), [(1, None), (6, 0), (6, 1)])
def test_where_nothing_can_be_exchanged_no_score_says_so(size: int, masked: int | None) -> None:
    scores = validated(make_batch(size, masked=masked))
    assert not OF_EXCHANGE & scores.keys()
    assert "accuracy" in scores
