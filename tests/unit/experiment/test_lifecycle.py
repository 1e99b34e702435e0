"""Files of a run folder are whole or absent, and nothing in a checkpoint runs code."""

import json
import pickle
import signal
import time
from pathlib import Path

import pytest
import torch
from omegaconf import OmegaConf

from glioma_xai.errors import ConfigError, RunError
from glioma_xai.experiment.checkpoints import AtomicCheckpointIO, load_checkpoint
from glioma_xai.experiment.launch import run_command
from glioma_xai.experiment.lifecycle import (
    RunStatus,
    alone_in,
    disk_in_words,
    goes_on,
    read_status,
    write_json,
)
from glioma_xai.experiment.signals import Interrupted


def test_json_has_no_nan_and_leaves_no_part(tmp_path: Path) -> None:
    write_json(tmp_path / "a.json", {"x": float("nan"), "y": [1.5, float("inf")], "z": (1, "a")})
    assert json.loads((tmp_path / "a.json").read_text()) == {
        "x": None,
        "y": [1.5, None],
        "z": [1, "a"],
    }
    assert [path.name for path in tmp_path.iterdir()] == ["a.json"]


def test_status_keeps_its_beginning_when_a_run_goes_on(tmp_path: Path) -> None:
    first = RunStatus(tmp_path)
    first.values["started"] = "2000-01-01T00:00:00+00:00"
    first.end("interrupted", Interrupted(signal.SIGTERM))
    again = RunStatus(tmp_path)
    again.end("finished")
    status = json.loads((tmp_path / "status.json").read_text())
    assert status["started"] == "2000-01-01T00:00:00+00:00"
    assert (status["state"], status["error"]) == ("finished", None)
    assert status["versions"]["torch"] == torch.__version__.split("+")[0]


def test_the_parts_of_a_run_add_up_their_time(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    clock = iter([100.0, 107.0, 500.0, 502.0, 502.0])
    monkeypatch.setattr(time, "monotonic", lambda: next(clock))
    RunStatus(tmp_path).end("interrupted")
    again = RunStatus(tmp_path)
    again.end("finished")
    assert read_status(tmp_path)["seconds"] == again.seconds == 9.0


def test_a_full_disk_leaves_the_previous_checkpoint(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    io = AtomicCheckpointIO()
    io.save_checkpoint({"epoch": 1}, tmp_path / "last.ckpt")

    def half(checkpoint: object, file: object) -> None:
        file.write(b"half")  # type: ignore[attr-defined]
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(torch, "save", half)
    with pytest.raises(RunError, match=r"last\.ckpt: expected a folder .* found No space left"):
        io.save_checkpoint({"epoch": 2}, tmp_path / "last.ckpt")
    assert torch.load(tmp_path / "last.ckpt", weights_only=True) == {"epoch": 1}
    assert [path.name for path in tmp_path.iterdir()] == ["last.ckpt"]


class Bomb:
    def __reduce__(self) -> tuple[object, tuple[str]]:
        return (print, ("boom",))


def test_a_checkpoint_that_could_run_code_is_refused(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = tmp_path / "checkpoints"
    folder.mkdir()
    with (folder / "best.ckpt").open("wb") as file:
        pickle.dump({"state_dict": Bomb()}, file)
    with pytest.raises(RunError, match=r"expected a whole checkpoint of tensors and plain values"):
        load_checkpoint(tmp_path)
    assert "boom" not in capsys.readouterr().out


def test_a_checkpoint_cut_in_half_is_named(tmp_path: Path) -> None:
    AtomicCheckpointIO().save_checkpoint({"x": torch.ones(100)}, tmp_path / "checkpoints/best.ckpt")
    path = tmp_path / "checkpoints" / "best.ckpt"
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    with pytest.raises(RunError, match=r"best\.ckpt: expected a whole checkpoint"):
        load_checkpoint(tmp_path)


def test_a_folder_without_checkpoint_says_so(tmp_path: Path) -> None:
    with pytest.raises(RunError, match=r"expected checkpoints/best\.ckpt, found none"):
        load_checkpoint(tmp_path)


def test_a_user_s_mistake_is_one_message(capsys: pytest.CaptureFixture[str]) -> None:
    def config() -> None:
        raise ConfigError("seed: expected a number, found x. Change seed.")

    def run() -> None:
        raise RunError("runs/x: expected a run folder, found none. Look in runs.")

    assert run_command(config) == 2
    assert run_command(run) == 1
    printed = capsys.readouterr().err
    assert printed.splitlines() == [
        "ConfigError: seed: expected a number, found x. Change seed.",
        "RunError: runs/x: expected a run folder, found none. Look in runs.",
    ]


def test_an_unfinished_run_of_the_same_config_goes_on(tmp_path: Path) -> None:
    config, other = OmegaConf.create({"seed": 1}), OmegaConf.create({"seed": 2})
    assert not goes_on(tmp_path, config)
    status = RunStatus(tmp_path, config)
    status.end("interrupted", Interrupted(signal.SIGTERM))
    assert goes_on(tmp_path, config)
    with pytest.raises(RunError, match=r"found a run with another config\. Choose another hydra"):
        goes_on(tmp_path, other)
    status.end("finished")
    with pytest.raises(RunError, match=r"found a run finished"):
        goes_on(tmp_path, config)


def test_a_run_gone_on_with_by_its_folder_is_still_that_of_its_command(tmp_path: Path) -> None:
    command = OmegaConf.create({"seed": 1, "paths": {"run": "${oc.env:HOME}"}})
    RunStatus(tmp_path, command).end("interrupted", Interrupted(signal.SIGTERM))
    as_read_back = OmegaConf.create({"seed": 1, "paths": {"run": str(tmp_path)}})
    RunStatus(tmp_path, as_read_back).end("interrupted", Interrupted(signal.SIGTERM))
    assert goes_on(tmp_path, command)


def test_a_broken_status_is_no_obstacle(tmp_path: Path) -> None:
    (tmp_path / "status.json").write_text('{"state": "run')
    assert read_status(tmp_path) == {}
    RunStatus(tmp_path).update()
    assert json.loads((tmp_path / "status.json").read_text())["state"] == "running"


def test_a_folder_is_held_by_one(tmp_path: Path) -> None:
    with (
        alone_in(tmp_path),
        pytest.raises(RunError, match="found another process that is"),
        alone_in(tmp_path),
    ):
        pass
    with alone_in(tmp_path):  # free again
        pass


@pytest.mark.parametrize(
    ("error", "message"),
    [
        (
            OSError(28, "No space left on device", "x/a.csv"),
            r"x/a\.csv: expected a place.*No space",
        ),
        (OSError(30, "Read-only file system"), r"found Read-only file system"),
        (RuntimeError("basic_ios::clear: iostream error"), r"found No space left on device"),
    ],
)
def test_a_full_disk_is_told_in_words(tmp_path: Path, error: Exception, message: str) -> None:
    with pytest.raises(RunError, match=message), disk_in_words(tmp_path):
        raise error


@pytest.mark.parametrize("error", [OSError(2, "No such file"), RuntimeError("x"), RunError("y")])
def test_other_errors_stay_what_they_are(tmp_path: Path, error: Exception) -> None:
    with pytest.raises(type(error)) as raised, disk_in_words(tmp_path):
        raise error
    assert raised.value is error
