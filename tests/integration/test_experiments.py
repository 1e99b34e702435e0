"""Every experiment, and every loss, takes a step in each of its phases on a tiny phantom."""

import math
from pathlib import Path

import pytest
import pytorch_lightning as pl
import torch
from omegaconf import DictConfig

from glioma_xai.config import check_config, choices, compose_config
from glioma_xai.data import GliomaDataModule
from glioma_xai.experiment import instantiate
from glioma_xai.training.module import GuidedClassifier

TINY = [
    "logger=none",
    "data.phantom.subjects=24",
    "data.spacing_mm=4.0",
    "data.spatial_size=[48,56]",
    "data.slice_count=2",
    "data.batch_size=8",
    "trainer.max_epochs=2",
]


def take_steps(
    cache: Path, *overrides: str
) -> tuple[DictConfig, GuidedClassifier, dict[str, float]]:
    """Two epochs of one batch: the warm start, if there is one, and what comes after it."""
    config = compose_config("train", [*TINY, *overrides, f"paths.cache={cache}"])
    config.paths.run = str(cache)
    if config.loss.warm_start_epochs == 3:
        config.loss.warm_start_epochs = 1
        config.loss.warm_start_limit = 0
    check_config(config)
    data: GliomaDataModule = instantiate.build_data(config)
    data.setup("fit")
    pl.seed_everything(0, verbose=False)
    model = instantiate.build_model(config, input_shape=data.input_shape, classes=2)
    module = instantiate.build_module(config, data=data, model=model)
    before = [parameter.detach().clone() for parameter in model.parameters()]
    trainer = pl.Trainer(
        accelerator="cpu",
        max_epochs=2,
        limit_train_batches=1,
        limit_val_batches=1,
        num_sanity_val_steps=0,
        inference_mode=False,
        gradient_clip_val=1.0,
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
    )
    trainer.fit(module, datamodule=data)
    after = list(model.parameters())
    assert all(not torch.equal(a, b) for a, b in zip(before, after, strict=True))
    logged = {name: float(value) for name, value in trainer.callback_metrics.items()}
    assert math.isfinite(logged["train/loss"])
    assert 0 <= logged["validation/exchanged_accuracy"] <= 1
    return config, module, logged


@pytest.mark.parametrize(
    "experiment", [name for name in choices("experiment") if name not in {"smoke", "lrp_guided_3d"}]
)
def test_every_experiment_takes_a_step(experiment: str, shared_cache: Path) -> None:
    config, _, logged = take_steps(shared_cache, f"+experiment={experiment}")
    guided = config.loss.guidance_weight > 0
    assert ("train/loss_guidance" in logged) == guided
    assert ("train/loss_consistency" in logged) == (config.loss.consistency_weight > 0)
    if guided:
        assert logged["train/loss_guidance"] > 0
        assert math.isfinite(logged["validation/loss_guidance"])


@pytest.mark.parametrize("loss", [c for c in choices("loss") if c != "cross_entropy"])
@pytest.mark.parametrize("weighting", ["fixed", "balanced", "uncertainty"])
def test_every_loss_takes_a_step_with_every_weighting(
    loss: str, weighting: str, shared_cache: Path
) -> None:
    if loss == "isnet" and weighting != "fixed":
        pytest.skip("its losses share a total of 1")
    _, _, logged = take_steps(
        shared_cache,
        f"loss={loss}",
        f"loss.weighting={weighting}",
        "attribution.target=contrastive",
    )
    assert logged["train/loss_guidance"] > 0
    assert logged["train/guidance_weight"] > 0


def test_relevance_is_guided_at_layers(shared_cache: Path) -> None:
    _, _, logged = take_steps(
        shared_cache, "+experiment=lrp_guided", "attribution.layer=[input,pool1]"
    )
    assert logged["train/loss_guidance"] > 0
    assert 0 <= logged["validation/absolute_relevance_mass"] <= 1  # at the input all the same
