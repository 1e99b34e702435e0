"""Rules and numbers that the user sets: exact in the weights, and refused where they do not fit."""

import pytest
import torch
from torch import Tensor, nn
from zennit import composites as stock
from zennit import rules, types

from glioma_xai.attribution import (
    build_composite,
    compute_relevance,
    uncovered_layers,
)
from glioma_xai.attribution.rules import AlphaBeta, Epsilon, Gamma, ZBox
from glioma_xai.attribution.stabilizer import Stabilizer
from glioma_xai.errors import ConfigError
from tests.unit.attribution import nets
from tests.unit.attribution.differences import Comparison, compare
from tests.unit.attribution.exactness import energy_loss

SHAPE = (2, 16, 16)


def check(net: str, composite: str, *, train: bool = False, **options: object) -> Comparison:
    """Compare with differences; images in which too many directions cross a kink are exchanged."""
    model = nets.NETS[net]().train(train)
    for seed in range(2, 10):
        images = nets.images(net, seed=seed)
        built = build_composite(
            composite,
            model,
            input_shape=images.shape[1:],
            **{"epsilon": 1e-2, "stabilizer": 1e-2} | options,
        )
        found = compare(model, energy_loss(model, images, built, nets.LABELS))
        if found.kinks <= 0.1:
            break
    return found


@pytest.mark.parametrize("train", [False, True], ids=["eval", "train"])
@pytest.mark.parametrize(
    ("net", "chosen"),
    [
        ("plain", {"0": "wsquare"}),
        ("vgg", {"0": "wsquare", "linear": "zplus"}),
        ("vgg", {"batch_norm": "pass"}),
        ("unusual_norms", {"3": "pass", "7": "pass"}),
        ("vgg", {"batch_norm": "norm"}),
        ("unusual_norms", {"3": "norm", "convolution": "gamma"}),
        ("dense", {"batch_norm": "norm"}),
    ],
    ids=str,
)
def test_rules_of_the_user_agree_with_finite_differences(
    net: str, chosen: dict[str, str], train: bool
) -> None:
    found = check(net, "epsilon", train=train, rules=chosen)
    assert found.kinks <= 0.1
    assert found.worst <= 1e-6


@pytest.mark.parametrize("alpha", [1.0, 1.5, 3.0])
@pytest.mark.parametrize("net", ["paper_cnn", "residual_2d"])
def test_every_alpha_agrees_with_finite_differences(net: str, alpha: float) -> None:
    found = check(net, "epsilon_alpha2_beta1", alpha=alpha)
    assert found.kinks <= 0.1
    assert found.worst <= 1e-6


@pytest.mark.parametrize("train", [False, True], ids=["eval", "train"])
@pytest.mark.parametrize("net", ["paper_cnn", "plain"])
def test_gamma_that_falls_agrees_with_finite_differences(net: str, train: bool) -> None:
    found = check(net, "gamma", train=train, gamma=1.0, gamma_decreasing=True)
    assert found.kinks <= 0.1
    assert found.worst <= 1e-6


def relevance_of(composite: object) -> Tensor:
    model, images = nets.plain(), nets.images("plain")
    return compute_relevance(model, images, composite, labels=nets.LABELS)[1]


@pytest.mark.parametrize("alpha", [1.0, 1.5, 3.0])
def test_alpha_by_name_equals_stock_zennit(alpha: float) -> None:
    ours = build_composite("epsilon_alpha2_beta1", nets.plain(), input_shape=SHAPE, alpha=alpha)
    theirs = stock.LayerMapComposite(
        [
            *stock.layer_map_base(),
            (types.Convolution, rules.AlphaBeta(alpha=alpha, beta=alpha - 1)),
            (types.Linear, rules.Epsilon()),
        ]
    )
    torch.testing.assert_close(relevance_of(ours), relevance_of(theirs), rtol=1e-6, atol=1e-9)


