"""Many jobs out of one command line: checked before the first, compared after the last."""

import logging
import re
import sys
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path

from omegaconf import DictConfig, OmegaConf

from glioma_xai.errors import ConfigError, RunError
from glioma_xai.experiment.launch import asks_only, split_arguments, start_hydra, value_of
from glioma_xai.experiment.lifecycle import read_status
from glioma_xai.experiment.signals import interruptible
from glioma_xai.experiment.sweep_check import Checked, check_sweep
from glioma_xai.experiment.sweep_devices import Place, refuse_device_numbers, visible_devices
from glioma_xai.experiment.sweep_job import new_job, resumed_job
from glioma_xai.experiment.sweep_memory import in_words
from glioma_xai.experiment.sweep_plan import PLAN, Job, Sweep, plan_sweep, read_sweep
from glioma_xai.experiment.sweep_results import conclude
from glioma_xai.experiment.trust import names_in

_log = logging.getLogger(__name__)
_NEW_DRAWS = 1000
_HARMLESS = (
    *("n_jobs", "timeout_min", "cpus_per_task", "gpus_per_node", "tasks_per_node", "nodes"),
    *("mem_gb", "partition", "array_parallelism", "ray.init.num_cpus", "ray.init.num_gpus"),
    *("ray.init.include_dashboard", "ray.remote.num_cpus", "ray.remote.num_gpus"),
)
"""What a sweep's folder may set of its launcher; others, such as submitit's setup, run commands."""
_ROUNDS = ".resumed"
"""Folder in a sweep's own for what Hydra and its launcher write when jobs are resumed."""


def run_sweep(name: str, arguments: Sequence[str]) -> None:
    """Check every job of a command line with ``-m``, run them all, and sum up.

    Args:
        name: Main config.
        arguments: Command line without the program.

    Raises:
        ConfigError: If a job is wrong; nothing has been started then.
        RunError: If a job cannot run, then nothing has been started; or if not all jobs finished.
    """
    if asks_only(arguments):
        start_hydra(name, arguments, lambda config: None)
        return
    sweep = plan_sweep(name, arguments)
    earlier = (sweep.folder / PLAN).is_file()
    if earlier and not sweep.searches:
        raise ConfigError(
            f"hydra.sweep.dir: expected a new folder, found the sweep {sweep.folder}. Go on with "
            f"it: python -m glioma_xai.{name} -m resume={sweep.folder}"
        )
    jobs = _count(len(sweep.jobs), "setting" if sweep.searches else "job")
    print(f"checking {jobs}: cohorts are prepared, networks built", flush=True)
    checked = check_sweep(name, sweep)
    refuse_device_numbers(checked.configs, sweep.launcher)
    _announce(checked)
    checked.sweep.write()
    if not sweep.searches:
        _write_configs(checked)
    task = partial(new_job, place=Place(sweep.folder, sweep.launcher, visible_devices()))
    error = _launch(name, [*arguments, *_places(sweep, arguments, earlier)], task, sweep)
    if error is not None and sweep.launcher == "joblib":
        error = _relaunch(name, checked.sweep, error)
    conclude(checked.sweep, error=error)


def resume_sweep(name: str, arguments: Sequence[str]) -> None:
    """Run the jobs of a sweep that are missing, failed or were interrupted, each with its config.

    Args:
        name: Main config.
        arguments: Command line with ``-m`` and ``resume=<folder of the sweep>``; a launcher in it
            replaces the sweep's own.

    Raises:
        ConfigError: If another setting is given.
        RunError: If the folder is no sweep, or not all jobs finished.
    """
    overrides, _, _ = split_arguments(arguments)
    folder = Path(value_of("resume", overrides) or "")
    launcher = _launcher_words(overrides)
    others = [
        word
        for word in overrides
        if word not in launcher and not word.lstrip("+").startswith(("resume=", "trust="))
    ]
    if others:
        raise ConfigError(
            f"resume: expected no other settings than a launcher's, found {' '.join(others)}. "
            "Every job keeps its own config; leave them out or start a new sweep."
        )
    sweep = read_sweep(folder)
    if sweep.searches:
        raise ConfigError(
            f"{folder}: expected a sweep with a list of jobs, found a search, whose jobs follow "
            "from each other. Its study is kept: repeat its command with hydra.sweep.dir="
            f"{folder} to search on."
        )
    wanted = _unfinished(sweep)
    if not wanted:
        raise RunError(f"{folder}: expected unfinished jobs, found none. Nothing to do.")
    print(f"sweep {folder}: {len(wanted)} of {len(sweep.jobs)} jobs to run")
    trust = value_of("trust", overrides)
    error = _resume(name, sweep, wanted, launcher=launcher or _own_launcher(sweep), trust=trust)
    conclude(sweep, error=error)


def quoted(path: Path) -> str:
    """A path as a value on Hydra's command line, whatever characters are in it."""
    escaped = str(path).replace("\\", "\\\\").replace("'", "\\'")
    return f"'{escaped}'"


def _places(sweep: Sweep, arguments: Sequence[str], earlier: bool) -> list[str]:
    """Where Hydra puts the jobs; those of a search that goes on lie beside the earlier ones."""
    words = [f"hydra.sweep.dir={quoted(sweep.folder)}"]
    if earlier:
        number = len(list(sweep.folder.glob("*/status.json")))
        words.append(f"hydra.sweep.subdir='{number}_${{hydra.job.num}}'")
        if not any(word.endswith("/sampler=grid") for word in arguments):
            words.append(f"hydra.sweeper.sampler.seed={_NEW_DRAWS + number}")  # not the same again
    return words


