"""Composites by name: which kind of layer gets which rule."""

from collections.abc import Callable, Collection
from dataclasses import dataclass, replace
from difflib import get_close_matches
from typing import Literal, get_args

import torch

from glioma_xai.attribution.hooks import LiveHook
from glioma_xai.attribution.rules import (
    AlphaBeta,
    Bound,
    Epsilon,
    Flat,
    Gamma,
    WSquare,
    ZBox,
    ZPlus,
)
from glioma_xai.attribution.stabilizer import Stabilizer
from glioma_xai.attribution.steps import Gate, GuidedReLU, Normalization, Pass
from glioma_xai.errors import ConfigError

FirstLayer = Literal["epsilon", "zplus", "alphabeta", "gamma", "flat", "wsquare", "zbox"]


@dataclass(frozen=True)
class Options:
    """Numbers that rules take.

    Args:
        epsilon: Stabilizer of the epsilon rule and of a BatchNorm that stands alone, in units of
            the layer's output; a share of its mean absolute value with ``relative_epsilon``.
        stabilizer: The same for all other rules.
        relative_epsilon: Scale both by each layer's and sample's mean |output|.
        gamma: Of the gamma rule.
        gamma_decreasing: Let gamma fall linearly from ``gamma`` at the first layer to 0 at the
            last; only the gamma composite does.
        alpha: Of the alpha-beta rule, at least 1; beta is alpha - 1.
        low: Smallest possible input, for the z-box rule; one number or one a channel.
        high: Largest possible input.
        first_layer: Rule of the layers that read the image, instead of the composite's own.

    Raises:
        ConfigError: A number that is none, or infinite.
    """

    epsilon: float = 1e-6
    stabilizer: float = 1e-6
    relative_epsilon: bool = False
    gamma: float = 0.25
    gamma_decreasing: bool = False
    alpha: float = 2.0
    low: Bound = -4.0
    high: Bound = 6.0
    first_layer: FirstLayer | None = None

    def __post_init__(self) -> None:
        for name in ("epsilon", "stabilizer", "gamma", "alpha", "low", "high"):
            check_finite(name, getattr(self, name))

    def for_epsilon(self) -> Stabilizer:
        """Return the stabilizer of the epsilon rule."""
        return Stabilizer(self.epsilon, self.relative_epsilon)

    def for_others(self) -> Stabilizer:
        """Return the stabilizer of all other rules."""
        return Stabilizer(self.stabilizer, self.relative_epsilon)


def check_finite(name: str, value: object) -> None:
    """Raise unless the value holds finite numbers only.

    Raises:
        ConfigError: Names the option.
    """
    try:
        finite = bool(torch.isfinite(torch.as_tensor(value)).all())
    except (TypeError, ValueError, RuntimeError):
        finite = False
    if not finite:
        raise ConfigError(
            f"{name} must be finite: expected a number, got {value}. Leave {name} out for its "
            f"default."
        )


RULES: dict[str, Callable[[Options], LiveHook]] = {
    "epsilon": lambda options: Epsilon(options.for_epsilon()),
    "zplus": lambda options: ZPlus(options.for_others()),
    "alphabeta": lambda options: AlphaBeta(options.for_others(), alpha=options.alpha),
    "gamma": lambda options: Gamma(options.for_others(), gamma=options.gamma),
    "flat": lambda options: Flat(options.for_others()),
    "wsquare": lambda options: WSquare(options.for_others()),
    "zbox": lambda options: ZBox(options.for_others(), low=options.low, high=options.high),
    "norm": lambda options: Normalization(options.for_epsilon()),
    "pass": lambda options: Pass(options.for_others()),
    "gate": lambda options: Gate(),
}

RuleAtDepth = Callable[[float], LiveHook]


@dataclass(frozen=True)
class Recipe:
    """What a composite is made of.

    Args:
        convolution: Rule of convolutions by depth, 0 at the first weight layer and 1 at the last;
            None leaves all layers to their natural gradient.
        linear: Rule of linear layers by depth.
        first: Rule of the layers that read the image; None if they are like the others.
        rectifier: Hook of ReLU; None for its natural gradient.
        multiplies_input: Return input * coefficient, not the coefficient.
        rules: Names of the rules in it, which say what options have an effect.
    """

    convolution: RuleAtDepth | None = None
    linear: RuleAtDepth | None = None
    first: LiveHook | None = None
    rectifier: LiveHook | None = None
    multiplies_input: bool = True
    rules: frozenset[str] = frozenset()


