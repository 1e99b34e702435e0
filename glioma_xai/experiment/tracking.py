"""A run in W&B: offline first, one id for its whole life, grouped, with epochs as its axis."""

import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pandas as pd
import wandb
from lightning_fabric.loggers.logger import rank_zero_experiment
from omegaconf import DictConfig
from pytorch_lightning.loggers import Logger, WandbLogger
from pytorch_lightning.utilities import rank_zero_only

from glioma_xai.errors import ConfigError
from glioma_xai.experiment.public import public_settings
from glioma_xai.experiment.sweep_plan import PLAN
from glioma_xai.visualization.runs import estimates, with_drop

EPOCH = "epoch"
SUMMARY = "min,max,last"
"""What the summary of a run holds of every metric that has a value an epoch."""


class TrackedRun(WandbLogger):
    """The W&B run of a run folder.

    Runs of all experiments log the same names against the epoch, so a guided and a plain network
    share their axes. Rows go by optimizer steps, so that the parts of a run that was interrupted
    and resumed follow each other. Nothing leaves the run folder that says who ran it where:
    command line, folders, host, git remote and terminal output are not recorded.

    Args:
        save_dir: The run's folder. An earlier part of the run in it is gone on with.
        project: W&B project.
        name: Shown name; a job of a sweep adds its number.
        group: Runs to look at together; a job of a sweep adds the sweep's folder.
        job_type: Kind of run.
        tags: To filter by.
        entity: W&B user or team; None for the account's default.
        offline: Write to the run folder only; ``wandb sync`` sends it later.
    """

    def __init__(
        self,
        *,
        save_dir: str,
        project: str,
        name: str,
        group: str,
        job_type: str = "train",
        tags: Sequence[str] = (),
        entity: str | None = None,
        offline: bool = True,
    ) -> None:
        folder = Path(save_dir)
        if (folder.parent / PLAN).is_file():
            name, group = f"{name}, job {folder.name}", f"{group}/{folder.parent.name}"
        super().__init__(
            save_dir=save_dir,
            project=project,
            name=name,
            group=group,
            job_type=job_type,
            tags=list(tags),
            entity=entity,
            offline=offline,
            id=previous_id(folder),
        )
        self._wandb_init.pop("anonymous")  # a setting that W&B no longer has, and warns about
        self._defined: set[str] = set()

    @property
    @rank_zero_experiment
    def experiment(self) -> Any:  # noqa: ANN401 - wandb's Run, or a stand-in on other processes
        """The W&B run, started when it is first asked for.

        Raises:
            ConfigError: If W&B cannot be reached or knows no account.
        """
        if self._experiment is None:
            try:
                self._experiment = wandb.init(
                    **self._wandb_init,
                    mode="offline" if self._offline else None,
                    reinit="create_new",  # the job before this one may not have ended in order
                    settings=wandb.Settings(
                        console="off",
                        disable_git=True,
                        host="",
                        save_code=False,
                        x_disable_machine_info=True,
                        x_disable_meta=True,
                    ),
                )
            except wandb.errors.Error as error:
                reason = str(error).splitlines()[0] if str(error) else type(error).__name__
                raise ConfigError(
                    f"logger.wandb.offline: expected an account and a connection for false, found "
                    f"none ({reason}). Run wandb login, or leave it true and sync the run later."
                ) from error
            self._experiment.define_metric(EPOCH)
        return self._experiment

    @rank_zero_only
    def log_metrics(self, metrics: Mapping[str, Any], step: int | None = None) -> None:
        """Add to the row of an optimizer step.

        Args:
            metrics: Numbers by name, ``epoch`` among them, or media.
            step: None or one that is over adds to the newest row.
        """
        run = self.experiment
        for name in metrics.keys() - self._defined - {EPOCH}:
            if isinstance(metrics[name], int | float):
                run.define_metric(name, step_metric=EPOCH, summary=SUMMARY)
            self._defined.add(name)
        run.log(dict(metrics), step=max(run.step, step or 0))


def previous_id(folder: Path) -> str | None:
    """Id of the W&B run that an earlier part of a run wrote; None if there is none.

    Args:
        folder: The run's folder.
    """
    files = sorted(folder.glob("wandb/*run-*/run-*.wandb"))
    return files[-1].stem.removeprefix("run-") if files else None


