"""What a sweep consists of: its folder, its jobs and its rule, kept in ``sweep.json``."""

import itertools
import json
import os
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from hydra._internal.core_plugins.basic_sweeper import BasicSweeper
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import IntervalSweep, Override
from hydra.errors import HydraException
from omegaconf import DictConfig, OmegaConf

from glioma_xai.config import compose_config
from glioma_xai.errors import ConfigError, RunError
from glioma_xai.experiment.launch import split_arguments
from glioma_xai.experiment.lifecycle import write_json

PLAN = "sweep.json"


@dataclass(frozen=True)
class Job:
    """One job of a sweep.

    Args:
        number: From 0; the name of its folder.
        overrides: As on a command line.
        label: The overrides in which it differs from the other jobs.
    """

    number: int
    overrides: tuple[str, ...]
    label: str


@dataclass(frozen=True)
class Sweep:
    """A sweep before its first job, and what is needed to go on with it.

    Args:
        folder: Where it lies; each job in a folder of its number.
        arguments: Command line of the sweep.
        jobs: All of them; of a search, what stands for them: each choice, each end of an interval.
        launcher: ``basic``, ``joblib``, ``ray``, ``submitit_local`` or ``submitit_slurm``.
        at_a_time: Jobs that run at the same time on this machine, at most.
        searches: A sweeper chooses the jobs as it goes, out of the results of earlier ones.
        monitor: Validation score by which the best run is chosen; None if jobs differ in theirs.
        mode: Whether the larger (max) or the smaller score (min) is better.
    """

    folder: Path
    arguments: tuple[str, ...]
    jobs: tuple[Job, ...]
    launcher: str = "basic"
    at_a_time: int = 1
    searches: bool = False
    monitor: str | None = None
    mode: str = "max"

    @property
    def rule(self) -> str:
        """How the best run is chosen, in words."""
        if self.monitor is None:
            return (
                "no best run is named: the jobs choose their epochs by different scores "
                "(callbacks.best.monitor)"
            )
        better = "highest" if self.mode == "max" else "lowest"
        return (
            f"the setting with the {better} mean of {self.monitor}, each run at the epoch that "
            f"it chose, and of its runs the one with the {better}; the first of equals. Test data "
            "plays no part"
        )

    def write(self) -> None:
        """Write ``sweep.json`` into the sweep's folder."""
        write_json(self.folder / PLAN, asdict(self) | {"folder": None})


def read_sweep(folder: Path) -> Sweep:
    """A sweep from its folder.

    Raises:
        RunError: If the folder is no sweep, or its list of jobs cannot be read.
    """
    path = folder / PLAN
    if not path.is_file():
        raise RunError(
            f"{folder}: expected a sweep's folder with {PLAN}, found "
            f"{'none' if folder.exists() else 'no such folder'}. Sweeps lie in runs/sweeps/<date>."
        )
    try:
        values = json.loads(path.read_text())
        jobs = [
            Job(int(job["number"]), tuple(job["overrides"]), job["label"]) for job in values["jobs"]
        ]
        known = {
            name: values[name] for name in ("launcher", "at_a_time", "searches", "monitor", "mode")
        }
        return Sweep(folder, tuple(values["arguments"]), tuple(jobs), **known)
    except (ValueError, KeyError, TypeError) as error:
        raise RunError(
            f"{path}: expected a list of jobs as a sweep writes it, found another file "
            f"({type(error).__name__}: {error}). Repeat the sweep's command in a new folder."
        ) from error


