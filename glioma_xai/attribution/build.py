"""A composite for one model: every layer gets its hook, or the user an error before training."""

from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from difflib import get_close_matches

from torch import nn

from glioma_xai.attribution.batchnorm import BATCH_NORMS
from glioma_xai.attribution.composites import (
    FirstLayer,
    Options,
    Recipe,
    recipe,
    rule_by_name,
)
from glioma_xai.attribution.coverage import (
    AVERAGE_POOLS,
    DROPOUTS,
    GATES,
    VIEWS,
    called_by_position,
    has_inplace,
    refuse,
    uncovered_modules,
)
from glioma_xai.attribution.guards import check_rule, unwrapped
from glioma_xai.attribution.hooks import LiveHook
from glioma_xai.attribution.layers import CONVOLUTIONS, WEIGHT_LAYERS
from glioma_xai.attribution.live import LiveComposite, Setting
from glioma_xai.attribution.rules import Bound
from glioma_xai.attribution.steps import AveragePool, DropoutMask, Gate, Normalization, View
from glioma_xai.attribution.trace import Trace, trace
from glioma_xai.errors import CompatibilityError, ConfigError
from glioma_xai.records import Problem

KINDS: dict[str, tuple[type[nn.Module], ...]] = {
    "convolution": CONVOLUTIONS,
    "linear": (nn.Linear,),
    "batch_norm": BATCH_NORMS,
    "sigmoid": GATES,
}


def build_composite(
    name: str,
    model: nn.Module,
    *,
    input_shape: Sequence[int],
    layer: str | None = None,
    epsilon: float | None = None,
    stabilizer: float | None = None,
    relative_epsilon: bool | None = None,
    gamma: float | None = None,
    gamma_decreasing: bool | None = None,
    alpha: float | None = None,
    low: Bound | None = None,
    high: Bound | None = None,
    first_layer: FirstLayer | None = None,
    rules: Mapping[str, str | LiveHook] | None = None,
) -> LiveComposite:
    """Return the composite ``name`` for this model.

    Args:
        name: A key of ``COMPOSITES``.
        model: Returns logits, (B, classes); it is run once on a blank image, in eval mode.
        input_shape: Channels and spatial size, without the batch.
        layer: Read relevance at the output of this layer instead of the input. For a convolution
            with a BatchNorm behind it, that is the BatchNorm's output.
        epsilon: Stabilizer of the epsilon rule, 1e-6 if not given.
        stabilizer: Stabilizer of all other rules, 1e-6 if not given.
        relative_epsilon: Scale both by each layer's and sample's mean |output|.
        gamma: Of the gamma rule, 0.25 if not given.
        gamma_decreasing: Let gamma fall linearly with depth, to 0 at the last layer.
        alpha: Of the alpha-beta rule, at least 1, and beta is alpha - 1; 2 if not given.
        low: Smallest possible input, for the z-box rule, one or one a channel; -4 if not given.
        high: Largest possible input, for the z-box rule; 6 if not given.
        first_layer: Rule of the layers that read the image, instead of the composite's own.
        rules: Rules that differ from the composite's: by a layer's name, or by kind (convolution,
            linear, batch_norm, sigmoid); each a rule's name or an instance. Names go before kinds.

    Raises:
        ConfigError: Unknown name, layer or rule, a rule on a layer that it cannot treat, or an
            option out of range or without effect.
        CompatibilityError: A layer that no rule covers; raised before anything is run, except for
            functions, which only a run can show.
    """
    model = unwrapped(model)
    settings = {
        "epsilon": epsilon,
        "stabilizer": stabilizer,
        "relative_epsilon": relative_epsilon,
        "gamma": gamma,
        "gamma_decreasing": gamma_decreasing,
        "alpha": alpha,
        "low": low,
        "high": high,
        "first_layer": first_layer,
    }
    given = {key: value for key, value in settings.items() if value is not None}
    options = Options(**given)  # type: ignore[arg-type]
    wanted = dict(rules or {})
    chosen = [rule for rule in wanted.values() if isinstance(rule, str)]
    made = recipe(name, options, list(given), chosen)
    _check_names(model, [layer] if layer is not None else [], [*wanted])
    _check_rules(model, wanted, options)
    if made.convolution is None:
        hooks = _rectifiers(model, made)
    else:
        gates = _gates(model, wanted)
        refuse(uncovered_modules(model, gates))
        traced = _traced(model, input_shape, gates)
        refuse(traced.problems)
        hooks = _assign(model, made, options, traced, wanted)
    return LiveComposite(
        name,
        hooks,
        explains_gradient=made.convolution is None,
        multiplies_input=made.multiplies_input,
        layer=layer,
    )


