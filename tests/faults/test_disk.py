"""A disk that is full, a folder that cannot be written: one message, and the run can go on."""

import contextlib
import json
import os
import resource
import shutil
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

from tests.conftest import Cli
from tests.faults.runs import SMOKE, assert_ends_as, start, state_of

pytestmark = pytest.mark.faults
MEBIBYTE = 2**20  # a checkpoint of the smoke run has 2, everything else is smaller


@contextlib.contextmanager
def small_disk(place: Path, *, size: int) -> Iterator[Path]:
    """A file system of its own in memory, for those who may mount one."""
    place.mkdir()
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", f"size={size}", "tmpfs", str(place)],
        capture_output=True,
        check=False,
    )
    if mounted.returncode:
        pytest.skip("mounting needs root")
    try:
        yield place
    finally:
        subprocess.run(["umount", "-l", str(place)], check=False)


def test_no_checkpoint_fits(smoke_run: Path, shared_cache: Path, cli: Cli, tmp_path: Path) -> None:
    def limit() -> None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (MEBIBYTE, MEBIBYTE))

    folder = tmp_path / "run"
    process = start(shared_cache, *SMOKE, f"hydra.run.dir={folder}", preexec_fn=limit)
    _, errors = process.communicate()
    assert process.returncode == 1
    assert "best.ckpt: expected a folder that a checkpoint can be written to" in errors
    assert "found File too large" in errors
    assert "Traceback" not in errors
    assert state_of(folder) == "failed"
    assert not list(folder.rglob("*.part"))
    result = cli("train", f"resume={folder}")
    assert result.returncode == 0, result.stderr
    assert_ends_as(folder, smoke_run)


def test_the_disk_is_full_after_an_epoch(
    smoke_run: Path, shared_cache: Path, cli: Cli, tmp_path: Path
) -> None:
    # best and last fit, and the next one being written does not
    with small_disk(tmp_path / "disk", size=5 * MEBIBYTE) as disk:
        folder = disk / "run"
        process = start(shared_cache, *SMOKE, f"hydra.run.dir={folder}")
        _, errors = process.communicate()
        assert process.returncode == 1
        assert "found No space left on device" in errors
        assert "Traceback" not in errors
        assert state_of(folder) in {"running", "failed"}  # whole, but the disk may take no other
        last = torch.load(folder / "checkpoints" / "last.ckpt", weights_only=True)
        assert last["epoch"] == 0
        shutil.copytree(folder, tmp_path / "run")
    result = cli("train", f"resume={tmp_path / 'run'}")
    assert result.returncode == 0, result.stderr
    assert_ends_as(tmp_path / "run", smoke_run)


def test_the_disk_is_full_from_the_start_and_the_status_stays_whole(
    shared_cache: Path, tmp_path: Path
) -> None:
    with small_disk(tmp_path / "disk", size=64 * 2**10) as disk:
        folder = disk / "run"
        process = start(shared_cache, *SMOKE, f"hydra.run.dir={folder}")
        _, errors = process.communicate()
        assert process.returncode == 1
        assert "No space left on device" in errors
        assert "Traceback" not in errors
        json.loads((folder / "status.json").read_text())


def test_a_folder_becomes_read_only(
    smoke_run: Path, shared_cache: Path, cli: Cli, tmp_path: Path
) -> None:
    with small_disk(tmp_path / "disk", size=64 * MEBIBYTE) as disk:
        folder = disk / "run"
        process = start(shared_cache, *SMOKE, f"hydra.run.dir={folder}")
        while process.poll() is None and not (folder / "checkpoints" / "last.ckpt").exists():
            time.sleep(0.005)
        # open files keep a file system writable: bind what is there, read-only, over it
        subprocess.run(["mount", "--bind", str(folder), str(folder)], check=True)
        subprocess.run(["mount", "-o", "remount,ro,bind", str(folder)], check=True)
        _, errors = process.communicate()
        subprocess.run(["umount", "-l", str(folder)], check=True)
        assert process.returncode == 1
        assert "Read-only file system" in errors
        assert "Traceback" not in errors
        assert state_of(folder) in {"running", "failed"}  # as it was written last
        result = cli("train", f"resume={folder}")
        assert result.returncode == 0, result.stderr
        assert_ends_as(folder, smoke_run)


def test_no_run_folder_can_be_made(cli: Cli, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    result = cli("train", *SMOKE, f"paths.root={tmp_path}/file/runs")
    assert result.returncode == 1
    assert "expected a place that can be written to, found Not a directory" in result.stderr
    assert "Traceback" not in result.stderr


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write everywhere")
def test_a_folder_of_somebody_else(cli: Cli, tmp_path: Path) -> None:
    tmp_path.chmod(0o500)
    result = cli("train", *SMOKE, f"paths.root={tmp_path}/runs")
    assert result.returncode == 1
    assert "found Permission denied" in result.stderr
    assert "Traceback" not in result.stderr