def log_config(config: DictConfig, loggers: Sequence[Logger]) -> None:
    """Send the config to the loggers, with no folder of whoever ran it."""
    nested: dict[str, Any] = {}
    for key, value in public_settings(config).items():
        *parents, last = key.split(".")
        node = nested
        for parent in parents:
            node = node.setdefault(parent, {})
        node[last] = value
    for logger in loggers:
        logger.log_hyperparams(nested)


@rank_zero_only
def log_results(
    loggers: Sequence[Logger], summary: Mapping[str, Any], *, folder: Path, step: int
) -> None:
    """Put headline numbers, predictions and pictures of test cases into the W&B run.

    Args:
        loggers: Of the run; those of other kinds are left alone.
        summary: Content of ``summary.json``.
        folder: The run's folder, with ``predictions.csv`` and the pictures.
        step: Optimizer steps of the whole training.
    """
    table = pd.read_csv(folder / "predictions.csv")
    pictures = sorted(folder.glob("relevance/test/*.png"))
    for logger in loggers:
        if not isinstance(logger, TrackedRun):
            continue
        with _staged_in(folder / "wandb"):
            for level, rows in table.groupby("level"):
                rows = rows.dropna(axis="columns", how="all").drop(columns="level")
                logger.log_metrics({f"predictions/{level}": wandb.Table(dataframe=rows)}, step)
            names = [path.stem for path in pictures]
            if names:
                logger.log_image("panels/test", [str(p) for p in pictures], step, caption=names)
        # last: the rows above complete that of the last epoch, and with it what W&B itself keeps
        logger.experiment.summary.update(
            headline_numbers(summary) | extremes(folder / "metrics.csv")
        )


def headline_numbers(summary: Mapping[str, Any]) -> dict[str, float | str]:
    """What the table of runs shows of a finished run.

    Args:
        summary: Content of ``summary.json``.

    Returns:
        ``test/<score>`` by patient, ``test/<relevance score>``, ``behaviour/<condition>`` (accuracy
        by patient), each with ``_low`` and ``_high`` where there is an interval,
        ``behaviour/largest_drop``, what training took, and the verdict.
    """
    found: dict[str, float | str] = {}
    for path, estimate in with_drop(estimates(summary)).items():
        name = _short(path)
        if name:
            ends = {"": estimate.value, "_low": estimate.low, "_high": estimate.high}
            found |= {f"{name}{end}": value for end, value in ends.items() if value == value}
    verdict = summary["verdict"]
    return found | {"verdict": verdict["headline"], "judgement": verdict["judgement"]}


def extremes(path: Path) -> dict[str, dict[str, float]]:
    """Least, largest and last value of every metric, over all parts of a run.

    W&B itself knows those of the part that ended, not of the parts before it.

    Args:
        path: ``metrics.csv``.
    """
    table = pd.read_csv(path).drop(columns=EPOCH)
    found = {}
    for name in table:
        values = table[name].dropna()
        if len(values):
            last = float(values.iloc[-1])
            found[str(name)] = {
                "min": float(values.min()),
                "max": float(values.max()),
                "last": last,
            }
    return found


def _short(path: str) -> str:
    """Name in the summary of a number of ``summary.json``; empty for those that stay there."""
    match path.split("/"):
        case [("wall_seconds" | "guided_plain_step_ratio" | "selected_epoch") as name]:
            return name
        case ["metrics", "test", "patient", score]:
            return f"test/{score}"
        case ["relevance", "test", score]:
            return f"test/{score}"
        case ["behaviour", "largest_drop"]:
            return path
        case ["behaviour", condition, "patient", "accuracy"]:
            return f"behaviour/{condition}"
    return ""


@contextmanager
def _staged_in(folder: Path) -> Iterator[None]:
    """Let W&B keep what it sends later in this folder, and not in the user's home."""
    before = os.environ.get("WANDB_DATA_DIR")
    os.environ["WANDB_DATA_DIR"] = before or str(folder)
    try:
        yield
    finally:
        if before is None:
            del os.environ["WANDB_DATA_DIR"]


def close(loggers: Sequence[Logger], exit_code: int) -> None:
    """End the W&B run of this job, or the next job in the process would go on in it."""
    for logger in loggers:
        if isinstance(logger, WandbLogger) and logger._experiment is not None:
            logger.experiment.finish(exit_code=exit_code)
