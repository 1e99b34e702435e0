"""What a run is told from outside: signals, whatever they interrupt."""

import logging
import os
import signal
import subprocess
import sys
import threading
import time
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from functools import partial
from multiprocessing.util import register_after_fork
from types import FrameType, TracebackType

from pytorch_lightning.utilities import rank_zero_only

_log = logging.getLogger(__name__)
MOMENT = 2.0
"""Seconds in which a signal to a group, or the end of a process, has reached all others."""
AGAIN = 10.0
"""Seconds after which a signal comes again, to what it left waiting for a lock."""


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


_heard: list[int] = []


def raise_what_was_heard() -> None:
    """Stop now, if a signal has asked for it and what it raised was dropped."""
    if _heard:
        raise Interrupted(_heard[0])


def listen() -> None:
    """Take the signals, also back from a library that has taken them."""
    listener = os.getpid()

    def catch(number: int, frame: FrameType | None) -> None:
        if os.getpid() == listener:
            signal.signal(signal.SIGCHLD, _let_workers_die)
            if is_first_process():
                _heard.append(number)
                _remind(after=AGAIN)
                raise Interrupted(number)
        elif number == signal.SIGTERM:  # a worker that was forked: Ctrl-C is its parent's matter
            signal.signal(number, signal.SIG_DFL)
            os.kill(os.getpid(), number)

    for number in _signals():
        signal.signal(number, catch)
    signal.signal(signal.SIGALRM, _be_reminded)


def _let_workers_die(number: int, frame: FrameType | None) -> None:
    """In the place of torch's handler, which raises for a worker that got the same signal."""


class _Workers:
    """As long as it lives, workers that are forked leave quietly."""


def _leave_quietly(_: _Workers) -> None:
    """A worker whose run is gone while it hands over a batch has nothing to say."""
    show = sys.excepthook

    def say(kind: type[BaseException], error: BaseException, trace: TracebackType | None) -> None:
        if not issubclass(kind, ConnectionError | EOFError):
            show(kind, error, trace)

    sys.excepthook = say


def _raise_again(
    show: Callable[["sys.UnraisableHookArgs"], object], dropped: "sys.UnraisableHookArgs"
) -> None:
    """Python drops what is raised while it forks or cleans up: the signal comes once more."""
    if not _heard:
        show(dropped)
    elif issubclass(dropped.exc_type, Interrupted):
        _remind(after=0.1)


def _remind(*, after: float) -> None:
    signal.setitimer(signal.ITIMER_REAL, after, AGAIN)


def _be_reminded(number: int, frame: FrameType | None) -> None:
    raise_what_was_heard()


def _free_locals(error: BaseException | None) -> None:
    """What a signal left half built complains as it goes: here, where nobody is told."""
    while error is not None:
        with suppress(Interrupted):
            traceback.clear_frames(error.__traceback__)
        error = error.__cause__ or error.__context__


@contextmanager
def interruptible() -> Iterator[None]:
    """Turn SIGINT, SIGTERM and SLURM's SIGUSR1 into :class:`Interrupted` while a run is going on.

    Whatever else is raised once a signal was heard counts as the same, and so does a worker that
    was lost just before: a signal to all processes of a group reaches each in its own time. Of a
    run's several processes only the first stops; it ends the others.
    """
    if threading.current_thread() is not threading.main_thread():
        yield  # a launcher's thread: Python lets only the main one listen
        return
    before = {number: signal.getsignal(number) for number in [*_signals(), signal.SIGALRM]}
    register_after_fork(workers := _Workers(), _leave_quietly)
    hook, sys.unraisablehook = sys.unraisablehook, partial(_raise_again, sys.unraisablehook)
    try:
        listen()
        yield
        raise_what_was_heard()
    except Exception as error:
        if "DataLoader worker" in str(error):
            time.sleep(MOMENT)  # a signal ends it with Interrupted
        raise_what_was_heard()
        raise
    finally:
        if _heard:
            _free_locals(sys.exception())
            _remind(after=0)  # no more
        del workers
        _heard.clear()
        sys.unraisablehook = hook
        for number, handler in before.items():
            signal.signal(number, handler)


def requeue() -> None:
    """Ask SLURM to start this job again; the same command then goes on in the same folder."""
    job = os.environ["SLURM_JOB_ID"]
    if "SLURM_ARRAY_JOB_ID" in os.environ:
        job = f"{os.environ['SLURM_ARRAY_JOB_ID']}_{os.environ['SLURM_ARRAY_TASK_ID']}"
    try:
        subprocess.run(["scontrol", "requeue", job], check=True)
    except (OSError, subprocess.CalledProcessError) as error:
        _log.warning("SLURM did not requeue job %s (%s). Submit it again.", job, error)
