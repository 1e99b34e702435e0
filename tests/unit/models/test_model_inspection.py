import copy

import pytest
import torch
from torch import nn

from glioma_xai.errors import ConfigError
from glioma_xai.models.inspection import Layer, layer_table, replace_activations
from glioma_xai.models.networks import SmallCNN


def test_layer_table_of_the_small_cnn_by_hand():
    model = SmallCNN(input_shape=(1, 8, 6), channels=(2, 3), hidden=5)
    model.conv1.requires_grad_(False)
    rows = layer_table(model, (1, 8, 6))
    assert [row.name for row in rows] == [name for name, _ in model.named_children()]
    assert rows[0] == Layer("conv1", "Conv2d", (2, 8, 6), 2 * 9 + 2, False, 1)
    assert rows[3] == Layer("norm1", "BatchNorm2d", (2, 4, 3), 4, True, 1)
    assert rows[7] == Layer("pool2", "MaxPool2d", (3, 2, 1), 0, False, 1)
    assert rows[-1] == Layer("dense2", "Linear", (2,), 12, True, 1)
    assert sum(row.parameters for row in rows) == sum(p.numel() for p in model.parameters())


def test_layer_table_leaves_no_trace():
    model = SmallCNN(input_shape=(1, 8, 8)).train()
    model.norm1.eval()
    before = copy.deepcopy(model.state_dict())
    layer_table(model, (1, 8, 8))
    assert model.training
    assert not model.norm1.training
    assert all(torch.equal(before[key], value) for key, value in model.state_dict().items())
    assert not any(module._forward_hooks for module in model.modules())
    with pytest.raises(ConfigError, match=r"must take an input of \(2, 8, 8\)"):
        layer_table(model, (2, 8, 8))
    assert model.training
    assert not any(module._forward_hooks for module in model.modules())


class Twice(nn.Module):
    def __init__(self):
        super().__init__()
        self.relu, self.unused = nn.ReLU(), nn.SiLU()
        self.conv = nn.Conv3d(1, 1, 1)

    def forward(self, x):
        return self.relu(self.conv(self.relu(x)))


def test_layer_used_twice_or_never():
    rows = {row.name: row for row in layer_table(Twice(), (1, 2, 2, 2))}
    assert rows["relu"].calls == 2
    assert rows["unused"] == Layer("unused", "SiLU", (), 0, False, 0)
    assert [*rows] == ["relu", "conv", "unused"]


def test_replace_activations():
    model = nn.Sequential(nn.Linear(2, 2), nn.SiLU(), nn.Sequential(nn.GELU(), nn.Tanh()))
    parameters = [*model.parameters()]
    assert replace_activations(model) == {"1": "SiLU", "2.0": "GELU"}
    assert [type(m).__name__ for m in model[2]] == ["ReLU", "Tanh"]
    assert all(a is b for a, b in zip(parameters, model.parameters(), strict=True))
    assert replace_activations(model) == {}
    assert replace_activations(model, kinds=["Tanh"]) == {"2.1": "Tanh"}


def test_replace_activations_finds_one_module_in_several_places():
    shared = nn.SiLU()
    model = nn.Sequential(shared, nn.Linear(2, 2), shared)
    assert replace_activations(model) == {"0": "SiLU", "2": "SiLU"}


def test_replace_activations_needs_a_network():
    with pytest.raises(ConfigError, match="got the activation SiLU itself"):
        replace_activations(nn.SiLU())
