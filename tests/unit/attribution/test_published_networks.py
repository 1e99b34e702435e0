"""MONAI's networks and ours, as they are, in 2-D and 3-D."""

import copy
from collections.abc import Callable

import pytest
import torch
from monai.networks.blocks.squeeze_and_excitation import SEResNetBottleneck
from monai.networks.nets import DenseNet, DenseNet121, SENet, SEResNet50, resnet10, resnet18
from torch import Tensor, nn

from glioma_xai.attribution import (
    build_composite,
    compute_relevance,
    uncovered_layers,
)
from glioma_xai.errors import CompatibilityError
from glioma_xai.models.inspection import replace_activations
from glioma_xai.models.networks import SmallCNN, vgg
from tests.unit.attribution import nets
from tests.unit.attribution.test_conservation import without_biases

SIZES = {2: (2, 32, 32), 3: (2, 32, 32, 32)}
NETWORKS: dict[str, Callable[[int], nn.Module]] = {
    "resnet10": lambda dims: resnet10(spatial_dims=dims, n_input_channels=2, num_classes=3),
    "resnet18": lambda dims: resnet18(spatial_dims=dims, n_input_channels=2, num_classes=3),
    "densenet121": lambda dims: DenseNet121(dims, 2, 3),
    "small_cnn": lambda dims: SmallCNN(input_shape=SIZES[dims], classes=3),
    "vgg": lambda dims: vgg(input_shape=SIZES[dims], classes=3),
}
LABELS = torch.tensor([0, 2])


def images(dims: int, seed: int = 2) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn((2, *SIZES[dims]), generator=generator, dtype=torch.float64)


def test_resnet_conserves_and_trains() -> None:
    model = nets.prepared(NETWORKS["resnet10"](2))
    still = without_biases(copy.deepcopy(model))
    composite = build_composite(
        "epsilon_plus", still, input_shape=SIZES[2], epsilon=1e-12, stabilizer=1e-12
    )
    logits, relevance = compute_relevance(still, images(2), composite, labels=LABELS)
    torch.testing.assert_close(
        relevance.flatten(1).sum(1), logits[range(2), LABELS], rtol=1e-4, atol=0
    )
    composite = build_composite("epsilon_plus_flat", model.train(), input_shape=SIZES[2])
    _, relevance = compute_relevance(model, images(2), composite, labels=LABELS, create_graph=True)
    relevance.abs().mean().backward()
    assert all(p.grad is not None and p.grad.isfinite().all() for p in model.parameters())


def squeezing() -> nn.Module:
    """MONAI's SEResNet with one block a stage."""
    return nets.prepared(
        SENet(
            spatial_dims=2,
            in_channels=2,
            block=SEResNetBottleneck,
            layers=(1, 1, 1, 1),
            groups=1,
            reduction=16,
            dropout_prob=None,
            inplanes=64,
            downsample_kernel_size=1,
            input_3x3=False,
            num_classes=3,
        )
    )


def test_squeeze_and_excitation_is_refused_at_every_gate() -> None:
    model = SEResNet50(spatial_dims=2, in_channels=2, num_classes=3)
    gates = [name for name, module in model.named_modules() if isinstance(module, nn.Sigmoid)]
    problems = uncovered_layers(model, "epsilon", SIZES[2])
    assert [problem.where for problem in problems] == [f"Sigmoid at {name}" for name in gates]
    with pytest.raises(CompatibilityError) as caught:
        build_composite("epsilon", model, input_shape=SIZES[2])
    assert all(f"Sigmoid at {name}: " in str(caught.value) for name in gates)
    assert uncovered_layers(model, "epsilon", SIZES[2], {"sigmoid": "gate"}) == []


def test_gates_count_as_constants_once_the_user_says_so() -> None:
    model, pixels = squeezing(), images(2)
    composite = build_composite(
        "epsilon",
        without_biases(model),
        input_shape=SIZES[2],
        epsilon=1e-12,
        rules={"sigmoid": "gate"},
    )
    logits, relevance = compute_relevance(model, pixels, composite, labels=LABELS)
    torch.testing.assert_close(
        relevance.flatten(1).sum(1), logits[range(2), LABELS], rtol=1e-4, atol=0
    )
    fixed = {}  # the same network with its gates cut off from the graph
    for name, module in model.named_modules():
        if isinstance(module, nn.Sigmoid):
            fixed[name] = module.register_forward_hook(lambda _, __, output: output.detach())
    pixels.requires_grad_()
    chosen = model(pixels)[range(2), LABELS].sum()
    (gradient,) = torch.autograd.grad(chosen, pixels)
    torch.testing.assert_close(relevance, gradient * pixels, rtol=1e-6, atol=1e-9)


@pytest.mark.parametrize("act", ["swish", "memswish", "mish", ("elu", {})])
def test_smooth_activations_of_monai_are_named_and_replaced_on_request(act: object) -> None:
    model = DenseNet(2, 2, 3, init_features=8, growth_rate=4, block_config=(1, 1), act=act)
    names = ("relu", "relu0", "relu1", "relu2")
    smooth = {name for name, _ in model.named_modules() if name.split(".")[-1] in names}
    problems = uncovered_layers(model, "zplus", (2, 32, 32))
    found = {problem.where.split(" at ")[1] for problem in problems}
    assert found == smooth
    if act != ("elu", {}):
        replaced = replace_activations(model)
        assert set(replaced) == found
        assert uncovered_layers(model, "zplus", (2, 32, 32)) == []


@pytest.mark.exact
@pytest.mark.parametrize("composite", ["epsilon", "zplus", "epsilon_plus", "epsilon_gamma_box"])
@pytest.mark.parametrize("dims", [2, 3])
@pytest.mark.parametrize("net", NETWORKS)
def test_conservation(net: str, dims: int, composite: str) -> None:
    model = nets.prepared(NETWORKS[net](dims))
    box = {"low": -6.0, "high": 6.0} if composite == "epsilon_gamma_box" else {}
    still = without_biases(model)
    built = build_composite(
        composite,
        still,
        input_shape=SIZES[dims],
        epsilon=1e-12,
        stabilizer=1e-12,
        **box,
    )
    logits, relevance = compute_relevance(still, images(dims), built, labels=LABELS)
    torch.testing.assert_close(
        relevance.flatten(1).sum(1), logits[range(2), LABELS], rtol=1e-4, atol=0
    )
