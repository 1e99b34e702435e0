"""A user's own network with layers that relevance cannot pass."""

from pathlib import Path

import pytest

from tests.conftest import Cli

NETWORK = """
from torch import nn


def build(input_shape, classes):
    layers = [nn.Conv2d(input_shape[0], 4, 3), nn.SiLU(), nn.Conv2d(4, 4, 3), nn.GELU()]
    return nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4, classes))
"""


@pytest.fixture
def own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    (tmp_path / "own_network.py").write_text(NETWORK)
    (tmp_path / "conf" / "model").mkdir(parents=True)
    (tmp_path / "conf" / "model" / "own.yaml").write_text("_target_: own_network.build\n")
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    return ["+experiment=smoke", "model=own", "--config-dir", str(tmp_path / "conf")]


def test_check_names_every_layer_and_swaps_on_request(cli: Cli, own: list[str]) -> None:
    result = cli("check", *own)
    assert result.returncode == 1
    assert "SiLU at 1: replace it by ReLU" in result.stderr
    assert "GELU at 3: replace it by ReLU" in result.stderr
    assert "replaced" not in result.stdout
    result = cli("check", *own, "replace_activations=true")
    assert result.returncode == 0, result.stderr
    assert "replaced SiLU at 1 by ReLU" in result.stdout
    assert "replaced GELU at 3 by ReLU" in result.stdout


def test_training_stops_before_the_first_epoch(cli: Cli, own: list[str], tmp_path: Path) -> None:
    result = cli("train", *own, f"paths.root={tmp_path / 'runs'}")
    assert result.returncode == 1
    assert "SiLU at 1" in result.stderr
    assert "GELU at 3" in result.stderr
    (folder,) = (tmp_path / "runs" / "smoke").iterdir()
    assert not (folder / "metrics.csv").exists()