def test_alpha_reaches_every_alpha_beta_rule_and_no_other_composite() -> None:
    model = nets.plain()

    def alphas(name: str, **options: object) -> set[float]:
        built = build_composite(name, model, input_shape=SHAPE, alpha=3.0, **options)
        return {rule.alpha for rule in built.rules.values() if isinstance(rule, AlphaBeta)}

    assert alphas("epsilon_alpha2_beta1_flat") == {3.0}
    assert alphas("epsilon", first_layer="alphabeta") == {3.0}
    assert alphas("epsilon", rules={"2": "alphabeta"}) == {3.0}
    for name in ("epsilon", "epsilon_plus", "excitation_backprop"):
        with pytest.raises(ConfigError, match=f"alpha has no effect on attribution={name}"):
            build_composite(name, model, input_shape=SHAPE, alpha=3.0)
    with pytest.raises(ConfigError, match=r"expected alpha >= 1, got 0\.5"):
        build_composite("epsilon_alpha2_beta1", model, input_shape=SHAPE, alpha=0.5)


WEIGHTS = r"expected epsilon, zplus, alphabeta or gamma \(flat, wsquare or zbox"


@pytest.mark.parametrize(
    ("chosen", "message"),
    [
        ({"batch_norm": "zplus"}, "rules.batch_norm must fit BatchNorm1d: expected norm or pass"),
        ({"1": "epsilon"}, "rules.1 must fit BatchNorm2d: expected norm or pass, got epsilon"),
        ({"2": "zplus"}, "rules.2 must fit ReLU: expected no rule, got zplus"),
        ({"2": "gate"}, "rules.2 must fit ReLU: expected no rule, got gate"),
        ({"8": "pass"}, "rules.8 must fit AdaptiveAvgPool2d: expected no rule, got pass"),
        ({"convolution": "norm"}, f"rules.convolution must fit Conv1d: {WEIGHTS}"),
        ({"0": "gate"}, f"rules.0 must fit Conv2d: {WEIGHTS}.*got gate"),
        ({"linear": "pass"}, f"rules.linear must fit Linear: {WEIGHTS}.*got pass"),
        ({"sigmoid": "zplus"}, "rules.sigmoid must fit Sigmoid: expected gate, got zplus"),
        ({"2": Epsilon()}, "rules.2 must fit ReLU: expected no rule, got Epsilon"),
        ({"convolution": nn.ReLU}, "rules.convolution must be a rule: .*ReLU"),
        ({"convolution": None}, "rules.convolution must be a rule: .*got None"),
        ({"0": rules.Epsilon()}, "rules.0 must be a rule: expected one of .*Epsilon"),
        ({"0": Epsilon(Stabilizer(float("nan")))}, r"epsilon of rules\.0 must be finite.*got nan"),
        ({"0": Gamma(gamma=float("nan"))}, r"gamma of rules\.0 must be finite.*got nan"),
        ({"0": ZBox(high=float("inf"))}, r"high of rules\.0 must be finite.*got inf"),
    ],
    ids=lambda value: value if isinstance(value, str) else next(iter(value)),
)
def test_rules_that_do_not_fit_are_named(chosen: dict[str, object], message: str) -> None:
    model = nets.vgg()
    with pytest.raises(ConfigError, match=message):
        build_composite("epsilon", model, input_shape=SHAPE, rules=chosen)
    with pytest.raises(ConfigError, match=message):
        uncovered_layers(model, "epsilon", SHAPE, chosen)


@pytest.mark.parametrize("value", [float("nan"), float("inf"), "much"])
@pytest.mark.parametrize(
    ("name", "option"),
    [
        ("epsilon", "epsilon"),
        ("zplus", "stabilizer"),
        ("gamma", "gamma"),
        ("epsilon_alpha2_beta1", "alpha"),
        ("epsilon_gamma_box", "low"),
        ("epsilon_gamma_box", "high"),
    ],
)
def test_numbers_that_are_not_finite_are_refused(name: str, option: str, value: object) -> None:
    with pytest.raises(ConfigError, match=f"{option} must be finite: expected a number, got"):
        build_composite(name, nets.plain(), input_shape=SHAPE, **{option: value})


@pytest.mark.parametrize("first", ["norm", "pass", "gate"])
def test_first_layer_takes_rules_of_weight_layers(first: str) -> None:
    with pytest.raises(ConfigError, match=f"expected one of epsilon, zplus, .*, got {first}"):
        build_composite("epsilon", nets.plain(), input_shape=SHAPE, first_layer=first)
