"""Everything a run does on a device that is not the CPU; see tests/second_device.py."""

import csv
import json
import re
from pathlib import Path

import pytest
import torch
from pytorch_lightning.utilities import move_data_to_device
from torch import nn

from glioma_xai.attribution import COMPOSITES, build_composite, compute_relevance
from glioma_xai.training.guidance import ProbeName
from tests import second_device
from tests.conftest import Cli
from tests.unit.attribution import nets
from tests.unit.training.test_processes import Step, batch


@pytest.fixture
def device(monkeypatch: pytest.MonkeyPatch) -> torch.device:
    for name, value in second_device.start().items():
        monkeypatch.setattr(torch, name, value)
    return torch.device(second_device.NAME)


def test_it_refuses_what_lies_elsewhere(device: torch.device) -> None:
    with pytest.raises(RuntimeError, match="lazy"):
        torch.ones(2, device=device) + torch.ones(2)


@pytest.mark.parametrize("name", COMPOSITES)
@pytest.mark.parametrize("net", ["paper_cnn", "residual_3d", "dense"])
def test_relevance_and_gradients_are_those_of_the_cpu(
    name: str, net: str, device: torch.device
) -> None:
    found = []
    for place in (torch.device("cpu"), device):
        model = nets.NETS[net]().to(place).train()
        for layer in model.modules():
            if isinstance(layer, nn.Dropout):
                layer.p = 0.0  # devices draw numbers of their own
        images = nets.images(net).to(place)
        options = {"low": -3.0, "high": 3.0} if name == "epsilon_gamma_box" else {}
        composite = build_composite(name, model, input_shape=images.shape[1:], **options)
        _, relevance = compute_relevance(
            model, images, composite, labels=nets.LABELS.to(place), create_graph=True
        )
        assert relevance.device.type == place.type
        relevance.abs().mean().backward()
        gradients = [p.grad.cpu() for p in model.parameters() if p.grad is not None]
        found.append([relevance.detach().cpu(), *gradients])
    assert len(found[0]) > 1
    for expected, got in zip(*found, strict=True):
        torch.testing.assert_close(got, expected, rtol=1e-6, atol=1e-9)


@pytest.mark.parametrize("probe", ["image", "scaled", "mixed", "noise"])
def test_a_guided_step_is_that_of_the_cpu(probe: ProbeName, device: torch.device) -> None:
    found = []
    for place in (torch.device("cpu"), device):
        step = Step(probe).to(place)
        part = move_data_to_device(batch(0), place)
        step.module.losses(part, step=1, total_steps=2).total.backward()
        found.append([p.grad.cpu() for p in step.parameters() if p.grad is not None])
    for expected, got in zip(*found, strict=True):
        torch.testing.assert_close(got, expected, rtol=1e-4, atol=1e-5)


def test_a_run_and_what_is_asked_of_it_later(cli: Cli, tmp_path: Path) -> None:
    run, there = tmp_path / "run", second_device.NAME
    small = ("+experiment=smoke", "trainer.max_epochs=2", "optimizer=sgd", "overlays=1")

    def on_device(script: str, *arguments: str) -> None:
        result = cli(script, *arguments, through="tests.second_device")
        assert result.returncode == 0, result.stderr
        assert int(re.search(r"convolutions there: (\d+)", result.stdout)[1]) > 0

    on_device(
        "train",
        *small,
        f"trainer.accelerator={there}",
        f"+trainer.strategy={there}",
        f"hydra.run.dir={run}",
    )
    assert (run / "report.html").is_file()
    with (run / "splits.csv").open(newline="") as file:
        patient = next(csv.DictReader(file))["patient"]
    again = ("evaluate", f"run={run}", "faithfulness=true")
    found = {}
    for place in ("cpu", there):
        words = (*again, f"device={place}", f"output={run}/{place}")
        if place == "cpu":
            assert cli(*words).returncode == 0
        else:
            on_device(*words)
        summary = json.loads((run / place / "summary.json").read_text())
        found[place] = summary["relevance"]["test"]["absolute_relevance_mass"]["value"]
    assert found[there] == pytest.approx(found["cpu"], abs=1e-4)
    on_device("explain", f"run={run}", f"device={there}", f"subject={patient}")
