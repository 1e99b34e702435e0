"""Checkpoints that survive a crash: whole or absent, the one before kept, nothing in them runs."""

import logging
import os
from pathlib import Path
from typing import Any

import torch
from pytorch_lightning.plugins.io import TorchCheckpointIO

from glioma_xai.errors import RunError

LAST, PREVIOUS, BEST = "last", "previous", "best"
_log = logging.getLogger(__name__)


class AtomicCheckpointIO(TorchCheckpointIO):
    """Writes beside the target, flushes, then moves; ``last.ckpt`` becomes ``previous.ckpt``."""

    def save_checkpoint(
        self, checkpoint: dict[str, Any], path: str | Path, storage_options: object = None
    ) -> None:
        """Save.

        Raises:
            RunError: If it cannot be written; the checkpoints that are there stay as they are.
        """
        target = Path(path)
        part = target.with_name(f".{target.name}.{os.getpid()}.part")
        try:
            target.parent.mkdir(parents=True, exist_ok=True)
            with part.open("wb") as file:
                torch.save(checkpoint, file)
                file.flush()
                os.fsync(file.fileno())
            if target.stem == LAST and target.is_file():
                target.replace(target.with_stem(PREVIOUS))
            part.replace(target)
        except (OSError, RuntimeError) as error:  # torch's writer raises RuntimeError
            raise RunError(
                f"{target}: expected a folder that a checkpoint can be written to, found "
                f"{_cause(error)}. Make room or make it writable; the run goes on from its last "
                "whole checkpoint with resume=<its folder>."
            ) from error
        finally:
            part.unlink(missing_ok=True)


def _cause(error: BaseException) -> str:
    """The operating system's word for it, where there is one behind torch's."""
    seen: BaseException | None = error
    while seen is not None:
        if isinstance(seen, OSError) and seen.strerror:
            return seen.strerror
        seen = seen.__cause__ or seen.__context__
    return str(error).splitlines()[0]


def load_checkpoint(run: Path, *, name: str = BEST) -> dict[str, Any]:
    """Read a run's checkpoint, tensors and plain values only.

    Args:
        run: The run's folder.
        name: ``best``, ``last`` or ``previous``.

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
        checkpoint = torch.load(path, map_location="cpu", weights_only=True)
        assert isinstance(checkpoint, dict)
    except Exception as error:  # torch raises many kinds for a broken file
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise RunError(
            f"{path}: expected a whole checkpoint of tensors and plain values, found one that "
            f"cannot be read ({reason}). Use the other checkpoint or train again."
        ) from error
    return checkpoint


def to_go_on_from(run: Path) -> Path | None:
    """The newest whole checkpoint of a run that was stopped; None before its first epoch.

    If ``last.ckpt`` cannot be read the one before it is taken, and that is said.

    Raises:
        RunError: If there are checkpoints but none can be read, or the best epoch is lost.
    """
    folder = run / "checkpoints"
    for part in folder.rglob("*.part"):
        part.unlink()  # of a process that was killed while it wrote
    there = [name for name in (LAST, PREVIOUS) if (folder / f"{name}.ckpt").is_file()]
    problems: list[RunError] = []
    for name in there:
        try:
            epoch = load_checkpoint(run, name=name)["epoch"]
        except RunError as error:
            problems.append(error)
            continue
        if name == PREVIOUS:
            reason = f"{problems[0]}" if problems else f"{folder / 'last.ckpt'} is missing."
            _log.warning("%s Going on from previous.ckpt, epoch %d.", reason, epoch)
        _require_best(run)
        return folder / f"{name}.ckpt"
    if problems:
        raise RunError(f"{problems[0]} {_START_AGAIN.format(folder=folder)}")
    return None


def forget_previous(run: Path) -> None:
    """Remove the checkpoint before the last one, which a finished run has no use for."""
    (run / "checkpoints" / f"{PREVIOUS}.ckpt").unlink(missing_ok=True)


def _require_best(run: Path) -> None:
    try:
        load_checkpoint(run)
    except RunError as error:
        folder = run / "checkpoints"
        raise RunError(f"{error} {_START_AGAIN.format(folder=folder)}") from error


_START_AGAIN = (
    "Or remove {folder} and resume: the run repeats its epochs and ends as it would have."
)
