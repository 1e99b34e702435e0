"""Layers that relevance cannot pass are named before training; options are checked."""

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional, utils
from torch.nn.utils import parametrize

from glioma_xai.attribution import build_composite, compute_relevance, uncovered_layers
from glioma_xai.attribution.rules import AlphaBeta, Gamma, ZBox
from glioma_xai.errors import CompatibilityError, ConfigError
from tests.unit.attribution import nets

SHAPE = (2, 16, 16)


def with_layer(layer: nn.Module) -> nn.Module:
    return nn.Sequential(
        nn.Conv2d(2, 4, 3), layer, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4, 3)
    )


@pytest.mark.parametrize(
    ("layer", "fix"),
    [
        (nn.SiLU(), "replace it by ReLU"),
        (nn.GELU(), "replace it by ReLU"),
        (nn.Sigmoid(), "replace it by ReLU"),
        (nn.Hardtanh(), "replace it by ReLU or LeakyReLU"),
        (nn.GroupNorm(2, 4), "replace it by BatchNorm"),
        (nn.InstanceNorm2d(4), "replace it by BatchNorm"),
        (nn.LayerNorm(14), "replace it by BatchNorm"),
        (nn.ConvTranspose2d(4, 4, 3), "replace it by Upsample and a convolution"),
        (nn.LSTM(14, 14), "use a convolutional network"),
        (nn.MultiheadAttention(4, 2), "use a convolutional network"),
        (nn.Softmax(1), "let the model return logits"),
        (nn.Bilinear(4, 4, 4), "build it from convolutions, linear layers and ReLU"),
        (nn.Conv2d(4, 4, 3, padding=1, padding_mode="reflect"), "use padding_mode='zeros'"),
    ],
    ids=lambda value: type(value).__name__ if isinstance(value, nn.Module) else "",
)
def test_uncovered_layer_is_named_with_a_fix(layer: nn.Module, fix: str) -> None:
    model = with_layer(layer)
    message = f"{type(layer).__name__} at 1: {fix}"
    with pytest.raises(CompatibilityError, match=message):
        build_composite("epsilon_plus", model, input_shape=SHAPE)
    (problem,) = uncovered_layers(model, "epsilon_plus", SHAPE)
    assert "choose attribution=gradient" in problem.fix
    assert uncovered_layers(model, "gradient", SHAPE) == []


def test_gradient_methods_accept_every_layer() -> None:
    model = with_layer(nn.SiLU())
    images, labels = torch.randn(2, *SHAPE), torch.tensor([0, 1])
    for name in ("gradient", "gradient_times_input", "guided_backprop"):
        composite = build_composite(name, model, input_shape=SHAPE)
        assert compute_relevance(model, images, composite, labels=labels)[1].abs().sum() > 0


class Function(nn.Module):
    """A network with a function between its layers."""

    def __init__(self, function: object) -> None:
        super().__init__()
        self.conv, self.gate, self.out = nn.Conv2d(2, 4, 3), nn.Conv2d(2, 4, 3), nn.Linear(4, 3)
        self.function = function
        self.weight = nn.Parameter(torch.randn(4, 4, 1, 1))

    def forward(self, x: Tensor) -> Tensor:
        return self.out(self.function(self.conv(x), self).mean((2, 3)))


@pytest.mark.parametrize(
    ("function", "name"),
    [
        (lambda x, m: functional.silu(x), "silu"),
        (lambda x, m: torch.sigmoid(x), "sigmoid"),
        (lambda x, m: x * x, "mul"),
        (lambda x, m: x / (1 + x.abs()), "div"),
        (lambda x, m: x**2, "pow"),
        (lambda x, m: functional.conv2d(x, m.weight), "convolution"),
        (lambda x, m: functional.instance_norm(x), "nativebatchnorm"),
    ],
)
def test_function_that_relevance_cannot_pass_is_named(function: object, name: str) -> None:
    model = Function(function)
    with pytest.raises(CompatibilityError, match=f"function {name} in the model's forward pass"):
        build_composite("epsilon", model, input_shape=SHAPE)
    assert len(uncovered_layers(model, "epsilon", SHAPE)) >= 1


