"""A run that is stopped goes on where it was, and ends as if it had never been stopped."""

import csv
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch

from tests.conftest import ROOT, Cli


def wait_for(path: Path, process: "subprocess.Popen[str]") -> None:
    deadline = time.monotonic() + 240
    while time.monotonic() < deadline and process.poll() is None:
        if path.is_file():
            return
        time.sleep(0.02)
    raise AssertionError(f"{path} was not written")


def training_rows(folder: Path) -> list[dict[str, str]]:
    with (folder / "metrics.csv").open(newline="") as file:
        return list(csv.DictReader(file))


@pytest.mark.parametrize(
    ("number", "code", "state"),
    [(signal.SIGTERM, 143, "interrupted"), (signal.SIGKILL, -9, "running")],
)
def test_a_stopped_run_ends_as_if_it_had_not_been(
    smoke_run: Path,
    shared_cache: Path,
    cli: Cli,
    tmp_path: Path,
    number: int,
    code: int,
    state: str,
) -> None:
    environment = os.environ | {"GLIOMA_XAI_CACHE": str(shared_cache), "OMP_NUM_THREADS": "1"}
    process = subprocess.Popen(
        [
            *(sys.executable, "-m", "glioma_xai.train"),
            *("+experiment=smoke", f"hydra.run.dir={tmp_path}/run"),
        ],
        cwd=ROOT,
        env=environment,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        text=True,
    )
    folder = tmp_path / "run"
    wait_for(folder / "checkpoints" / "last.ckpt", process)
    process.send_signal(number)
    assert process.wait(timeout=60) == code
    status = json.loads((folder / "status.json").read_text())
    assert status["state"] == state
    if len(training_rows(folder)) == 3:
        pytest.fail("the run was over before it was stopped")

    result = cli("train", f"resume={folder}")
    assert result.returncode == 0, result.stderr
    assert json.loads((folder / "status.json").read_text())["state"] == "finished"
    assert training_rows(folder) == training_rows(smoke_run)
    for name in ("best", "last"):
        here = torch.load(folder / "checkpoints" / f"{name}.ckpt", weights_only=True)
        there = torch.load(smoke_run / "checkpoints" / f"{name}.ckpt", weights_only=True)
        assert here["epoch"] == there["epoch"]
        for key, value in there["state_dict"].items():
            assert torch.equal(here["state_dict"][key], value), key


def test_a_run_that_goes_on_takes_no_other_settings(smoke_run: Path, cli: Cli) -> None:
    result = cli("train", f"resume={smoke_run}", "seed=3")
    assert result.returncode == 2
    assert "expected no other settings, found seed=3" in result.stderr