def uncovered_layers(
    model: nn.Module,
    composite_name: str,
    input_shape: Sequence[int],
    rules: Mapping[str, str | LiveHook] | None = None,
) -> list[Problem]:
    """Return every layer of the model that the composite cannot treat; [] if there is none.

    Args:
        model: Returns logits; it is run once on a blank image if all of its modules are covered.
        composite_name: A key of ``COMPOSITES``; gradient methods accept every layer.
        input_shape: Channels and spatial size, without the batch.
        rules: As for ``build_composite``.

    Raises:
        ConfigError: Unknown composite or rule, or a rule on a layer that it cannot treat.
        CompatibilityError: The model does not run on this shape.
    """
    if recipe(composite_name, Options(), [], []).convolution is None:
        return []
    model, wanted = unwrapped(model), dict(rules or {})
    _check_rules(model, wanted, Options())
    gates = _gates(model, wanted)
    problems = list(uncovered_modules(model, gates))
    return problems or list(_traced(model, input_shape, gates).problems)


def _traced(model: nn.Module, input_shape: Sequence[int], gates: set[str]) -> Trace:
    """Run the model as a relevance pass does: nothing in place, every layer called by position."""
    with ExitStack() as stack:
        stack.enter_context(called_by_position(model))
        for module in model.modules():
            if has_inplace(module):
                stack.callback(Setting(module, "inplace", False).remove)
        return trace(model, tuple(input_shape), gates)


def _check_rules(model: nn.Module, wanted: Mapping[str, str | LiveHook], options: Options) -> None:
    modules = dict(model.named_modules())
    for key, asked in wanted.items():
        rule = rule_by_name(asked, options) if isinstance(asked, str) else asked
        name = asked if isinstance(asked, str) else type(asked).__name__
        for kind in (type(modules[key]),) if key in modules else KINDS.get(key, ()):
            check_rule(rule, kind, key=key, name=name)


def _gates(model: nn.Module, wanted: Mapping[str, str | LiveHook]) -> set[str]:
    """Names of the layers that the user takes for gates."""
    own = {name: _own_rule(name, module, wanted) for name, module in model.named_modules()}
    return {name for name, rule in own.items() if rule == "gate" or isinstance(rule, Gate)}


def _check_names(model: nn.Module, layers: Sequence[str], keys: Sequence[str]) -> None:
    names = [name for name, _ in model.named_modules()]
    for asked, known in [*((one, names) for one in layers), *((k, [*KINDS, *names]) for k in keys)]:
        if asked not in known:
            near = get_close_matches(asked, known, n=1)
            hint = f"Did you mean {near[0]}?" if near else "See model.named_modules()."
            raise ConfigError(f"expected the name of a layer of the model, got {asked}. {hint}")


def _rectifiers(model: nn.Module, made: Recipe) -> dict[str, LiveHook]:
    if made.rectifier is None:
        return {}
    return {n: made.rectifier for n, m in model.named_modules() if isinstance(m, nn.ReLU)}


def _assign(
    model: nn.Module,
    made: Recipe,
    options: Options,
    traced: Trace,
    wanted: Mapping[str, str | LiveHook],
) -> dict[str, LiveHook]:
    if made.first is not None and not traced.first:
        raise CompatibilityError(
            f"a first-layer rule needs a convolution or linear layer that reads the image: "
            f"expected one, got none in {type(model).__name__}. Let the first layer read the image "
            f"itself, or choose a composite without one, such as epsilon_plus."
        )
    hooks: dict[str, LiveHook] = {}
    for name, module in model.named_modules():
        own = _own_rule(name, module, wanted)
        hook = (
            (rule_by_name(own, options) if isinstance(own, str) else own)
            or _weight_rule(name, module, made, traced)
            or _step(module, options)
        )
        if hook is not None:
            hooks[name] = hook
    return hooks


def _own_rule(
    name: str, module: nn.Module, wanted: Mapping[str, str | LiveHook]
) -> str | LiveHook | None:
    if name in wanted:
        return wanted[name]
    return next(
        (
            wanted[kind]
            for kind, types in KINDS.items()
            if kind in wanted and isinstance(module, types)
        ),
        None,
    )


def _weight_rule(name: str, module: nn.Module, made: Recipe, traced: Trace) -> LiveHook | None:
    if not isinstance(module, WEIGHT_LAYERS):
        return None
    if made.first is not None and name in traced.first:
        return made.first
    rule = made.convolution if isinstance(module, CONVOLUTIONS) else made.linear
    assert rule is not None
    return rule(traced.depth(name))


def _step(module: nn.Module, options: Options) -> LiveHook | None:
    if isinstance(module, BATCH_NORMS):
        return Normalization(options.for_epsilon())
    if isinstance(module, AVERAGE_POOLS):
        return AveragePool(options.for_others())
    if isinstance(module, DROPOUTS):
        return DropoutMask()
    return View() if isinstance(module, VIEWS) else None
