"""Fixtures that several packages' tests share."""

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
Cli = Callable[..., "subprocess.CompletedProcess[str]"]


@pytest.fixture(scope="session")
def shared_cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One cache for the whole session and all its processes: prepared data is written once."""
    folder = tmp_path_factory.getbasetemp()
    if "PYTEST_XDIST_WORKER" in os.environ:
        folder = folder.parent
    folder = folder / "shared_cache"
    folder.mkdir(exist_ok=True)
    return folder


@pytest.fixture(scope="session")
def cli(shared_cache: Path) -> Cli:
    """Run an entry script as a user does, in a process of its own."""

    def run(
        script: str,
        *arguments: str,
        cwd: Path = ROOT,
        timeout: int = 300,
        through: str | None = None,
    ) -> "subprocess.CompletedProcess[str]":
        environment = os.environ | {
            "GLIOMA_XAI_CACHE": str(shared_cache),
            "OMP_NUM_THREADS": "1",
            "COLUMNS": "200",
        }
        command = [through, script] if through else [f"glioma_xai.{script}"]
        return subprocess.run(
            [sys.executable, "-m", *command, *arguments],
            cwd=cwd,
            env=environment,
            capture_output=True,
            text=True,
            timeout=timeout,
            check=False,
        )

    return run


@pytest.fixture(scope="session")
def smoke_run(cli: Cli, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folder of a finished smoke run."""
    root = tmp_path_factory.mktemp("runs")
    result = cli("train", "+experiment=smoke", f"paths.root={root}")
    assert result.returncode == 0, result.stderr + result.stdout
    (folder,) = (root / "smoke").iterdir()
    return folder
