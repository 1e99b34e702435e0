"""kill -9 at any time: the run goes on and ends as if nothing had happened, bit for bit."""

import json
import random
import signal
import time
from pathlib import Path

import pytest
import torch

from tests.conftest import Cli
from tests.faults.runs import SMOKE, assert_ends_as, start, state_of

pytestmark = pytest.mark.faults


@pytest.mark.parametrize("seed", [0, 1])
def test_kills_at_random_times(
    smoke_run: Path, shared_cache: Path, cli: Cli, tmp_path: Path, seed: int
) -> None:
    folder = tmp_path / "run"
    draw = random.Random(seed)
    whole = json.loads((smoke_run / "summary.json").read_text())["wall_seconds"]
    longest = whole / 2  # it may have been measured on a busier machine; later starts go on later
    killed = 0
    for _ in range(4):
        resumes = (folder / "status.json").exists()
        arguments = [f"resume={folder}"] if resumes else [*SMOKE, f"hydra.run.dir={folder}"]
        before = (folder / "status.json").stat().st_mtime_ns if resumes else 0
        process = start(shared_cache, *arguments)
        while process.poll() is None and not (
            (folder / "status.json").exists()
            and (folder / "status.json").stat().st_mtime_ns > before
        ):
            time.sleep(0.01)
        time.sleep(draw.uniform(0, longest))
        process.send_signal(signal.SIGKILL)
        killed += process.wait(60) == -signal.SIGKILL
        process.communicate()
        if state_of(folder) == "finished":
            break
    assert killed
    if state_of(folder) != "finished":
        result = cli("train", f"resume={folder}")
        assert result.returncode == 0, result.stderr
    assert_ends_as(folder, smoke_run)


@pytest.mark.parametrize(
    ("fault", "left", "said"),
    [
        ("half:1", None, ""),
        ("half:2", 0, ""),
        ("between:1", None, "last.ckpt is missing. Going on from previous.ckpt, epoch 0"),
        ("between:2", None, "last.ckpt is missing. Going on from previous.ckpt, epoch 1"),
    ],
)
def test_kills_in_the_middle_of_a_checkpoint(
    smoke_run: Path,
    shared_cache: Path,
    cli: Cli,
    tmp_path: Path,
    fault: str,
    left: int | None,
    said: str,
) -> None:
    folder = tmp_path / "run"
    driver = ("tests.faults.driver", fault)
    process = start(shared_cache, *SMOKE, f"hydra.run.dir={folder}", module=driver)
    process.communicate()
    assert process.returncode == -signal.SIGKILL
    assert state_of(folder) == "running"
    last = folder / "checkpoints" / "last.ckpt"
    assert last.exists() == (left is not None)
    if left is not None:
        assert torch.load(last, weights_only=True)["epoch"] == left
    result = cli("train", f"resume={folder}")
    assert result.returncode == 0, result.stderr
    assert said in result.stdout + result.stderr
    assert_ends_as(folder, smoke_run)
