"""What a run's processes are told: signals from outside, and the end by the first of them."""

import logging
import os
import signal
import subprocess
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

import torch
from pytorch_lightning import Callback, LightningModule, Trainer
from pytorch_lightning.utilities import rank_zero_only

from glioma_xai.records import Batch

_log = logging.getLogger(__name__)


class Interrupted(BaseException):
    """A signal asked the run to stop; the last finished epoch is saved.

    Args:
        number: Of the signal.
    """

    def __init__(self, number: int) -> None:
        super().__init__(f"stopped by {signal.Signals(number).name}")
        self.number = number
        self.exit_code = 128 + number
        self.asks_for_requeue = number == signal.SIGUSR1

    def __reduce__(self) -> tuple[type["Interrupted"], tuple[int]]:
        """A launcher's process hands it to the one that waits."""
        return type(self), (self.number,)


def is_first_process() -> bool:
    """Whether this process writes for a run that may have several."""
    return int(getattr(rank_zero_only, "rank", None) or 0) == 0


def _signals() -> list[signal.Signals]:
    requeue = [signal.SIGUSR1] if "SLURM_JOB_ID" in os.environ else []
    return [signal.SIGINT, signal.SIGTERM, *requeue]


_heard: list[int] = []  # Python drops what is raised while it cleans up an object


def _raise_what_was_heard() -> None:
    if _heard:
        raise Interrupted(_heard[0])


def _install() -> None:
    listener = os.getpid()

    def catch(number: int, frame: FrameType | None) -> None:
        if os.getpid() == listener:
            _heard.append(number)
            raise Interrupted(number)
        if number == signal.SIGTERM:  # a worker that was forked: Ctrl-C is its parent's matter
            signal.signal(number, signal.SIG_DFL)
            os.kill(os.getpid(), number)

    for number in _signals():
        signal.signal(number, catch if is_first_process() else signal.SIG_IGN)


@contextmanager
def interruptible() -> Iterator[None]:
    """Turn SIGINT, SIGTERM and SLURM's SIGUSR1 into :class:`Interrupted` while a run is going on.

    Of a run's several processes only the first listens; it ends the others.
    """
    if threading.current_thread() is not threading.main_thread():
        yield  # a launcher's thread: Python lets only the main one listen
        return
    before = {number: signal.getsignal(number) for number in _signals()}
    try:
        _heard.clear()
        _install()
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


class Processes(Callback):
    """The processes that Lightning starts for a run on several devices.

    Lightning answers SIGTERM by talking to all processes in the middle of whatever they do, which
    can hang, and SLURM's SIGUSR1 with a checkpoint in mid-epoch; here the first process alone
    decides, the last finished epoch counts, and the others are ended with it.
    """

    def __init__(self) -> None:
        self.started: list[subprocess.Popen[bytes]] = []

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Take the signals back from Lightning."""
        self.started = list(getattr(trainer.strategy.launcher, "procs", []))
        if threading.current_thread() is threading.main_thread():
            _install()

    def on_train_batch_start(
        self, trainer: Trainer, pl_module: LightningModule, batch: Batch, batch_idx: int
    ) -> None:
        """Stop at the next step at the latest."""
        _raise_what_was_heard()

    def end(self) -> None:
        """End those that are still there, the last thing that a run does."""
        for process in self.started:
            if process.poll() is None:
                process.kill()

    @staticmethod
    def part() -> None:
        """Leave the group after training: what follows is the first process's work alone."""
        _raise_what_was_heard()
        if torch.distributed.is_available() and torch.distributed.is_initialized():
            torch.distributed.destroy_process_group()


def requeue() -> None:
    """Ask SLURM to start this job again; the same command then goes on in the same folder."""
    job = os.environ["SLURM_JOB_ID"]
    if "SLURM_ARRAY_JOB_ID" in os.environ:
        job = f"{os.environ['SLURM_ARRAY_JOB_ID']}_{os.environ['SLURM_ARRAY_TASK_ID']}"
    try:
        subprocess.run(["scontrol", "requeue", job], check=True)
    except (OSError, subprocess.CalledProcessError) as error:
        _log.warning("SLURM did not requeue job %s (%s). Submit it again.", job, error)
