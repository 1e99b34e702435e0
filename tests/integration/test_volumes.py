"""Guidance in three dimensions: volumes of the phantom, a 3-D residual network, one step."""

import math
from pathlib import Path

import pytorch_lightning as pl
import torch

from glioma_xai.config import check_config, compose_config
from glioma_xai.experiment import instantiate


def test_a_guided_step_on_volumes(tmp_path: Path) -> None:
    config = compose_config(
        "train",
        [
            "+experiment=lrp_guided_3d",
            "data.phantom.subjects=8",
            "data.spacing_mm=8.0",
            "data.spatial_size=[24,28,24]",
            "data.test_share=0.25",
            "data.validation_share=0.25",
            "data.batch_size=2",
            "loss.warm_start_epochs=0",
            "loss.warm_start_limit=0",
            "logger=none",
            f"paths.cache={tmp_path}",
        ],
    )
    config.paths.run = str(tmp_path)
    check_config(config)
    data = instantiate.build_data(config)
    data.setup("fit")
    assert data.input_shape == (3, 24, 28, 24)
    pl.seed_everything(0, verbose=False)
    model = instantiate.build_model(config, input_shape=data.input_shape, classes=2)
    assert any(isinstance(module, torch.nn.Conv3d) for module in model.modules())
    module = instantiate.build_module(config, data=data, model=model)
    before = [parameter.detach().clone() for parameter in model.parameters()]
    trainer = pl.Trainer(
        accelerator="cpu",
        max_epochs=1,
        limit_train_batches=1,
        limit_val_batches=1,
        num_sanity_val_steps=0,
        inference_mode=False,
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
    )
    trainer.fit(module, datamodule=data)
    logged = {name: float(value) for name, value in trainer.callback_metrics.items()}
    assert 0 < logged["train/loss_guidance"] <= 1
    assert math.isfinite(logged["train/loss"])
    changed = [not torch.equal(a, b) for a, b in zip(before, model.parameters(), strict=True)]
    assert all(changed)
