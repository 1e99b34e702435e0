"""Signals to a run and its workers at any moment: all end, quietly, and it goes on."""

import os
import random
import signal
from pathlib import Path

import pytest

from tests.conftest import Cli
from tests.faults.runs import SMOKE, assert_ends_as, group_is_empty, start, state_of, wait_for

pytestmark = pytest.mark.faults


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_signal_to_the_run_and_its_workers(
    smoke_run: Path, shared_cache: Path, cli: Cli, tmp_path: Path, number: int, code: int
) -> None:
    folder = tmp_path / "run"
    process = start(
        shared_cache,
        *SMOKE,
        "data.num_workers=2",
        f"hydra.run.dir={folder}",
        start_new_session=True,
    )
    wait_for(folder / "checkpoints" / "last.ckpt", process)
    os.killpg(process.pid, number)  # as a terminal's Ctrl-C does
    _, errors = process.communicate()
    assert process.returncode == code
    assert "Traceback" not in errors
    assert state_of(folder) == "interrupted"
    assert group_is_empty(process)
    result = cli("train", f"resume={folder}")
    assert result.returncode == 0, result.stderr
    assert_ends_as(folder, smoke_run)  # workers change nothing


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_signal_at_any_moment_of_workers(
    shared_cache: Path, tmp_path: Path, number: int, code: int
) -> None:
    draw = random.Random(number)
    seconds = [f"{draw.uniform(0.2, 0.8):.3f}" for _ in range(20)]
    process = start(shared_cache, str(number), *seconds, module=("tests.faults.workers",))
    printed, _ = process.communicate(timeout=600)
    assert process.returncode == 0
    assert printed.splitlines() == [f"{code} stopped by {signal.Signals(number).name}"] * 20
