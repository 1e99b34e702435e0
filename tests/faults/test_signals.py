"""Signals to a run that has workers or a second process: all end, quietly, and it goes on."""

import os
import signal
import subprocess
import time
from pathlib import Path

import pytest
import torch

from tests.conftest import Cli
from tests.faults.runs import SMOKE, assert_ends_as, start, state_of

pytestmark = pytest.mark.faults
TWO = (
    *("trainer=ddp", "trainer.accelerator=cpu", "trainer.devices=2"),
    *("trainer.sync_batchnorm=false", "trainer.precision=32-true", "data.batch_size=8"),
)


def wait_for(path: Path, process: "subprocess.Popen[str]") -> None:
    while process.poll() is None and not path.exists():
        time.sleep(0.005)


def group_is_empty(process: "subprocess.Popen[str]") -> bool:
    for _ in range(100):
        try:
            os.killpg(process.pid, 0)
        except ProcessLookupError:
            return True
        time.sleep(0.1)
    return False


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


def test_two_processes_end_together_and_go_on(shared_cache: Path, cli: Cli, tmp_path: Path) -> None:
    whole, folder = tmp_path / "whole", tmp_path / "run"
    result = cli("train", *SMOKE, *TWO, f"hydra.run.dir={whole}")
    assert result.returncode == 0, result.stderr
    process = start(shared_cache, *SMOKE, *TWO, f"hydra.run.dir={folder}", start_new_session=True)
    wait_for(folder / "checkpoints" / "last.ckpt", process)
    process.send_signal(signal.SIGTERM)
    process.communicate()
    assert process.returncode == 143
    assert state_of(folder) == "interrupted"
    assert group_is_empty(process)
    result = cli("train", f"resume={folder}")
    assert result.returncode == 0, result.stderr
    assert_ends_as(folder, whole)


@pytest.mark.parametrize("devices", [(), TWO])
def test_a_loss_that_is_no_number_stops_all_processes(
    shared_cache: Path, tmp_path: Path, devices: tuple[str, ...]
) -> None:
    folder = tmp_path / "run"
    wild = ("optimizer=sgd", "optimizer.lr=1e20", "trainer.gradient_clip_val=null")
    process = start(
        shared_cache,
        *(*SMOKE, *devices, *wild, f"hydra.run.dir={folder}"),
        start_new_session=True,
    )
    _, errors = process.communicate()
    assert process.returncode == 1
    assert errors.count("NumericsError: ") == 1
    assert "Traceback" not in errors
    assert state_of(folder) == "failed"
    assert group_is_empty(process)
    saved = sorted((folder / "faults").glob("step_*.pt"))
    assert len(saved) == (2 if devices else 1)
    assert all(str(path) in errors for path in saved[:1])
    content = torch.load(saved[0], weights_only=True)
    assert content["batch"]["image"].isfinite().all()
    assert len(content["batch"]["subject_id"]) == len(content["batch"]["image"])