@pytest.mark.parametrize(
    "function",
    [
        lambda x, m: functional.relu(x) * 2 + functional.max_pool2d(x, 3, 1, 1) / 3,
        lambda x, m: torch.cat([x[:, :2], x[:, 2:].expand(-1, 2, -1, -1)], 1),
        lambda x, m: functional.dropout(functional.leaky_relu(x), 0.5, m.training),
        lambda x, m: functional.pad(x, (1, 1, 1, 1)).transpose(2, 3).abs(),
    ],
)
def test_piecewise_linear_functions_pass(function: object) -> None:
    assert uncovered_layers(Function(function), "epsilon", SHAPE) == []


class StandardConv(nn.Conv2d):
    """Weight standardisation, which a rule that reads ``weight`` does not see."""

    def forward(self, x: Tensor) -> Tensor:
        weight = self.weight - self.weight.mean((1, 2, 3), keepdim=True)
        return functional.conv2d(x, weight / weight.std(), self.bias)


class CoupledConv(nn.Conv2d):
    """The same in what a convolution's forward calls."""

    def _conv_forward(self, x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        return super()._conv_forward(x, weight * 2, bias)


class NormAct(nn.BatchNorm2d):
    """BatchNorm with the activation in it, and a part of its own."""

    def __init__(self, width: int) -> None:
        super().__init__(width)
        self.act = nn.ReLU()

    def forward(self, x: Tensor) -> Tensor:
        return self.act(super().forward(x))


class Clipped(nn.ReLU):
    """Not a ReLU at all."""

    def forward(self, x: Tensor) -> Tensor:
        return x.clamp(0, 1)


class Named(nn.Conv2d):
    """Computes what its parent does."""

    extra = True


@pytest.mark.parametrize(
    ("layer", "kind"),
    [
        (StandardConv(4, 4, 3), "Conv2d"),
        (CoupledConv(4, 4, 3), "Conv2d"),
        (NormAct(4), "BatchNorm2d"),
        (Clipped(), "ReLU"),
    ],
    ids=lambda value: type(value).__name__ if isinstance(value, nn.Module) else "",
)
def test_subclass_with_a_forward_of_its_own_is_refused(layer: nn.Module, kind: str) -> None:
    message = f"{type(layer).__name__} at 1: use {kind} itself.*is a {kind} with a forward of its"
    with pytest.raises(CompatibilityError, match=message):
        build_composite("epsilon", with_layer(layer), input_shape=SHAPE)


def test_forward_exchanged_on_a_layer_is_refused() -> None:
    model = with_layer(nn.Conv2d(4, 4, 3))
    model[1].forward = lambda x: x * 2
    with pytest.raises(CompatibilityError, match="Conv2d at 1: use Conv2d itself"):
        build_composite("epsilon", model, input_shape=SHAPE)


class Centred(nn.Module):
    """A weight minus its mean, for ``torch.nn.utils.parametrize``."""

    def forward(self, weight: Tensor) -> Tensor:
        return weight - weight.mean((1, 2, 3), keepdim=True)


def centred(layer: nn.Module) -> nn.Module:
    parametrize.register_parametrization(layer, "weight", Centred())
    return layer


@pytest.mark.filterwarnings("ignore:.*weight_norm:FutureWarning")
@pytest.mark.parametrize("change", [lambda layer: layer, centred, utils.weight_norm])
def test_subclasses_with_live_weights_conserve(change: Callable[[nn.Module], nn.Module]) -> None:
    model = nn.Sequential(
        change(Named(2, 4, 3, bias=False)), nn.ReLU(), nn.Flatten(), nn.Linear(784, 3, bias=False)
    ).double()
    composite = build_composite("epsilon", model, input_shape=SHAPE, epsilon=1e-12)
    images = nets.images("plain")
    logits, relevance = compute_relevance(
        model, images, composite, labels=nets.LABELS, create_graph=True
    )
    explained = logits[range(3), nets.LABELS]
    torch.testing.assert_close(relevance.flatten(1).sum(1), explained, rtol=1e-6, atol=0)
    relevance.square().sum().backward()
    assert all(p.grad is not None for p in model.parameters())


def test_reflecting_padding_is_refused_behind_a_parametrization_too() -> None:
    layer = centred(nn.Conv2d(4, 4, 3, padding=1, padding_mode="reflect"))
    with pytest.raises(CompatibilityError, match="use padding_mode='zeros'"):
        build_composite("epsilon", with_layer(layer), input_shape=SHAPE)


def test_layer_called_by_keyword_is_named() -> None:
    class ByKeyword(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.conv, self.out = nn.Conv2d(2, 4, 3), nn.Linear(4, 3)

        def forward(self, x: Tensor) -> Tensor:
            return self.out(self.conv(input=x).mean((2, 3)))

    model = ByKeyword()
    with pytest.raises(CompatibilityError, match=r"Conv2d at conv must be .* got layer\(input=x\)"):
        build_composite("epsilon", model, input_shape=SHAPE)
    assert not any(module._forward_pre_hooks for module in model.modules())
    assert build_composite("gradient", model, input_shape=SHAPE).name == "gradient"


@pytest.mark.parametrize(
    ("name", "options", "message"),
    [
        ("epsilon_pluss", {}, "got epsilon_pluss. Did you mean epsilon_plus"),
        ("epsilon", {"gamma": 0.5}, "gamma has no effect on attribution=epsilon"),
        ("epsilon_plus", {"low": 0.0}, "low has no effect on attribution=epsilon_plus"),
        ("epsilon_plus", {"gamma_decreasing": True}, "gamma_decreasing has no effect"),
        ("gradient", {"first_layer": "flat"}, "attribution=gradient has no rules"),
        ("epsilon", {"first_layer": "flatt"}, "got flatt. Did you mean flat"),
        ("epsilon", {"rules": {"linear": "zpluss"}}, "got zpluss. Did you mean zplus"),
        ("epsilon", {"rules": {"linea": "zplus"}}, "got linea. Did you mean linear"),
        ("epsilon", {"layer": "14"}, "expected the name of a layer of the model, got 14"),
        ("epsilon_gamma_box", {"low": 6.0}, "expected low < high in each channel"),
        ("gamma", {"gamma": -1.0}, "gamma must be at least 0, got -1"),
        ("epsilon", {"epsilon": -1.0}, "epsilon must be at least 0, got -1"),
        ("epsilon", {"rules": {"2": "flat"}}, "Flat rule emits relevance .* that of 2"),
    ],
)
def test_mistakes_in_options_are_named(name: str, options: dict[str, object], message: str) -> None:
    model, images = nets.plain(), nets.images("plain")
    with pytest.raises((ConfigError, CompatibilityError), match=message):
        compute_relevance(
            model,
            images,
            build_composite(name, model, input_shape=SHAPE, **options),
            labels=nets.LABELS,
        )


def test_rules_check_their_numbers() -> None:
    with pytest.raises(ConfigError, match=r"expected alpha >= 1, got 0\.5"):
        AlphaBeta(alpha=0.5)
    model, images = nets.plain(), nets.images("plain")
    with pytest.raises(ConfigError, match="expected 1 or 2 values, got 3"):
        compute_relevance(
            model,
            images,
            build_composite(
                "epsilon",
                model,
                input_shape=SHAPE,
                rules={"0": ZBox(low=[0, 0, 0], high=[1, 1, 1])},
            ),
            labels=nets.LABELS,
        )


def test_rules_by_name_go_before_kinds_before_the_composite() -> None:
    model = nets.plain()
    own = Gamma(gamma=0.7)
    composite = build_composite(
        "epsilon", model, input_shape=SHAPE, rules={"convolution": "zplus", "2": own}
    )
    kinds = {name: type(rule).__name__ for name, rule in composite.rules.items()}
    assert kinds["0"] == "ZPlus"
    assert composite.rules["2"] is own
    assert kinds["11"] == "Epsilon"


def test_gamma_falls_with_depth() -> None:
    composite = build_composite(
        "gamma", nets.plain(), input_shape=SHAPE, gamma=1.0, gamma_decreasing=True
    )
    gammas = [rule.gamma for rule in composite.rules.values() if isinstance(rule, Gamma)]
    assert gammas == [1.0, 0.75, 0.5, 0.25, 0.0]


def test_composite_of_another_model_is_refused() -> None:
    composite = build_composite("epsilon", nets.plain(), input_shape=SHAPE)
    with pytest.raises(CompatibilityError, match="was built for another model"):
        compute_relevance(
            nets.residual(2), nets.images("residual_2d"), composite, labels=nets.LABELS
        )


def test_shape_and_output_of_the_model_are_checked() -> None:
    with pytest.raises(CompatibilityError, match=r"must run on input_shape: .* got \(3, 16, 16\)"):
        build_composite("epsilon", nets.plain(), input_shape=(3, 16, 16))
    with pytest.raises(CompatibilityError, match=r"expected \(B, classes\), got \(1, 4, 14, 14\)"):
        build_composite("epsilon", nn.Conv2d(2, 4, 3), input_shape=SHAPE)
