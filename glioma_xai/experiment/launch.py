"""From a command line to exit codes: compose and check first, then let Hydra run the jobs."""

import math
import os
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

import hydra
from omegaconf import DictConfig

from glioma_xai.config import check_config, compose_config, conf_dir
from glioma_xai.errors import ConfigError, GliomaXaiError
from glioma_xai.experiment.lifecycle import DISK_ERRORS
from glioma_xai.experiment.signals import Interrupted

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


def run_jobs(name: str, arguments: Sequence[str], job: Callable[[DictConfig], object]) -> None:
    """Check the config, then hand the command line to Hydra for a single job.

    Args:
        name: Main config.
        arguments: Command line without the program.
        job: Does the run.

    Raises:
        ConfigError: If the config is wrong; nothing has been started then.
    """
    if not asks_only(arguments):
        overrides, folders, _ = split_arguments(arguments)
        config = compose_config(name, overrides, config_dirs=folders)
        config.paths.run = "runs/run"  # Hydra knows it once the job has started
        check_config(config)
    failures: list[GliomaXaiError] = []

    def quiet(config: DictConfig) -> object:
        try:
            return job(config)
        except GliomaXaiError as error:
            failures.append(error)  # raised below, without Hydra's own lines about it
            return math.nan

    start_hydra(name, arguments, quiet)
    if failures:
        raise failures[0]


def asks_only(arguments: Sequence[str]) -> bool:
    """Whether a command line asks Hydra for help or for the config, and runs nothing."""
    return bool({"--help", "-h", "--hydra-help", "--info", "-i", "--cfg", "-c"} & set(arguments))


def start_hydra(name: str, arguments: Sequence[str], task: Callable[[DictConfig], object]) -> None:
    """Let Hydra run a command line: one job, or all jobs of a multirun.

    Args:
        name: Main config.
        arguments: Command line without the program.
        task: Does one job.
    """
    os.environ["HYDRA_FULL_ERROR"] = "1"  # exceptions reach run_command instead of sys.exit
    sys.argv = [sys.argv[0], *arguments]
    if not asks_only(arguments):  # argparse refuses overrides before and after an option
        overrides, _, _ = split_arguments(arguments)
        sys.argv[1:] = [*(word for word in arguments if word not in overrides), *overrides]
    hydra.main(version_base="1.3", config_path=str(conf_dir()), config_name=name)(task)()


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
