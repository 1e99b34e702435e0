"""One run: seed, data, network, training, evaluation, report."""

import logging
import math
import warnings
from collections.abc import Sequence
from pathlib import Path

import pytorch_lightning as pl
import torch
from omegaconf import DictConfig
from pytorch_lightning.loggers import Logger

from glioma_xai.errors import ConfigError, NumericsError, RunError
from glioma_xai.experiment import instantiate, tracking
from glioma_xai.experiment.cases import draw_validation_cases
from glioma_xai.experiment.checkpoints import (
    AtomicCheckpointIO,
    forget_previous,
    to_go_on_from,
)
from glioma_xai.experiment.launch import names_of, value_of
from glioma_xai.experiment.lifecycle import (
    RunStatus,
    StatusEpoch,
    alone_in,
    disk_in_words,
    goes_on,
    read_status,
)
from glioma_xai.experiment.processes import Processes
from glioma_xai.experiment.report import headline, write_results
from glioma_xai.experiment.results import evaluate_splits
from glioma_xai.experiment.saved import SavedRun, load_module, read_config
from glioma_xai.experiment.signals import (
    Interrupted,
    interruptible,
    is_first_process,
    requeue,
)
from glioma_xai.experiment.timing import step_ratio
from glioma_xai.training.callbacks import (
    BestCheckpoint,
    LastCheckpoint,
    MetricsTable,
    ProgressBar,
    RelevancePanels,
    StepSeed,
)
from glioma_xai.training.checks import check_monitors, check_trainer, check_training
from glioma_xai.training.guards import TrainingGuards


def run(config: DictConfig, folder: Path, *, resume: bool = False) -> float:
    """Train, evaluate and report one run in its folder.

    Args:
        config: Checked config of `train`.
        folder: The run's folder; ``status.json`` in it tells how far the run is.
        resume: Go on from ``checkpoints/last.ckpt``.

    Returns:
        The validation score that chose the epoch, for a sweeper to maximise.

    Raises:
        GliomaXaiError: For what a user can mend; ``status.json`` then says ``failed``.
    """
    _hush()
    with alone_in(folder):
        resume = resume or goes_on(folder, config)
        status = RunStatus(folder, config)
        status.update()
        loggers: list[Logger] = []
        processes = Processes(status.end)
        try:
            with interruptible(), disk_in_words(folder), processes.losses_in_words():
                score = _work(config, folder, status, loggers, processes, resume=resume)
        except Interrupted as error:
            status.end("interrupted", error)
            tracking.close(loggers, error.exit_code)
            if error.asks_for_requeue:
                requeue()
            raise
        except BaseException as error:
            status.end("failed", error)
            tracking.close(loggers, 1)
            if isinstance(error, NumericsError) and error.everywhere and not is_first_process():
                return math.nan  # the first says it
            raise
        finally:
            processes.end()
        status.end("finished")
        if is_first_process():
            forget_previous(folder)
        tracking.close(loggers, 0)
    return score


def _work(
    config: DictConfig,
    folder: Path,
    status: RunStatus,
    loggers: list[Logger],
    processes: Processes,
    *,
    resume: bool,
) -> float:
    data = instantiate.build_data(config)
    data.setup("fit")
    if is_first_process():
        data.write_splits(folder / "splits.csv")
    status.update(left_out=[str(problem) for problem in data.left_out])
    if noticed := data.cohort.warnings:
        status.warn(
            f"Warnings about the cohort: {len(noticed)}. The first: {noticed[0]} All of them: "
            "python -m glioma_xai.check with the same data settings."
        )
    # after the data: preparing it may draw numbers, and whether it was cached must not matter
    pl.seed_everything(config.seed, workers=True, verbose=False)
    model = instantiate.build_model(config, input_shape=data.input_shape, classes=len(data.classes))
    module = instantiate.build_module(config, data=data, model=model)
    check_training(module, batch_size=data.batch_size, input_shape=data.input_shape)
    check_trainer(config.trainer, module)
    check_monitors(config.callbacks, table=data.table, batch_size=data.batch_size)
    loggers += instantiate.build_loggers(config)  # from here on there is something to log
    callbacks = instantiate.build_callbacks(config, run=folder)
    best = callbacks.get("best")
    if not isinstance(best, BestCheckpoint):
        raise ConfigError(
            "callbacks.best: expected glioma_xai.training.callbacks.BestCheckpoint, found "
            f"{type(best).__name__}. Keep the default and change its monitor."
        )
    trainer = instantiate.build_trainer(
        config,
        callbacks=[
            *callbacks.values(),
            LastCheckpoint(folder=str(folder / "checkpoints")),
            StepSeed(config.seed),
            StatusEpoch(status),
            TrainingGuards(folder / "faults", status.warn),
            processes,
            MetricsTable(folder / "metrics.csv"),
            ProgressBar(),
            RelevancePanels(
                draw_validation_cases(data, count=config.overlays),
                folder / "relevance" / "validation",
            ),
        ],
        loggers=loggers,
    )
    trainer.strategy.checkpoint_io = AtomicCheckpointIO()
    processes.take_over(trainer)
    tracking.log_config(config, loggers)
    trainer.fit(
        module,
        datamodule=data,
        ckpt_path=to_go_on_from(folder) if resume else None,
        weights_only=True,
    )
    score = float(best.best_model_score if best.best_model_score is not None else torch.nan)
    processes.part()
    if not is_first_process():
        return score
    # built anew: Lightning leaves a BatchNorm of its own where several devices shared theirs
    saved = SavedRun(folder, config, other_data=False, device=trainer.strategy.root_device)
    module, epoch = load_module(saved, data)
    results = evaluate_splits(config, data=data, module=module, epoch=epoch)
    results = results.with_training(
        selected_by=best.monitor,
        selection_score=score,
        wall_seconds=status.seconds,
        **step_ratio(module, data),
    )
    summary = write_results(results, config, data=data, module=module, folder=folder)
    tracking.log_results(loggers, summary, folder=folder, step=trainer.global_step)
    print(headline(summary))
    print(f"report: {folder / 'report.html'}")
    return score


def resume_run(folder: Path, overrides: Sequence[str]) -> None:
    """Go on with an interrupted run, in its folder, with its own config.

    Args:
        folder: The run's.
        overrides: Further words of the command line; only ``trust=[<package>,...]`` may be.

    Raises:
        ConfigError: If another setting is given; a run that goes on keeps its own.
        RunError: If the folder is no run, or the run is finished.
    """
    trust = value_of("trust", overrides)
    others = [word for word in overrides if not word.lstrip("+").startswith("trust=")]
    if others:
        raise ConfigError(
            f"resume: expected no other settings, found {' '.join(others)}. A run goes on with "
            "its own config; leave them out or start a new run."
        )
    config = read_config(folder, trust=names_of(trust))
    if read_status(folder).get("state") == "finished":
        raise RunError(
            f"{folder}: expected an unfinished run, found a finished one. Nothing to do."
        )
    run(config, folder, resume=True)


def _hush() -> None:
    """Keep other libraries' hints off the terminal; their warnings about this run stay."""
    logging.getLogger("pytorch_lightning.utilities.rank_zero").setLevel(logging.WARNING)
    warnings.filterwarnings("ignore", module=r"pytorch_lightning\.utilities\._pytree")
    warnings.filterwarnings("ignore", message=r".*does not have many workers.*")
