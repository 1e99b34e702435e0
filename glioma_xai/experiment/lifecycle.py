"""A run folder's state: status.json, which run it holds, one process at work, a full disk."""

import errno
import fcntl
import hashlib
import json
import logging
import math
import os
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from omegaconf import DictConfig, OmegaConf
from pytorch_lightning import Callback, LightningModule, Trainer

from glioma_xai.errors import GliomaXaiError, RunError
from glioma_xai.experiment.processes import State
from glioma_xai.experiment.signals import is_first_process

_log = logging.getLogger(__name__)
_PACKAGES = (
    "glioma-xai",
    "torch",
    "pytorch-lightning",
    "monai",
    "zennit",
    "hydra-core",
    "numpy",
    "wandb",
)
DISK_ERRORS = {errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EFBIG, errno.EACCES, errno.EPERM}
DISK_ERRORS |= {errno.ENOTDIR}


def write_json(path: Path, values: Mapping[str, object]) -> None:
    """Write a JSON file that is whole at any time: beside the target, flushed, then moved.

    NaN and infinity are written as null.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_name(f".{path.name}.{os.getpid()}.part")
    try:
        with part.open("w") as file:
            json.dump(_strict(values), file, indent=2, allow_nan=False, default=str)
            file.flush()
            os.fsync(file.fileno())
        part.replace(path)
    finally:
        part.unlink(missing_ok=True)


def _strict(value: object) -> object:
    """NaN and infinity become null: JSON has no word for them."""
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, Mapping):
        return {str(key): _strict(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_strict(item) for item in value]
    return value


def versions() -> dict[str, str]:
    """Releases of what a result depends on."""
    found = {}
    for package in _PACKAGES:
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            found[package] = "not installed"
    return found


class RunStatus:
    """Keeps ``status.json`` of a run; only the first of several processes writes it.

    Args:
        folder: The run's folder.
        config: The run's config, of which a digest is kept.
    """

    def __init__(self, folder: Path, config: DictConfig | None = None) -> None:
        self.path = folder / "status.json"
        self.values: dict[str, object] = {
            "state": "running",
            "started": _now(),
            "ended": None,
            "epoch": None,
            "error": None,
            "left_out": [],
            "warnings": [],
            "config": None if config is None else digest(config),
            "versions": versions(),
        }
        before = read_status(folder)
        self._before = float(str(before.get("seconds", 0.0)))
        self._began = time.monotonic()
        for key in ("started", "epoch", "warnings", "config"):  # a run that goes on keeps its own
            if key in before:
                self.values[key] = before[key]

    @property
    def seconds(self) -> float:
        """What the run has taken, all its parts together; of a killed one to its last epoch."""
        return round(self._before + time.monotonic() - self._began, 1)

    def update(self, **values: object) -> None:
        """Set some fields and write the file."""
        self.values |= {"seconds": self.seconds, **values}
        if is_first_process():
            write_json(self.path, self.values)

    def warn(self, words: str) -> None:
        """Say something about the run, and keep it in the file."""
        warnings = self.values["warnings"]
        assert isinstance(warnings, list)
        if words in warnings:
            return
        if is_first_process():
            _log.warning(words)
        self.update(warnings=[*warnings, words])

    def end(self, state: State, error: BaseException | None = None) -> None:
        """Write how the run ended, if the disk still takes it."""
        try:
            self.update(state=state, ended=_now(), error=None if error is None else str(error))
        except OSError as failure:
            print(  # a log on the same disk would only add an error of its own
                f"{self.path}: expected to write that the run is {state}, found "
                f"{failure.strerror}. The file says what was written last.",
                file=sys.stderr,
            )


def read_status(folder: Path) -> dict[str, object]:
    """Content of ``status.json``; empty if there is none, or none that can be read."""
    try:
        found = json.loads((folder / "status.json").read_text())
    except (OSError, ValueError):
        return {}
    return found if isinstance(found, dict) else {}


def digest(config: DictConfig) -> str:
    """A short text that differs between configs, whatever folder the run lies in."""
    plain = OmegaConf.to_container(config, resolve=False)
    return hashlib.sha256(json.dumps(plain, sort_keys=True, default=str).encode()).hexdigest()[:16]


def goes_on(folder: Path, config: DictConfig) -> bool:
    """Whether a folder holds an unfinished run of this very config, as after a requeue.

    Raises:
        RunError: If it holds a finished run, or one with another config.
    """
    status = read_status(folder)
    if not status:
        return False
    if status.get("state") == "finished" or status.get("config") != digest(config):
        what = "finished" if status.get("state") == "finished" else "with another config"
        raise RunError(
            f"{folder}: expected a new folder or an unfinished run of this config, found a run "
            f"{what}. Choose another hydra.run.dir."
        )
    return True


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="seconds")


class StatusEpoch(Callback):
    """Writes the number of the last finished epoch into ``status.json``.

    Args:
        status: The run's status.
    """

    def __init__(self, status: RunStatus) -> None:
        self.status = status

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """One more epoch is done."""
        self.status.update(epoch=trainer.current_epoch)


@contextmanager
def alone_in(folder: Path) -> Iterator[None]:
    """Hold a run's folder, so that no second process goes on with a run that is still going on.

    Raises:
        RunError: If another process holds it.
    """
    if not is_first_process():
        yield
        return
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / ".lock").open("w") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)  # released when the process ends
        except BlockingIOError as error:
            raise RunError(
                f"{folder}: expected a run that nobody is at work on, found another process that "
                "is. Wait for it or stop it."
            ) from error
        except OSError:
            _log.debug("%s: the file system has no locks.", folder)
        yield


@contextmanager
def disk_in_words(folder: Path) -> Iterator[None]:
    """Say it as a user's matter if the disk is full or a folder cannot be written.

    Raises:
        RunError: In place of the operating system's error.
    """
    try:
        yield
    except GliomaXaiError:
        raise
    except (OSError, RuntimeError) as error:
        cause = disk_error(error)
        if cause is None:
            raise
        raise RunError(
            f"{cause.filename or folder}: expected a place that can be written to, found "
            f"{cause.strerror}. Make room or make it writable; the run goes on with "
            f"resume={folder}."
        ) from error


def disk_error(error: BaseException | None) -> OSError | None:
    """The error of a disk behind an error, such as the RuntimeError of torch's writer."""
    while error is not None:
        if isinstance(error, OSError) and error.errno in DISK_ERRORS:
            return error
        if "iostream error" in str(error) or "PytorchStreamWriter failed writing" in str(error):
            return OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))  # it keeps no number
        error = error.__cause__ or error.__context__
    return None
