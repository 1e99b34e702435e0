"""On CUDA: the gradients of the CPU, a whole run, and two devices with the results of one."""

import csv
import json
from pathlib import Path

import pytest
import torch
from pytorch_lightning.utilities import move_data_to_device

from tests.conftest import Cli
from tests.unit.training.test_processes import Step, batch

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device"),
]
SMALL = ("+experiment=smoke", "trainer.max_epochs=2", "overlays=1", "bootstrap=20")


def gradients(device: str, *, bf16: bool = False) -> list[torch.Tensor]:
    step = Step().to(device)
    part = move_data_to_device(batch(), torch.device(device))
    with torch.autocast(device, dtype=torch.bfloat16, enabled=bf16):
        loss = step.module.losses(part, step=1, total_steps=2).total
    loss.backward()
    return [p.grad.cpu() for p in step.parameters() if p.grad is not None]


@pytest.mark.parametrize(("bf16", "rtol", "atol"), [(False, 1e-3, 1e-5), (True, 0.1, 2e-2)])
def test_gradients_are_those_of_the_cpu(
    monkeypatch: pytest.MonkeyPatch, bf16: bool, rtol: float, atol: float
) -> None:
    monkeypatch.setattr(torch.backends.cudnn, "allow_tf32", False)
    for a, b in zip(gradients("cuda", bf16=bf16), gradients("cpu"), strict=True):
        torch.testing.assert_close(a, b, rtol=rtol, atol=atol)


def test_a_run_on_one_device(cli: Cli, tmp_path: Path) -> None:
    result = cli("train", *SMALL, "trainer=gpu", f"hydra.run.dir={tmp_path}/run")
    assert result.returncode == 0, result.stderr
    assert (tmp_path / "run" / "report.html").is_file()
    require_the_same_on("cuda", cli, tmp_path / "run")


def require_the_same_on(device: str, cli: Cli, run: Path) -> None:
    """`evaluate` and `explain` say there what they say on the CPU."""
    with (run / "splits.csv").open(newline="") as file:
        patient = next(csv.DictReader(file))["patient"]
    found = {}
    for name in ("cpu", device):
        place = run / name
        result = cli(
            *("evaluate", f"run={run}", f"device={name}", "faithfulness=true"), f"output={place}"
        )
        assert result.returncode == 0, result.stderr
        summary = json.loads((place / "summary.json").read_text())
        found[name] = summary["relevance"]["test"]["absolute_relevance_mass"]["value"]
        result = cli(
            *("explain", f"run={run}", f"device={name}", f"subject={patient}", "similar=1"),
            f"output={place}/case",
        )
        assert result.returncode == 0, result.stderr
    assert found[device] == pytest.approx(found["cpu"], abs=1e-2)


@pytest.mark.skipif(torch.cuda.device_count() < 2, reason="needs two CUDA devices")
def test_two_devices_with_synchronised_batchnorm_agree_with_one(cli: Cli, tmp_path: Path) -> None:
    same = (*SMALL, "model.dropout=0", "loss.probe=noise", "loss.warm_start_epochs=0")
    same = (*same, "trainer.precision=32-true")
    tables = []
    for name, words in {
        "one": ("trainer=gpu", "data.batch_size=8"),
        "two": ("trainer=ddp", "trainer.devices=2", "data.batch_size=4"),
    }.items():
        result = cli("train", *same, *words, f"hydra.run.dir={tmp_path}/{name}")
        assert result.returncode == 0, result.stderr
        with (tmp_path / name / "metrics.csv").open(newline="") as file:
            tables.append(list(csv.DictReader(file)))
    for expected, found in zip(*tables, strict=True):
        for key in ("train/loss", "train/loss_guidance", "validation/loss"):
            assert float(found[key]) == pytest.approx(float(expected[key]), rel=1e-2), key
