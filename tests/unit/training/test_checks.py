"""What would fail, or do nothing, only after the warm start is refused before it."""

from dataclasses import replace
from functools import partial
from typing import Any

import pandas as pd
import pytest
import torch
from torch import Tensor

from glioma_xai import losses
from glioma_xai.errors import ConfigError
from glioma_xai.losses.objective import Objective
from glioma_xai.losses.schedules import warm_up
from glioma_xai.training.checks import check_monitors, check_trainer, check_training
from glioma_xai.training.module import GuidedClassifier
from glioma_xai.training.sampling import MaskedSamples
from tests.unit.training.test_module import SHAPE, make_module
from tests.unit.training.test_sampling import Numbered, bank

check = partial(check_training, batch_size=8, input_shape=SHAPE)


def with_loss(loss: object) -> GuidedClassifier:
    module = make_module()
    module.guidance = replace(module.guidance, loss=loss)
    return module


def test_all_is_well_with_the_recipes() -> None:
    check(make_module(probe="mixed", warm_start_epochs=3))
    check(with_loss(None), batch_size=1)
    check(with_loss(losses.ISNet()))  # its range is measured later
    check_training(make_module(), batch_size=2, input_shape=(1, 4, 4, 4))


def test_a_frozen_network_is_refused() -> None:
    module = make_module()
    module.model.requires_grad_(requires_grad=False)
    with pytest.raises(ConfigError, match="expected parameters that learn, found all of them froz"):
        check(module)
    next(module.model.parameters()).requires_grad_()
    check(module)


@pytest.mark.parametrize(
    ("guidance", "setting"),
    [
        ({"probe": "mixed"}, "loss.probe=mixed"),
        ({"warm_start_epochs": 1}, "loss.warm_start=exchange"),
        ({"exchange_share": 0.5}, "loss.exchange_share"),
    ],
)
def test_a_batch_of_one_has_nobody_to_lend_a_background(
    guidance: dict[str, object], setting: str
) -> None:
    module = make_module(**guidance)
    with pytest.raises(ConfigError, match=rf"{setting}.*at least 2 samples.*found 1\. Raise data"):
        check(module, batch_size=1)
    module.supply.bank = MaskedSamples(Numbered(), [4, 5], ["b", "b"])
    with pytest.raises(ConfigError, match=rf"{setting}.*at least 2 patients, found those of b\."):
        check(module)
    module.supply.bank = bank()
    check(module)


def test_drawn_samples_lend_to_each_other_whatever_the_batch() -> None:
    check(make_module(probe="mixed", guided_batch=2), batch_size=1)
    with pytest.raises(ConfigError, match=r"found 1\. Raise data.batch_size \(and loss.guided_b"):
        check(make_module(probe="mixed", guided_batch=1))


def test_consistency_needs_a_second_sample_too() -> None:
    module = with_loss(None)
    module.objective = Objective(consistency_weight=1.0)
    with pytest.raises(ConfigError, match=r"loss.consistency_weight: expected at least 2 samples"):
        check(module, batch_size=1)


def mean_over_samples(relevance: Tensor, lesion_mask: Tensor) -> Tensor:
    return losses.energy(relevance, lesion_mask).mean()


