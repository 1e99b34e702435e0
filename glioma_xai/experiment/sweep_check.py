"""Before the first job of a sweep: compose, check and build what every job needs, each thing once.

A sweep must not fail in its fortieth job for a reason that is known at the start.
"""

import json
import logging
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, cast

from omegaconf import DictConfig, OmegaConf

from glioma_xai.config import check_config, compose_config, nearest
from glioma_xai.data import GliomaDataModule
from glioma_xai.errors import ConfigError, GliomaXaiError
from glioma_xai.experiment import instantiate
from glioma_xai.experiment.launch import split_arguments
from glioma_xai.experiment.sweep_memory import Need, estimate_memory, memory_warning
from glioma_xai.experiment.sweep_plan import Sweep
from glioma_xai.experiment.sweep_problems import Problems
from glioma_xai.training.checks import check_monitors, check_trainer, check_training
from glioma_xai.training.validation import LOGGED

_ONLY_LOADING = ("batch_size", "num_workers", "sampler", "augmentation")
_OF_THE_TRAINER = ("accelerator", "precision", "strategy", "sync_batchnorm")
_OF_THE_STEP = ("model", "attribution", "loss", "optimizer", "scheduler", "class_weights")
_ONE_PROCESS_A_DEVICE = "submitit_slurm"
_ELSEWHERE = ("submitit_slurm", "ray")  # on machines that may have what this one lacks


@dataclass(frozen=True)
class Checked:
    """What the check of a sweep found.

    Args:
        sweep: With the rule that chooses the best run.
        configs: Of every job, by its number.
        cohorts: Number of different preparations and divisions of data.
        networks: Number of different networks with their rules and losses.
        need: Of the job that needs most memory.
        warnings: What does not stop the sweep.
    """

    sweep: Sweep
    configs: Sequence[DictConfig]
    cohorts: int
    networks: int
    need: Need
    warnings: Sequence[str]


def check_sweep(name: str, sweep: Sweep) -> Checked:
    """Compose and check every job, prepare its data, build its network, estimate its memory.

    Prepared data is in the cache afterwards, so that no two jobs prepare the same.

    Raises:
        ConfigError: With every problem of every job, if a setting is among them.
        RunError: With every problem of every job.
    """
    problems = Problems(sweep)
    configs = _compose(name, sweep, problems)
    trainers: dict[str, Exception | None] = {}
    for number, config in configs.items():
        try:
            _check_place(config, sweep)
            _check_objectives(config)
            _check_trainer(config, sweep, trainers)
        except Exception as error:  # Lightning raises many kinds
            problems.add(number, error)
    cohorts = _open_cohorts(configs, problems)
    needs = _build_networks(configs, cohorts, problems)
    problems.raise_all()
    need = max(needs, key=lambda need: need.total)
    accelerator = str(next(iter(configs.values())).trainer.accelerator)
    known = [memory_warning(need, sweep, accelerator)]
    rules = {(c.callbacks.best.monitor, c.callbacks.best.mode) for c in configs.values()}
    if len(rules) == 1:
        monitor, mode = next(iter(rules))
        sweep = replace(sweep, monitor=str(monitor), mode=str(mode))
        if str(monitor).removeprefix("validation/") not in LOGGED:
            known.append(f"callbacks.best.monitor: {monitor} is no score that training logs itself")
    return Checked(
        sweep=sweep,
        configs=list(configs.values()),
        cohorts=len(cohorts),
        networks=len(needs),
        need=need,
        warnings=[warning for warning in known if warning],
    )


def _compose(name: str, sweep: Sweep, problems: Problems) -> dict[int, DictConfig]:
    _, folders, _ = split_arguments(sweep.arguments)
    configs = {}
    for job in sweep.jobs:
        try:
            config = compose_config(name, job.overrides, config_dirs=folders)
            config.paths.run = str(sweep.folder / str(job.number))
            check_config(config)
            configs[job.number] = config
        except GliomaXaiError as error:
            problems.add(job.number, error)
    return configs


