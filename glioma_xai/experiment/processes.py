"""The other processes of a run: watched, ended with the first, and named where one is lost."""

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Literal

import torch
from pytorch_lightning import Callback, LightningModule, Trainer
from pytorch_lightning.strategies.launchers import _SubprocessScriptLauncher

from glioma_xai.errors import RunError
from glioma_xai.experiment.signals import (
    MOMENT,
    Interrupted,
    is_first_process,
    listen,
    raise_what_was_heard,
)
from glioma_xai.records import Batch

State = Literal["running", "finished", "failed", "interrupted"]
_PATIENCE = 10.0
"""Seconds that the first process has to notice by itself that another one is gone."""


class Processes(Callback):
    """The processes of a run: those that Lightning starts for several devices, and data workers.

    Lightning answers SIGTERM by talking to all processes in the middle of whatever they do, which
    can hang, SLURM's SIGUSR1 with a checkpoint in mid-epoch, and the end of another process by
    killing the first one unheard. Here the first process alone decides, the last finished epoch
    counts, the others are ended with it, and it says which one was lost.

    Args:
        end_as: Called with the state and the error of a run whose first process hangs, waiting for
            one that is lost, and is ended.
    """

    def __init__(self, end_as: Callable[[State, BaseException], None]) -> None:
        self.end_as = end_as
        self.started: list[subprocess.Popen[bytes]] = []
        self.over = threading.Event()

    def take_over(self, trainer: Trainer) -> None:
        """Watch the processes that Lightning will start, in its place."""
        if not is_first_process():
            threading.Thread(target=_end_with, args=(os.getppid(),), daemon=True).start()
        launcher = trainer.strategy.launcher
        if not isinstance(launcher, _SubprocessScriptLauncher):
            return
        start = launcher._call_children_scripts

        def start_and_watch() -> None:
            start()
            self.started, launcher.procs = list(launcher.procs), []  # none for Lightning's watch
            threading.Thread(target=self._watch, daemon=True).start()

        launcher._call_children_scripts = start_and_watch  # type: ignore[method-assign]

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Take the signals back from Lightning."""
        if threading.current_thread() is threading.main_thread():
            listen()

    def on_train_batch_start(
        self, trainer: Trainer, pl_module: LightningModule, batch: Batch, batch_idx: int
    ) -> None:
        """Stop at the next step at the latest."""
        raise_what_was_heard()

    @contextmanager
    def losses_in_words(self) -> Iterator[None]:
        """Say it if a process that the run depends on is lost, or a device's memory is full.

        Raises:
            RunError: In place of what torch says of a closed connection, a worker or memory.
            Interrupted: If the process was ended by a signal that asks a run to stop.
        """
        try:
            yield
        except torch.OutOfMemoryError as error:
            raise RunError(
                f"the device's memory: expected room for a step, found: {str(error).strip()} Lower "
                "data.batch_size (trainer.accumulate_grad_batches makes up for it) or "
                "loss.guided_share. The run goes on with resume=<its folder> if it was only full."
            ) from error
        except RuntimeError as error:
            if "DataLoader worker" in str(error):
                raise RunError(
                    "data.num_workers: expected workers that live as long as the run, found: "
                    f"{str(error).strip()} Memory, mostly: lower data.num_workers, or give "
                    "/dev/shm more room. The run goes on with resume=<its folder>."
                ) from error
            gone = self.started and _of_a_connection(error)
            found = self._lost(wait=MOMENT) if gone else None
            if found is None:
                raise
            raise found from error
        finally:
            self.over.set()

    def _lost(self, *, wait: float = 0.0) -> RunError | Interrupted | None:
        """What to say of a process that ended before its time; None if there is none."""
        until = time.monotonic() + wait
        while True:
            for rank, process in enumerate(self.started, start=1):
                code = process.poll()
                if code in (-signal.SIGINT, -signal.SIGTERM):  # before it could listen
                    return Interrupted(-code)
                if code:
                    return RunError(
                        f"process {rank} of {len(self.started) + 1}: expected it to go on, found "
                        f"it ended {_how(code)}. What it said itself is above. The run goes on "
                        "with resume=<its folder>."
                    )
            if time.monotonic() >= until:
                return None
            time.sleep(0.05)

    def _watch(self) -> None:
        """End the run if a process is lost and this one hangs in waiting for it."""
        while not self.over.wait(1.0):
            found = self._lost()
            if found is not None and not self.over.wait(_PATIENCE):
                code = found.exit_code if isinstance(found, Interrupted) else 1
                self.end_as("failed" if code == 1 else "interrupted", found)
                print(f"{type(found).__name__}: {found}", file=sys.stderr, flush=True)
                self.end()  # the main thread is in a library and cannot be reached
                os._exit(code)

    def end(self) -> None:
        """End those that are still there, the last thing that a run does."""
        for process in self.started:
            if process.poll() is None:
                process.kill()

    def part(self) -> None:
        """Leave the group after training: what follows is the first process's work alone."""
        raise_what_was_heard()
        self.over.set()
        if torch.distributed.is_available() and torch.distributed.is_initialized():
            torch.distributed.destroy_process_group()


def _of_a_connection(error: RuntimeError) -> bool:
    """Whether it is what gloo and NCCL raise where another process is gone."""
    return isinstance(error, torch.distributed.DistError) or "gloo" in str(error).lower()


def _how(code: int) -> str:
    """How a process ended."""
    if code > 0:
        return f"with exit code {code}"
    return f"by {signal.Signals(-code).name}" + (" (memory, mostly)" if code == -9 else "")


def _end_with(parent: int) -> None:
    """End this process when the one that started it is gone, also from within a library."""
    while os.getppid() == parent:
        time.sleep(1.0)
    os._exit(1)
