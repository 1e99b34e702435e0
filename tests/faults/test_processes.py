"""A run of two processes: whichever is stopped or lost, both end, it says why, and it goes on."""

import os
import signal
from pathlib import Path

import pytest
import torch

from tests.conftest import Cli
from tests.faults.runs import SMOKE, assert_ends_as, group_is_empty, start, state_of, wait_for

pytestmark = pytest.mark.faults
TWO = (
    *("trainer=ddp", "trainer.accelerator=cpu", "trainer.devices=2"),
    *("trainer.sync_batchnorm=false", "trainer.precision=32-true", "data.batch_size=8"),
)


@pytest.fixture(scope="module")
def whole(cli: Cli, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of two processes that nobody stopped."""
    folder = tmp_path_factory.mktemp("whole") / "run"
    result = cli("train", *SMOKE, *TWO, f"hydra.run.dir={folder}")
    assert result.returncode == 0, result.stderr
    return folder


@pytest.mark.parametrize(
    ("number", "rank", "code", "state", "said"),
    [
        (signal.SIGTERM, 0, 143, "interrupted", "stopped by SIGTERM"),
        (signal.SIGKILL, 0, -9, "running", ""),
        (signal.SIGKILL, 1, 1, "failed", "process 1 of 2: expected it to go on, found it ended by"),
    ],
)
def test_both_end_and_the_run_goes_on(
    whole: Path,
    shared_cache: Path,
    cli: Cli,
    tmp_path: Path,
    number: int,
    rank: int,
    code: int,
    state: str,
    said: str,
) -> None:
    folder = tmp_path / "run"
    process = start(shared_cache, *SMOKE, *TWO, f"hydra.run.dir={folder}", start_new_session=True)
    wait_for(folder / "checkpoints" / "last.ckpt", process)
    children = Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()
    os.kill(int(children[0]) if rank else process.pid, number)
    _, errors = process.communicate(timeout=240)
    assert process.returncode == code
    assert said in errors
    assert state_of(folder) == state
    assert group_is_empty(process)
    if rank or number != signal.SIGKILL:  # a second process says that it lost the first
        assert "Traceback" not in errors
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


def test_relevance_that_is_no_number_in_one_process_ends_both(
    shared_cache: Path, tmp_path: Path
) -> None:
    """The other waits for its gradients, and has to hear of it."""
    folder = tmp_path / "run"
    process = start(
        shared_cache,
        *(*SMOKE, *TWO, "loss.warm_start_epochs=0", "loss.probe=image"),
        f"hydra.run.dir={folder}",
        module=("tests.faults.driver",),
        environment={"FAULT": "nan:1"},
        start_new_session=True,
    )
    _, errors = process.communicate()
    assert process.returncode == 1
    assert errors.count("NumericsError: relevance must be finite") == 1
    assert "process 1 of 2: expected it to go on, found it ended with exit code 1" in errors
    assert state_of(folder) == "failed"
    assert group_is_empty(process)