@pytest.mark.parametrize(
    ("loss", "message"),
    [
        (mean_over_samples, r"expected one value a sample, \(1,\), found \(\)"),
        (partial(losses.ppce, floor=-1.0), "ppce needs floor > 0, got -1.0"),
        (partial(losses.isnet, decay=2.0), r"decay in \[0, 1\], got 2.0"),
    ],
)
def test_a_loss_that_cannot_work_is_refused(loss: object, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        check(with_loss(loss))


def test_a_schedule_that_cannot_work_is_refused() -> None:
    module = make_module()
    module.objective = Objective(guidance_weight=1.0, schedule=partial(warm_up, share=3.0))
    with pytest.raises(ConfigError, match=r"share must be a share in \[0, 1\], got 3.0"):
        check(module)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"decay": 1.5}, r"decay in \[0, 1\], got 1.5"),
        ({"foreground_weight": -1.0}, "foreground_weight >= 0, got 1.0, 1.0 and -1.0"),
        ({"background_weight": torch.inf}, "got 1.0, inf and 3.0"),
        ({"relevance_range": [25.0, 1.0]}, r"0 < C1 < C2, got relevance_range=\(25.0, 1.0\)"),
    ],
)
def test_isnet_is_refused_when_it_is_built(options: dict[str, object], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        losses.ISNet(**options)  # type: ignore[arg-type]


def samples(*masked: str, without: int = 2) -> pd.DataFrame:
    """A table with these masked validation patients, some without a mask, and one for training."""
    rows = [("validation", name, 9) for name in masked]
    rows += [("validation", f"bare{i}", 0) for i in range(without)] + [("train", "t", 9)]
    return pd.DataFrame(rows, columns=["split", "patient_id", "lesion_area"])


def monitors(score: str, name: str = "best", **more: object) -> dict[str, Any]:
    return {"best": {"monitor": "validation/auc"}, "pareto": None, name: {"monitor": score}, **more}


def test_scores_that_every_epoch_has_may_choose() -> None:
    check_monitors(monitors("validation/loss"), table=samples(), batch_size=1)
    check_monitors(monitors("validation/absolute_relevance_mass"), table=samples("a"), batch_size=1)
    check_monitors(monitors("validation/guided_score"), table=samples("a", "b"), batch_size=2)
    mine = monitors("validation/of_my_own", mine={"_target_": "mine.Callback"})
    check_monitors(mine, table=samples(), batch_size=2)


@pytest.mark.parametrize(
    ("score", "table", "batch_size", "message"),
    [
        ("guided_scor", samples("a", "b"), 8, r"Did you mean validation/guided_score\?"),
        ("focus_score", samples(), 8, "expected validation patients with masks.*found none"),
        ("guided_score", samples("a", "b"), 1, "lend each other their backgrounds, found 1"),
        ("exchanged_auc", samples("a", "a"), 8, "lend each other their backgrounds, found 1"),
    ],
)
@pytest.mark.parametrize("name", ["best", "early_stopping"])
def test_a_score_that_no_epoch_will_have_is_refused(
    score: str, table: pd.DataFrame, batch_size: int, message: str, name: str
) -> None:
    callbacks = monitors(f"validation/{score}", name)
    with pytest.raises(
        ConfigError, match=rf"callbacks\.{name}\.monitor=validation/{score}.*{message}"
    ):
        check_monitors(callbacks, table=table, batch_size=batch_size)


def test_an_optimizer_that_cannot_work_is_refused() -> None:
    module = make_module()
    module.build_optimizer = partial(torch.optim.Adam, lr=-1)
    with pytest.raises(ConfigError, match="optimizer or scheduler: Invalid learning rate: -1"):
        check(module)


@pytest.mark.parametrize(
    ("settings", "composite", "message"),
    [
        ({"precision": "bf16-true"}, "epsilon", r"trainer\.precision.*Set bf16-mixed"),
        ({"strategy": "ddp_spawn"}, "epsilon", r"trainer\.strategy.*found ddp_spawn"),
        ({"accelerator": "cpu", "sync_batchnorm": True}, "epsilon", "expected GPUs.*found none"),
        ({"accelerator": "gpu", "sync_batchnorm": True}, "gradient", "differentiates it twice"),
    ],
)
def test_a_trainer_that_fails_in_its_first_step_is_refused(
    settings: dict[str, object], composite: str, message: str
) -> None:
    with pytest.raises(ConfigError, match=message):
        check_trainer(settings, make_module(composite=composite))


def test_usual_trainers_are_fine() -> None:
    check_trainer({"accelerator": "cpu", "precision": "32-true"}, make_module())
    shared = {"accelerator": "gpu", "precision": "bf16-mixed", "sync_batchnorm": True}
    check_trainer(shared, make_module(composite="epsilon"))
    check_trainer(shared, with_loss(None))