def _announce(checked: Checked) -> None:
    sweep = checked.sweep
    jobs = _count(len(sweep.jobs), "setting" if sweep.searches else "job")
    print(
        f"sweep {sweep.folder}: checked {jobs}, {_count(checked.cohorts, 'cohort')} and "
        f"{_count(checked.networks, 'network')}; a step of the largest needs about "
        f"{in_words(checked.need.total)}"
    )
    for warning in checked.warnings:
        print(f"warning: {warning}.")
    print(f"best run: {sweep.rule}", flush=True)


def _count(number: int, thing: str) -> str:
    return f"{number} {thing}{'' if number == 1 else 's'}"


def _write_configs(checked: Checked) -> None:
    """Give every job its config now, so that one that never starts can be run later as it was."""
    for job, config in zip(checked.sweep.jobs, checked.configs, strict=True):
        folder = checked.sweep.folder / str(job.number) / ".hydra"
        folder.mkdir(parents=True, exist_ok=True)
        OmegaConf.save(config, folder / "config.yaml")
        OmegaConf.save(OmegaConf.create(list(job.overrides)), folder / "overrides.yaml")


def _launch(
    name: str, arguments: Sequence[str], task: Callable[[DictConfig], object], sweep: Sweep
) -> Exception | None:
    """Let Hydra run all jobs; what it or its launcher raises, such as a process that was killed."""
    try:
        with interruptible():
            start_hydra(name, arguments, task)
    except Exception as error:
        _log.debug("the launcher ended", exc_info=True)
        return error
    except BaseException:
        print(
            f"The sweep goes on with python -m glioma_xai.{name} -m resume={sweep.folder}",
            file=sys.stderr,
        )
        raise
    return None


def _unfinished(sweep: Sweep) -> list[Job]:
    return [
        job
        for job in sweep.jobs
        if read_status(sweep.folder / str(job.number)).get("state") != "finished"
    ]


def _launcher_words(words: Sequence[str]) -> list[str]:
    return [w for w in words if w.lstrip("+").startswith(("hydra.launcher.", "hydra/launcher="))]


def _own_launcher(sweep: Sweep) -> list[str]:
    """The launcher of a sweep's folder, which may come from elsewhere: nothing in it may run.

    Raises:
        ConfigError: If it has a setting that could.
    """
    words = _launcher_words(sweep.arguments)
    for word in words:
        key, _, value = word.lstrip("+").partition("=")
        known = key == "hydra/launcher" or key.removeprefix("hydra.launcher.") in _HARMLESS
        if not known or not re.fullmatch(r"[\w.-]*", value):
            raise ConfigError(
                f"{sweep.folder / PLAN}: expected a launcher's settings among "
                f"{', '.join(_HARMLESS)}, found {word}. If the sweep is yours, give its "
                "launcher and all settings of it on the command line."
            )
    return words


def _resume(
    name: str, sweep: Sweep, jobs: Sequence[Job], *, launcher: Sequence[str], trust: str | None
) -> Exception | None:
    """Run some jobs of a sweep through a launcher, in their own folders."""
    numbers = ",".join(str(job.number) for job in jobs)
    choice = next((w.split("=", 1)[1] for w in launcher if w.startswith("hydra/launcher=")), None)
    place = Place(sweep.folder, choice or "basic", visible_devices())
    task = partial(resumed_job, place=place, trust=trust)
    arguments = [
        "-m",
        f"+job={numbers}",
        *launcher,
        f"hydra.sweep.dir={quoted(sweep.folder / _ROUNDS)}",
        "hydra.sweep.subdir='../${job}'",
        "hydra.output_subdir=null",  # the job's config is there already
    ]
    return _launch(name, arguments, task, sweep)


def _relaunch(name: str, sweep: Sweep, error: Exception) -> Exception | None:
    """Joblib ends all its processes when one is killed: run what that left, the suspects last."""
    left, before = _interrupted(sweep), len(sweep.jobs) + 1
    last: Exception | None = error
    while last is not None and left and len(left) < before:
        _log.warning("a process of the sweep was killed (%s); %d jobs go on", last, len(left))
        before = len(left)
        words = _launcher_words(sweep.arguments)
        last = _resume(name, sweep, left, launcher=words, trust=_own_packages(sweep))
        left = _interrupted(sweep)
    return last


def _own_packages(sweep: Sweep) -> str:
    """What the command line of this very process named may be called again by it."""
    names: set[str] = set()
    for job in sweep.jobs:
        saved = OmegaConf.load(sweep.folder / str(job.number) / ".hydra" / "config.yaml")
        assert isinstance(saved, DictConfig)
        names.update(names_in(saved))
    return f"[{','.join(sorted(names))}]"


def _interrupted(sweep: Sweep) -> list[Job]:
    """Jobs that neither finished nor failed, those that never started first."""
    states = {job: read_status(sweep.folder / str(job.number)).get("state") for job in sweep.jobs}
    left = [job for job in sweep.jobs if states[job] not in {"finished", "failed"}]
    return sorted(left, key=lambda job: states[job] is not None)
