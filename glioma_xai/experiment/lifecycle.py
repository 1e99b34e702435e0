"""A run folder's state: status.json, checkpoints that survive a crash, signals."""

import json
import math
import os
import signal
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from types import FrameType
from typing import Any, Literal

import torch
from pytorch_lightning import Callback, LightningModule, Trainer
from pytorch_lightning.plugins.io import TorchCheckpointIO

from glioma_xai.errors import RunError

State = Literal["running", "finished", "failed", "interrupted"]
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


class Interrupted(BaseException):
    """A signal asked the run to stop; the last finished epoch is saved.

    Args:
        number: Of the signal.
    """

    def __init__(self, number: int) -> None:
        super().__init__(f"stopped by {signal.Signals(number).name}")
        self.exit_code = 128 + number


def write_json(path: Path, values: Mapping[str, object]) -> None:
    """Write a JSON file that is whole at any time: beside the target, flushed, then moved.

    NaN and infinity are written as null.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_name(f".{path.name}.{os.getpid()}.part")
    with part.open("w") as file:
        json.dump(_strict(values), file, indent=2, allow_nan=False, default=str)
        file.flush()
        os.fsync(file.fileno())
    part.replace(path)


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
    """Keeps ``status.json`` of a run.

    Args:
        folder: The run's folder.
    """

    def __init__(self, folder: Path) -> None:
        self.path = folder / "status.json"
        self.values: dict[str, object] = {
            "state": "running",
            "started": _now(),
            "ended": None,
            "epoch": None,
            "error": None,
            "left_out": [],
            "versions": versions(),
        }
        if self.path.is_file():  # a run that goes on keeps its beginning
            self.values["started"] = json.loads(self.path.read_text()).get("started")

    def update(self, **values: object) -> None:
        """Set some fields and write the file."""
        self.values |= values
        write_json(self.path, self.values)

    def end(self, state: State, error: BaseException | None = None) -> None:
        """Write how the run ended."""
        self.update(state=state, ended=_now(), error=None if error is None else str(error))


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="seconds")


class StatusEpoch(Callback):
    """Writes the number of finished epochs into ``status.json``.

    Args:
        status: The run's status.
    """

    def __init__(self, status: RunStatus) -> None:
        self.status = status

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """One more epoch is done."""
        if trainer.is_global_zero:
            self.status.update(epoch=trainer.current_epoch)


class AtomicCheckpointIO(TorchCheckpointIO):
    """Checkpoints that are whole or absent: written beside the target, flushed, then moved."""

    def save_checkpoint(
        self, checkpoint: dict[str, Any], path: str | Path, storage_options: object = None
    ) -> None:
        """Save; a full disk leaves the previous checkpoint as it was."""
        target = Path(path)
        target.parent.mkdir(parents=True, exist_ok=True)
        part = target.with_name(f".{target.name}.{os.getpid()}.part")
        try:
            with part.open("wb") as file:
                torch.save(checkpoint, file)
                file.flush()
                os.fsync(file.fileno())
            part.replace(target)
        finally:
            part.unlink(missing_ok=True)


def load_checkpoint(run: Path, *, name: str = "best") -> dict[str, Any]:
    """Read a run's checkpoint, tensors and plain values only.

    Args:
        run: The run's folder.
        name: ``best`` or ``last``.

    Raises:
        RunError: If it is missing, cut off, or holds anything that could run code.
    """
    path = run / "checkpoints" / f"{name}.ckpt"
    if not path.is_file():
        raise RunError(
            f"{run}: expected checkpoints/{name}.ckpt, found none. The run has not finished an "
            "epoch, or this is not a run folder."
        )
    try:
        checkpoint: dict[str, Any] = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # torch raises many kinds for a broken file
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise RunError(
            f"{path}: expected a whole checkpoint of tensors and plain values, found one that "
            f"cannot be read ({reason}). Use the other checkpoint or train again."
        ) from error
    return checkpoint


@contextmanager
def interruptible() -> Iterator[None]:
    """Turn SIGINT and SIGTERM into :class:`Interrupted` while a run is going on."""

    def stop(number: int, frame: FrameType | None) -> None:
        raise Interrupted(number)

    before = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        for number in before:
            signal.signal(number, stop)
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
