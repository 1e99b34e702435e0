"""Signals become exit codes, whatever they interrupt and whichever of its traces comes first."""

import os
import signal
import subprocess
import sys
import threading
import time
from types import SimpleNamespace

import pytest

from glioma_xai.errors import RunError
from glioma_xai.experiment import signals
from glioma_xai.experiment.launch import run_command
from glioma_xai.experiment.processes import Processes
from glioma_xai.experiment.signals import Interrupted, interruptible


def unheard(state: str, error: BaseException) -> None:
    pytest.fail(f"{state}: {error}")


LOST = "DataLoader worker (pid 7) is killed by signal: Terminated. "


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_signals_become_exit_codes(number: int, code: int) -> None:
    def work() -> None:
        with interruptible():
            signal.raise_signal(number)

    before = signal.getsignal(number), sys.unraisablehook
    assert run_command(work) == code
    assert (signal.getsignal(number), sys.unraisablehook) == before


class Deaf:
    """Python drops what is raised here."""

    def __del__(self) -> None:
        signal.raise_signal(signal.SIGTERM)


def test_a_signal_that_python_drops_comes_again(capfd: pytest.CaptureFixture[str]) -> None:
    def work() -> None:
        with interruptible():
            deaf = Deaf()
            del deaf
            time.sleep(10)

    assert run_command(work) == 143
    assert "Traceback" not in capfd.readouterr().err


class HalfBuilt:
    """A signal came before it had all that it cleans up; so do torch's iterators over workers."""

    def __init__(self) -> None:
        signal.raise_signal(signal.SIGINT)
        self.workers: list[int] = []

    def __del__(self) -> None:
        self.workers.clear()


def test_what_a_signal_left_half_built_goes_quietly(monkeypatch: pytest.MonkeyPatch) -> None:
    def work() -> None:
        with interruptible():
            HalfBuilt()

    said: list[object] = []
    monkeypatch.setattr(sys, "unraisablehook", said.append)
    assert run_command(work) == 130
    assert said == []


class Waiting:
    """Its lock was taken when the signal came, and is not given back."""

    def __init__(self) -> None:
        self.lock = threading.Lock()

    def __del__(self) -> None:
        self.lock.acquire()


@pytest.mark.parametrize("held_by_the_trace", [True, False])
def test_what_a_signal_left_locked_is_told_again(
    monkeypatch: pytest.MonkeyPatch, held_by_the_trace: bool
) -> None:
    def hold() -> None:
        waiting = Waiting()
        waiting.lock.acquire()
        try:
            signal.raise_signal(signal.SIGTERM)
        finally:
            if not held_by_the_trace:
                del waiting

    def work() -> None:
        with interruptible():
            hold()

    monkeypatch.setattr(signals, "AGAIN", 0.2)
    before = signal.getsignal(signal.SIGALRM)
    assert run_command(work) == 143
    assert signal.getitimer(signal.ITIMER_REAL) == (0.0, 0.0)
    assert signal.getsignal(signal.SIGALRM) == before


def test_what_fails_because_of_a_signal_is_the_signal() -> None:
    def work() -> None:
        with interruptible():
            try:
                signal.raise_signal(signal.SIGINT)
            except Interrupted:
                raise RuntimeError(LOST) from None

    assert run_command(work) == 130
    with pytest.raises(RuntimeError, match="another"), interruptible():
        raise RuntimeError("another")  # nothing is left of it


def test_a_worker_may_die_of_the_signal_before_the_run_hears_it() -> None:
    def work() -> None:
        with interruptible():
            threading.Timer(0.3, os.kill, (os.getpid(), signal.SIGTERM)).start()
            raise RuntimeError(LOST)

    assert run_command(work) == 143


def test_a_worker_that_dies_alone_is_named() -> None:
    processes = Processes(unheard)
    with (
        pytest.raises(RunError, match=r"data\.num_workers: expected .* killed by signal: Termin"),
        interruptible(),
        processes.losses_in_words(),
    ):
        raise RuntimeError(LOST)


def test_a_process_that_is_lost_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    launcher = Launcher()
    monkeypatch.setattr(
        "glioma_xai.experiment.processes._SubprocessScriptLauncher", Launcher, raising=True
    )
    processes = Processes(unheard)
    processes.take_over(SimpleNamespace(strategy=SimpleNamespace(launcher=launcher)))  # type: ignore[arg-type]
    launcher._call_children_scripts()
    assert launcher.procs == []  # Lightning's watch has nothing to see
    processes.started[0].kill()
    message = r"process 1 of 2: expected it to go on, found it ended by SIGKILL \(memory, mostly\)"
    with pytest.raises(RunError, match=message), processes.losses_in_words():
        raise RuntimeError("[gloo/transport/tcp/pair.cc:547] Connection closed by peer [::1]:1")


@pytest.mark.parametrize(
    ("script", "code", "state", "words"),
    [
        ("exit 3", 1, "failed", "process 1 of 3: expected it to go on, found it ended with exit"),
        ("kill -TERM $$", 143, "interrupted", "stopped by SIGTERM"),
    ],
)
def test_a_run_that_hangs_without_its_other_process_ends(
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    script: str,
    code: int,
    state: str,
    words: str,
) -> None:
    monkeypatch.setattr("glioma_xai.experiment.processes._PATIENCE", 0.1)
    said: list[tuple[str, BaseException]] = []
    codes: list[int] = []
    processes = Processes(lambda state, error: said.append((state, error)))
    monkeypatch.setattr(os, "_exit", lambda code: (codes.append(code), processes.over.set()))
    for command in (["sh", "-c", script], ["sleep", "60"]):
        processes.started.append(subprocess.Popen(command))
    processes._watch()
    assert codes == [code]
    assert said[0][0] == state
    assert words in str(said[0][1])
    assert f": {said[0][1]}" in capsys.readouterr().err
    assert processes.started[1].wait(10) == -signal.SIGKILL


class Launcher:
    """Starts a process as Lightning's does."""

    procs: list["subprocess.Popen[bytes]"]

    def _call_children_scripts(self) -> None:
        self.procs = [subprocess.Popen(["sleep", "60"])]


def test_other_errors_of_a_run_with_processes_stay_what_they_are() -> None:
    processes = Processes(unheard)
    with pytest.raises(RuntimeError, match=r"^of ours$"), processes.losses_in_words():
        raise RuntimeError("of ours")