def plan_sweep(name: str, arguments: Sequence[str]) -> Sweep:
    """List the jobs of a command line with ``-m``, numbered as Hydra will number them.

    Raises:
        ConfigError: If the command line is wrong.
    """
    overrides, folders, _ = split_arguments(arguments)
    moved = [word for word in overrides if word.startswith("hydra.sweep.subdir=")]
    if moved:
        raise ConfigError(
            f"hydra.sweep.subdir: expected nothing, found {moved[0]}. A job's folder is its "
            "number; leave it out."
        )
    fixed = [word.input_line or "" for word in parse(overrides) if not word.is_sweep_override()]
    config = compose_config(name, fixed, config_dirs=folders, hydra=True)
    searches = config.hydra.runtime.choices["hydra/sweeper"] != "basic"
    jobs = stand_ins(overrides, config) if searches else jobs_of(overrides, config)
    return Sweep(
        folder=Path(str(config.hydra.sweep.dir)),
        arguments=tuple(arguments),
        jobs=tuple(
            Job(number, tuple(job), label)
            for number, (job, label) in enumerate(zip(jobs, labels(jobs), strict=True))
        ),
        launcher=str(config.hydra.runtime.choices["hydra/launcher"]),
        at_a_time=_at_a_time(config, len(jobs)),
        searches=searches,
    )


def _at_a_time(config: DictConfig, jobs: int) -> int:
    """How many jobs the launcher runs on this machine at the same time."""
    launcher = str(config.hydra.runtime.choices["hydra/launcher"])
    cores = os.cpu_count() or 1
    if launcher == "submitit_local":
        return jobs  # it starts all of them
    if launcher == "ray":
        return min(jobs, cores)
    if launcher != "joblib":
        return 1
    wanted = int(config.hydra.launcher.n_jobs)
    return min(jobs, wanted if wanted > 0 else max(1, cores + 1 + wanted))


def parse(overrides: Sequence[str]) -> list[Override]:
    """The words of a command line as Hydra understands them.

    Raises:
        ConfigError: If one cannot be understood.
    """
    try:
        return OverridesParser.create().parse_overrides(list(overrides))
    except HydraException as error:
        first = str(error).splitlines()[0]
        raise ConfigError(f"the command line: expected key=value, found {first}.") from error


def jobs_of(overrides: Sequence[str], config: DictConfig) -> list[list[str]]:
    """The overrides of every job of a multirun, in the order of the basic sweeper.

    Args:
        overrides: Of the command line.
        config: Composed with Hydra's own node.
    """
    try:
        batches = BasicSweeper.split_arguments(_swept(overrides, config), None)
    except HydraException as error:
        raise ConfigError(
            f"{error}. An interval needs a sweeper that draws from it: +sweep=optuna."
        ) from error
    return [list(job) for job in itertools.chain.from_iterable(batches)]


def stand_ins(overrides: Sequence[str], config: DictConfig) -> list[list[str]]:
    """Jobs that stand for a search: each value once, the other keys at their first one.

    Args:
        overrides: Of the command line.
        config: Composed with Hydra's own node.
    """
    values = {word.get_key_element(): _values(word) for word in _swept(overrides, config)}
    first = {key: choices[0] for key, choices in values.items()}
    jobs = [first] + [
        {**first, key: choice} for key, choices in values.items() for choice in choices[1:]
    ]
    return [[f"{key}={value}" for key, value in job.items()] for job in jobs]


def _swept(overrides: Sequence[str], config: DictConfig) -> list[Override]:
    """The sweeper's own parameters, then the command line's words that are not Hydra's."""
    params = OmegaConf.select(config, "hydra.sweeper.params") or {}
    own = [word for word in overrides if not word.lstrip("+~").startswith(("hydra.", "hydra/"))]
    return parse([*(f"{key}={value}" for key, value in params.items()), *own])


def _values(word: Override) -> list[str]:
    if not word.is_sweep_override():
        return [word.get_value_element_as_str()]
    value = word.value()
    if isinstance(value, IntervalSweep):
        return [str(value.start), str(value.end)]
    return list(word.sweep_string_iterator())


def labels(jobs: Sequence[Sequence[str]]) -> list[str]:
    """The overrides of each job that not all jobs share."""
    shared = set(jobs[0]).intersection(*jobs) if len(jobs) > 1 else set()
    return [" ".join(word for word in job if word not in shared) for job in jobs]