Builder = Callable[[Options], Recipe]


def by_rules(convolution: str, linear: str, *, first: str | None = None) -> Builder:
    """Return the builder of a composite with one rule for each kind of layer."""

    def build(options: Options) -> Recipe:
        return Recipe(
            convolution=_everywhere(RULES[convolution](options)),
            linear=_everywhere(RULES[linear](options)),
            first=None if first is None else RULES[first](options),
            rules=frozenset({convolution, linear, *([first] if first else [])}),
        )

    return build


def _everywhere(rule: LiveHook) -> RuleAtDepth:
    return lambda depth: rule


def _gamma(options: Options) -> Recipe:
    def at(depth: float) -> LiveHook:
        share = 1 - depth if options.gamma_decreasing else 1.0
        return Gamma(options.for_others(), gamma=share * options.gamma)

    return Recipe(convolution=at, linear=at, rules=frozenset({"gamma", "gamma_decreasing"}))


COMPOSITES: dict[str, Builder] = {
    "gradient": lambda options: Recipe(multiplies_input=False),
    "gradient_times_input": lambda options: Recipe(),
    "guided_backprop": lambda options: Recipe(rectifier=GuidedReLU(), multiplies_input=False),
    "epsilon": by_rules("epsilon", "epsilon"),
    "zplus": by_rules("zplus", "zplus"),
    "epsilon_plus": by_rules("zplus", "epsilon"),
    "epsilon_plus_flat": by_rules("zplus", "epsilon", first="flat"),
    "epsilon_gamma_box": by_rules("gamma", "epsilon", first="zbox"),
    "epsilon_alpha2_beta1": by_rules("alphabeta", "epsilon"),
    "epsilon_alpha2_beta1_flat": by_rules("alphabeta", "epsilon", first="flat"),
    "gamma": _gamma,
    # Zhang et al. (2016), ECCV: marginal winning probabilities are z+ relevance.
    "excitation_backprop": by_rules("zplus", "zplus"),
}

_ALWAYS = {"epsilon", "stabilizer", "relative_epsilon"}  # harmless where nothing divides
_NEEDED_BY = {
    "gamma": "gamma",
    "alpha": "alphabeta",
    "low": "zbox",
    "high": "zbox",
    "gamma_decreasing": "gamma_decreasing",
}


def recipe(name: str, options: Options, given: Collection[str], chosen: Collection[str]) -> Recipe:
    """Return what the composite ``name`` is made of.

    Args:
        name: A key of ``COMPOSITES``.
        options: Numbers for its rules.
        given: Names of the options that the user set.
        chosen: Names of the rules that the user chose layer by layer.

    Raises:
        ConfigError: Unknown name, or an option that has no effect here.
    """
    if name not in COMPOSITES:
        near = get_close_matches(name, COMPOSITES, n=1)
        hint = f"Did you mean {near[0]}?" if near else "Choose one of these."
        raise ConfigError(f"attribution must be one of {', '.join(COMPOSITES)}, got {name}. {hint}")
    made = COMPOSITES[name](options)
    useless = [*chosen, *(option for option in given if option not in _ALWAYS)]
    if made.convolution is None and useless:
        raise ConfigError(
            f"attribution={name} has no rules: expected no options for them, got "
            f"{', '.join(useless)}. Leave them out, or choose attribution=epsilon."
        )
    if options.first_layer is not None:
        first = rule_by_name(options.first_layer, options)
        if options.first_layer not in get_args(FirstLayer):
            raise ConfigError(
                f"first_layer must be a rule of weight layers: expected one of "
                f"{', '.join(get_args(FirstLayer))}, got {options.first_layer}. Choose one."
            )
        made = replace(made, first=first, rules=made.rules | {options.first_layer})
    for option in given:
        needed = _NEEDED_BY.get(option)
        if needed is not None and needed not in {*made.rules, *chosen}:
            raise ConfigError(
                f"{option} has no effect on attribution={name}: expected a composite with the "
                f"{needed} rule, got {', '.join(sorted(made.rules))}. Leave {option} out."
            )
    return made


def rule_by_name(name: str, options: Options) -> LiveHook:
    """Return a rule.

    Raises:
        ConfigError: If there is no rule of this name.
    """
    if name not in RULES:
        near = get_close_matches(name, RULES, n=1)
        hint = f"Did you mean {near[0]}?" if near else "Choose one of these."
        raise ConfigError(f"a rule must be one of {', '.join(RULES)}, got {name}. {hint}")
    return RULES[name](options)
