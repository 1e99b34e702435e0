"""From a command line to exit codes: compose and check first, then let Hydra run the jobs."""

import itertools
import math
import os
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

import hydra
from hydra._internal.core_plugins.basic_sweeper import BasicSweeper
from hydra.core.override_parser.overrides_parser import OverridesParser
from omegaconf import DictConfig, OmegaConf

from glioma_xai.config import check_config, compose_config, conf_dir
from glioma_xai.errors import ConfigError, GliomaXaiError
from glioma_xai.experiment.lifecycle import DISK_ERRORS
from glioma_xai.experiment.processes import Interrupted

_MULTIRUN = {"-m", "--multirun"}


def run_command(work: Callable[[], None]) -> int:
    """Do the work of an entry script and say how it ended as an exit code.

    A user's mistake is one message without traceback: 1 if the work failed, 2 if the command line
    or the config is wrong, 130 and 143 after SIGINT and SIGTERM.
    """
    try:
        work()
    except ConfigError as error:
        print(f"ConfigError: {error}", file=sys.stderr)
        return 2
    except GliomaXaiError as error:
        print(f"{type(error).__name__}: {error}", file=sys.stderr)
        return 1
    except Interrupted as error:
        print(f"{error}. A run goes on with resume=<its folder>.", file=sys.stderr)
        return error.exit_code
    except OSError as error:
        if error.errno not in DISK_ERRORS:
            raise
        print(
            f"OSError: {error.filename}: expected a place that can be written to, found "
            f"{error.strerror}. Choose another folder with paths.root=<folder>.",
            file=sys.stderr,
        )
        return 1
    except KeyboardInterrupt:
        return 130
    return 0


def split_arguments(arguments: Sequence[str]) -> tuple[list[str], list[str], bool]:
    """Overrides, folders after ``--config-dir``, and whether this is a multirun."""
    overrides: list[str] = []
    folders: list[str] = []
    words = iter(arguments)
    for word in words:
        if word in {"--config-dir", "-cd"}:
            folders.append(next(words, ""))
        elif word.startswith("--config-dir="):
            folders.append(word.split("=", 1)[1])
        elif not word.startswith("-"):
            overrides.append(word)
    return overrides, folders, any(word in _MULTIRUN for word in arguments)


def value_of(key: str, overrides: Sequence[str]) -> str | None:
    """Raw text of an override, so that an id such as ``2013_001`` stays what it is."""
    for word in overrides:
        name, sign, value = word.partition("=")
        if sign and name.lstrip("+") == key:
            return value.strip("'\"")
    return None


def names_of(text: str | None) -> list[str]:
    """Names in a list such as ``[a,b]``; none for nothing."""
    return [name.strip() for name in (text or "").strip("[]").split(",") if name.strip()]


def jobs_of(overrides: Sequence[str], config: DictConfig) -> list[list[str]]:
    """The overrides of every job of a multirun, as the basic sweeper would make them."""
    parser = OverridesParser.create()
    params = OmegaConf.select(config, "hydra.sweeper.params") or {}
    given = {word.partition("=")[0] for word in overrides}
    swept = [f"{key}={value}" for key, value in params.items() if key not in given]
    batches = BasicSweeper.split_arguments(parser.parse_overrides([*overrides, *swept]), None)
    return [list(job) for job in itertools.chain.from_iterable(batches)]


def check_jobs(name: str, arguments: Sequence[str]) -> None:
    """Compose and check every job before the first one starts.

    Raises:
        ConfigError: For the first job that is wrong.
    """
    overrides, folders, multirun = split_arguments(arguments)
    jobs = [overrides]
    if multirun:
        single = [word for word in overrides if "," not in word.partition("=")[2] or "[" in word]
        jobs = jobs_of(overrides, compose_config(name, single, config_dirs=folders, hydra=True))
    for job in jobs:
        config = compose_config(name, job, config_dirs=folders)
        config.paths.run = "runs/run"  # Hydra knows it once the job has started
        check_config(config)


def run_jobs(name: str, arguments: Sequence[str], job: Callable[[DictConfig], float]) -> None:
    """Check everything, then hand the command line to Hydra.

    Args:
        name: Main config.
        arguments: Command line without the program.
        job: Does one run; its number is what a sweeper optimises.
    """
    if not {"--help", "-h", "--hydra-help", "--info", "-i", "--cfg", "-c"} & set(arguments):
        check_jobs(name, arguments)
    os.environ["HYDRA_FULL_ERROR"] = "1"  # exceptions reach run_command instead of sys.exit
    sys.argv = [sys.argv[0], *arguments]
    failures: list[GliomaXaiError] = []

    def quiet(config: DictConfig) -> float:
        try:
            return job(config)
        except GliomaXaiError as error:
            if split_arguments(arguments)[2]:
                raise  # a job of a multirun: Hydra must know that it failed
            failures.append(error)  # raised below, without Hydra's own lines about it
            return math.nan

    hydra.main(version_base="1.3", config_path=str(conf_dir()), config_name=name)(quiet)()
    if failures:
        raise failures[0]


def folder_of(text: str | None, *, key: str, command: str) -> Path:
    """The run folder that a command names.

    Raises:
        ConfigError: If it is not given.
    """
    if not text:
        raise ConfigError(
            f"{key}: expected a run folder, found nothing. Use python -m glioma_xai.{command} "
            f"{key}=runs/<experiment>/<date>."
        )
    return Path(text)
