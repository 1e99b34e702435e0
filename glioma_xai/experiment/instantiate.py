"""Config to objects: the only place that calls hydra.utils.instantiate."""

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any, cast

from hydra.errors import InstantiationException
from hydra.utils import instantiate
from lightning_fabric.utilities.exceptions import MisconfigurationException
from omegaconf import DictConfig, OmegaConf
from pytorch_lightning import Callback, Trainer
from pytorch_lightning.loggers import Logger
from torch import nn

from glioma_xai.data import GliomaDataModule
from glioma_xai.errors import ConfigError, GliomaXaiError
from glioma_xai.losses.objective import Objective
from glioma_xai.losses.schedules import constant
from glioma_xai.models.inspection import replace_activations
from glioma_xai.training.guidance import Attribution, Guidance
from glioma_xai.training.module import GuidedClassifier
from glioma_xai.training.sampling import MaskedSamples


def _build(node: DictConfig, **extra: object) -> Any:  # noqa: ANN401 - as a config names it
    """The object of a node; what its own constructor says is wrong is raised as it was said."""
    try:
        return instantiate(node, **extra)
    except InstantiationException as error:  # Hydra's wrapper
        cause = error.__cause__
        if isinstance(cause, GliomaXaiError):
            raise cause from error
        if isinstance(cause, MisconfigurationException):
            raise ConfigError(
                f"{node._get_full_key(None)}: expected settings that {node['_target_']} can work "
                f"with, found: {cause}"
            ) from error
        raise


def build_data(config: DictConfig) -> GliomaDataModule:
    """The DataModule; its randomness comes from the run's seed."""
    return cast("GliomaDataModule", _build(config.data, _convert_="all"))


def build_model(config: DictConfig, *, input_shape: Sequence[int], classes: int) -> nn.Module:
    """The network for the data's shape and classes."""
    model = _build(config.model, input_shape=tuple(input_shape), classes=classes, _convert_="all")
    if config.get("replace_activations"):
        for path, kind in replace_activations(model).items():
            print(f"replaced {kind} at {path} by ReLU")
    return cast("nn.Module", model)


def build_attribution(config: DictConfig) -> Attribution:
    """The composite's name and its options; options that are null keep the rule's default."""
    values = cast("dict[str, Any]", OmegaConf.to_container(config.attribution, resolve=True))
    named = {key: values.pop(key) for key in ("composite", "target", "layer")}
    options = {key: value for key, value in values.items() if value is not None}
    return Attribution(**named, options=options)


def build_module(
    config: DictConfig, *, data: GliomaDataModule, model: nn.Module
) -> GuidedClassifier:
    """The LightningModule for a model and its data (set up, for class weights)."""
    attribution = build_attribution(config)
    for place in attribution.places:  # names layers without a rule, if any
        place.composite_for(model, data.input_shape)
    loss = config.loss
    schedule = constant if loss.schedule is None else _build(loss.schedule)
    objective = Objective(
        guidance_weight=loss.guidance_weight,
        consistency_weight=loss.consistency_weight,
        schedule=schedule,
        combine=loss.combine,
        weighting=loss.weighting,
        balance_every=loss.balance_every,
        class_weights=data.class_weights() if config.class_weights == "balanced" else None,
    )
    few = data.division.mask_share < 1
    drawn = max(1, round(loss.guided_share * data.batch_size)) if few else None
    guidance = Guidance(
        loss=None if loss.guidance is None else _build(loss.guidance),
        probe=loss.probe,
        perturbation=loss.perturbation,
        perturbation_radius=loss.perturbation_radius,
        warm_start_epochs=loss.warm_start_epochs,
        warm_start_limit=loss.warm_start_limit,
        warm_start=loss.warm_start,
        warm_start_on=loss.warm_start_on,
        exchange_share=loss.exchange_share,
        guided_share=loss.guided_share,
        guided_batch=drawn if loss.guided_batch is None else loss.guided_batch,
        every_n_steps=loss.every_n_steps,
        shuffled_masks=loss.shuffled_masks,
    )
    return GuidedClassifier(
        model,
        attribution=attribution,
        guidance=guidance,
        objective=objective,
        optimizer=_build(config.optimizer),
        scheduler=None if not config.scheduler else _build(config.scheduler),
        seed=config.seed,
        bank=build_bank(data),
    )


def build_bank(data: GliomaDataModule) -> MaskedSamples | None:
    """The training samples whose masks may be used; None where the cohort has no training split."""
    samples, rows = data.masked_samples()
    if not len(samples):
        return None
    return MaskedSamples(samples, rows["position"].tolist(), rows["patient_id"].tolist())


def build_callbacks(config: DictConfig, *, run: Path) -> dict[str, Callback]:
    """The configured callbacks by name; ``best`` and ``pareto`` write into the run's folder."""
    callbacks: dict[str, Callback] = {}
    for name, node in config.callbacks.items():
        if node is None:
            continue
        extra = {"folder": str(run / "checkpoints")} if name in ("best", "pareto") else {}
        callbacks[str(name)] = _build(node, **extra)
    return callbacks


def build_loggers(config: DictConfig) -> list[Logger]:
    """The configured loggers; W&B keeps its own lines off the terminal."""
    os.environ.setdefault("WANDB_SILENT", "true")
    nodes = config.logger or {}
    return [_build(node) for node in nodes.values() if node is not None]


def build_trainer(
    config: DictConfig, *, callbacks: Sequence[Callback], loggers: Sequence[Logger]
) -> Trainer:
    """The Trainer; without loggers Lightning's own is off too.

    Raises:
        ConfigError: If training has no end: schedules of the guidance weight are shares of it.
    """
    trainer = _build(
        config.trainer, callbacks=list(callbacks), logger=list(loggers) or False, _convert_="all"
    )
    if trainer.max_epochs in (None, -1) and trainer.max_steps == -1:
        raise ConfigError(
            f"trainer.max_epochs: expected a number of epochs, found {config.trainer.max_epochs}. "
            "Set it: the guidance weight's schedule is a share of training."
        )
    return cast("Trainer", trainer)