def _check_place(config: DictConfig, sweep: Sweep) -> None:
    """Refuse several processes in one job where the launcher cannot start them."""
    trainer = config.trainer
    devices, strategy = trainer.get("devices", 1), str(trainer.get("strategy", ""))
    nodes = int(trainer.get("num_nodes", 1))
    one = devices in (1, "1", None) or (OmegaConf.is_list(devices) and len(devices) == 1)
    if ("ddp" in strategy or not one or nodes > 1) and sweep.launcher != _ONE_PROCESS_A_DEVICE:
        raise ConfigError(
            f"trainer: expected one device a job with hydra/launcher={sweep.launcher}, found "
            f"devices={devices}{f', strategy={strategy}' if strategy else ''}"
            f"{f', num_nodes={nodes}' if nodes > 1 else ''}. Each process of such a job would "
            "start the whole sweep again: use hydra/launcher=submitit_slurm "
            "hydra.launcher.tasks_per_node=<devices>, which starts the processes itself, or "
            "trainer.devices=1 trainer.strategy=auto with one job a device."
        )


def _check_trainer(config: DictConfig, sweep: Sweep, known: dict[str, Exception | None]) -> None:
    """Build each different trainer once: a GPU that is not there ends every job."""
    if sweep.launcher in _ELSEWHERE:
        return
    node = cast("dict[str, Any]", OmegaConf.to_container(config.trainer, resolve=True))
    key = _key({name: value for name, value in node.items() if name != "default_root_dir"})
    if key not in known:
        logging.getLogger("pytorch_lightning.utilities.rank_zero").setLevel(logging.WARNING)
        try:
            instantiate.build_trainer(config, callbacks=[], loggers=[])
            known[key] = None
        except Exception as error:
            known[key] = error
    found = known[key]
    if found is not None:
        raise found


def _check_objectives(config: DictConfig) -> None:
    known = {f"validation/{score}" for score in LOGGED}
    for name in config.objectives or []:
        if name not in known:
            raise ConfigError(
                f"objectives: expected scores that training logs, found {name}. "
                f"{nearest(str(name), known)}"
            )


def _key(*nodes: object) -> str:
    return json.dumps(nodes, sort_keys=True, default=str)


def _cohort_key(config: DictConfig) -> str:
    node = cast("dict[str, Any]", OmegaConf.to_container(config.data, resolve=True))
    left_out = {*_ONLY_LOADING, *({"seed"} if node.get("split_seed") is not None else ())}
    return _key({key: value for key, value in node.items() if key not in left_out})


def _open_cohorts(
    configs: dict[int, DictConfig], problems: Problems
) -> dict[str, GliomaDataModule]:
    """Each different cohort, prepared, also in the variants that the evaluation will ask for."""
    cohorts: dict[str, GliomaDataModule] = {}
    failed: dict[str, Exception] = {}
    for number, config in configs.items():
        key = _cohort_key(config)
        try:
            if key in failed:
                raise failed[key]
            data = instantiate.build_data(config)
            if key not in cohorts:
                data.setup("fit")
                for variant in data.variants:
                    data.evaluation_loader("test", variant=variant)
                cohorts[key] = data
        except Exception as error:  # also of a reader of the user's own
            failed[key] = error
            problems.add(number, error)
    return cohorts


def _build_networks(
    configs: dict[int, DictConfig], cohorts: dict[str, GliomaDataModule], problems: Problems
) -> list[Need]:
    """Each different network with its rule and loss, built, and the memory of one step of it."""
    needs: dict[str, Need] = {}
    failed: dict[str, Exception] = {}
    for number, config in configs.items():
        cohort = cohorts.get(_cohort_key(config))
        if cohort is None or problems.wrong(number):
            continue
        batch_size = int(config.data.batch_size)
        try:
            check_monitors(config.callbacks, table=cohort.table, batch_size=batch_size)
        except ConfigError as error:
            problems.add(number, error)
            continue
        parts = [OmegaConf.to_container(config, resolve=True)[name] for name in _OF_THE_STEP]  # type: ignore[index,call-overload]
        trainer = [config.trainer.get(name) for name in _OF_THE_TRAINER]
        key = _key(cohort.input_shape, batch_size, trainer, *parts)
        try:
            if key in failed:
                raise failed[key]
            if key not in needs:
                needs[key] = _build(config, cohort)
        except Exception as error:  # also of a network of the user's own
            failed[key] = error
            problems.add(number, error)
    return [*needs.values()]


def _build(config: DictConfig, data: GliomaDataModule) -> Need:
    data.batch_size = batch_size = int(config.data.batch_size)  # jobs with other ones share it
    model = instantiate.build_model(config, input_shape=data.input_shape, classes=len(data.classes))
    module = instantiate.build_module(config, data=data, model=model)
    check_training(module, batch_size=batch_size, input_shape=data.input_shape)
    check_trainer(config.trainer, module)
    instantiate.build_callbacks(config, run=data.cache_dir)
    return estimate_memory(module, data, batch_size=batch_size)
