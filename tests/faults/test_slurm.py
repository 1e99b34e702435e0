"""SLURM's signal before the time limit: saved, requeued, and gone on with by the same command."""

import signal
import stat
import time
from pathlib import Path

import pytest

from tests.conftest import Cli
from tests.faults.runs import SMOKE, assert_ends_as, start, state_of

pytestmark = pytest.mark.faults


def test_a_job_is_requeued_and_goes_on(
    smoke_run: Path, shared_cache: Path, cli: Cli, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    scontrol = tmp_path / "scontrol"
    scontrol.write_text(f'#!/bin/sh\necho "$@" >> {tmp_path}/calls\n')
    scontrol.chmod(scontrol.stat().st_mode | stat.S_IXUSR)
    for name, value in {
        "PATH": f"{tmp_path}:/usr/bin:/bin",
        "SLURM_JOB_ID": "4711",
        "SLURM_JOB_NAME": "train",
        "SLURM_NTASKS": "1",
        "SLURM_PROCID": "0",
        "SLURM_LOCALID": "0",
        "SLURM_NODEID": "0",
        "SLURM_NODELIST": "localhost",
    }.items():
        monkeypatch.setenv(name, value)
    folder = tmp_path / "run"
    command = (*SMOKE, f"hydra.run.dir={folder}")
    process = start(shared_cache, *command)
    while process.poll() is None and not (folder / "checkpoints" / "last.ckpt").exists():
        time.sleep(0.005)
    process.send_signal(signal.SIGUSR1)
    process.communicate()
    assert process.returncode == 128 + signal.SIGUSR1
    assert state_of(folder) == "interrupted"
    assert (tmp_path / "calls").read_text() == "requeue 4711\n"
    assert not list(folder.rglob("hpc_ckpt*"))  # Lightning's own, in the middle of an epoch
    result = cli("train", *command)
    assert result.returncode == 0, result.stderr
    assert_ends_as(folder, smoke_run)

    again = cli("train", *command)
    assert again.returncode == 1
    assert "expected a new folder or an unfinished run of this config, found a run finished" in (
        again.stderr
    )
