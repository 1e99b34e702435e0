"""Checkpoints that are cut, lost or dangerous: the one before is used, and that is said."""

import pickle
import shutil
import signal
import time
from pathlib import Path

import pytest

from tests.conftest import Cli
from tests.faults.runs import SMOKE, assert_ends_as, start

pytestmark = pytest.mark.faults


@pytest.fixture(scope="module")
def stopped(shared_cache: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run that was killed after its second epoch, with last and previous checkpoint."""
    folder = tmp_path_factory.mktemp("stopped") / "run"
    process = start(shared_cache, *SMOKE, f"hydra.run.dir={folder}")
    while process.poll() is None and not (folder / "checkpoints" / "previous.ckpt").exists():
        time.sleep(0.005)
    process.send_signal(signal.SIGKILL)
    process.communicate()
    assert process.returncode == -signal.SIGKILL
    return folder


def cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def test_the_one_before_is_used_and_that_is_said(
    stopped: Path, smoke_run: Path, cli: Cli, tmp_path: Path
) -> None:
    folder = Path(shutil.copytree(stopped, tmp_path / "run"))
    cut(folder / "checkpoints" / "last.ckpt")
    result = cli("train", f"resume={folder}")
    assert result.returncode == 0, result.stderr
    printed = result.stdout + result.stderr
    assert "last.ckpt: expected a whole checkpoint of tensors and plain values" in printed
    assert "Going on from previous.ckpt, epoch 0" in printed
    assert_ends_as(folder, smoke_run)


@pytest.mark.parametrize("lost", [("last", "previous"), ("best",)])
def test_nothing_to_go_on_from_is_said_at_once(
    stopped: Path, smoke_run: Path, cli: Cli, tmp_path: Path, lost: tuple[str, ...]
) -> None:
    folder = Path(shutil.copytree(stopped, tmp_path / "run"))
    for name in lost:
        cut(folder / "checkpoints" / f"{name}.ckpt")
    result = cli("train", f"resume={folder}")
    assert result.returncode == 1
    assert f"{lost[0]}.ckpt: expected a whole checkpoint" in result.stderr
    assert "Or remove" in result.stderr
    assert "Traceback" not in result.stderr
    shutil.rmtree(folder / "checkpoints")  # as the message says
    result = cli("train", f"resume={folder}")
    assert result.returncode == 0, result.stderr
    assert_ends_as(folder, smoke_run)


class Bomb:
    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[object, tuple[str]]:
        return (Path.touch, (self.path,))  # type: ignore[return-value]


@pytest.mark.parametrize(("script", "name"), [("train", "last"), ("evaluate", "best")])
def test_a_bomb_does_not_go_off(
    stopped: Path, cli: Cli, tmp_path: Path, script: str, name: str
) -> None:
    folder = Path(shutil.copytree(stopped, tmp_path / "run"))
    for checkpoint in {name, "previous"} if script == "train" else {name}:
        with (folder / "checkpoints" / f"{checkpoint}.ckpt").open("wb") as file:
            pickle.dump({"state_dict": Bomb(tmp_path / "exploded")}, file)
    result = cli(script, f"{'resume' if script == 'train' else 'run'}={folder}")
    assert result.returncode == 1
    assert f"{name}.ckpt: expected a whole checkpoint of tensors and plain" in result.stderr
    assert not (tmp_path / "exploded").exists()
