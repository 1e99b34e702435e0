"""Weights that are found in training: what is balanced, what is learnt, and that both are saved."""

from functools import partial
from pathlib import Path

import pytest
import torch

from glioma_xai import losses
from glioma_xai.losses.objective import Objective
from glioma_xai.losses.weighting import gradient_norm
from glioma_xai.models.networks import SmallCNN
from glioma_xai.training.guidance import Attribution, Guidance
from glioma_xai.training.module import GuidedClassifier
from tests.unit.training.test_module import SHAPE, make_batch


def make_module(weighting: str) -> GuidedClassifier:
    torch.manual_seed(0)
    return GuidedClassifier(
        SmallCNN(input_shape=SHAPE, classes=2, channels=(4, 4, 4, 4), hidden=8, dropout=0.0),
        attribution=Attribution("epsilon", "contrastive", options={"epsilon": 0.01}),
        guidance=Guidance(loss=partial(losses.energy), probe="mixed"),
        objective=Objective(guidance_weight=0.5, weighting=weighting),  # type: ignore[arg-type]
        optimizer=partial(torch.optim.SGD, lr=1e-2),
    ).eval()


def test_balanced_guidance_has_a_set_share_of_the_gradient() -> None:
    module = make_module("balanced")
    parts = module.losses(make_batch(), step=0, total_steps=2)
    norms = [
        gradient_norm(loss, module.model.parameters())
        for loss in (parts.classification, parts.guidance)
    ]
    assert parts.guidance_weight * norms[1] / norms[0] == pytest.approx(0.5, rel=1e-4)
    parts.total.backward()


def test_norms_are_measured_in_single_precision_under_autocast() -> None:
    """The backward pass of relevance convolves, and would do it in bfloat16."""
    module = make_module("balanced")
    model, batch = module.model, make_batch()
    _, relevance = module.attribution.relevance(
        model, batch["image"], labels=batch["label"], create_graph=True
    )
    guidance = losses.energy(relevance, batch["lesion_mask"]).mean()
    expected = gradient_norm(guidance, model.parameters())
    with torch.autocast("cpu", dtype=torch.bfloat16):
        found = gradient_norm(guidance, model.parameters())
    assert torch.equal(found, expected)


def test_learnt_weights_learn_and_come_back_from_a_checkpoint(tmp_path: Path) -> None:
    module = make_module("uncertainty")
    optimizer = module.configure_optimizers()
    assert isinstance(optimizer, torch.optim.Optimizer)
    module.losses(make_batch(), step=0, total_steps=2).total.backward()
    optimizer.step()
    learnt = module.objective.log_variances.detach()
    assert (learnt != 0).all()  # both began at 0
    torch.save({"state_dict": module.state_dict()}, tmp_path / "last.ckpt")
    fresh = make_module("uncertainty")
    fresh.load_state_dict(torch.load(tmp_path / "last.ckpt", weights_only=True)["state_dict"])
    assert torch.equal(fresh.objective.log_variances, learnt)


def test_the_measured_balance_comes_back_too() -> None:
    module, fresh = make_module("balanced"), make_module("balanced")
    module.losses(make_batch(), step=0, total_steps=2)
    fresh.load_state_dict(module.state_dict())
    assert float(fresh.objective.balance) == float(module.objective.balance) > 0
    assert int(fresh.objective.calls) == 1
