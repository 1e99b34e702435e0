"""Composites: which rule a layer gets."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from difflib import get_close_matches
from typing import Literal

from torch import nn
from zennit.core import Composite, Hook

from glioma_xai.attribution.batchnorm import BATCH_NORMS
from glioma_xai.attribution.coverage import (
    AVERAGE_POOLS,
    DROPOUTS,
    VIEWS,
    has_inplace,
    refuse_uncovered,
)
from glioma_xai.attribution.layers import CONVOLUTIONS, WEIGHT_LAYERS
from glioma_xai.attribution.rules import Epsilon, Flat, LiveHook, WeightRule, ZPlus
from glioma_xai.attribution.stabilizer import Stabilizer
from glioma_xai.attribution.steps import (
    AveragePool,
    Boundary,
    DropoutMask,
    Normalization,
    Reading,
    Setting,
    View,
)
from glioma_xai.attribution.tape import Tape
from glioma_xai.attribution.trace import Trace, trace
from glioma_xai.errors import CompatibilityError, ConfigError

FirstLayer = Literal["epsilon", "zplus", "flat"]


@dataclass(frozen=True)
class Options:
    """Numbers that rules take.

    Args:
        epsilon: Stabilizer of the epsilon rule and of a BatchNorm that stands alone, in units of
            the layer's output; a share of its mean absolute value with ``relative_epsilon``.
        stabilizer: The same for all other rules.
        relative_epsilon: Scale both by each layer's and sample's mean |output|.
        first_layer: Rule of the layers that read the image, instead of the composite's own.
    """

    epsilon: float = 1e-6
    stabilizer: float = 1e-6
    relative_epsilon: bool = False
    first_layer: FirstLayer | None = None

    def for_epsilon(self) -> Stabilizer:
        """Return the stabilizer of the epsilon rule."""
        return Stabilizer(self.epsilon, self.relative_epsilon)

    def for_others(self) -> Stabilizer:
        """Return the stabilizer of all other rules."""
        return Stabilizer(self.stabilizer, self.relative_epsilon)


@dataclass(frozen=True)
class Recipe:
    """What a composite is made of.

    Args:
        convolution: Rule of convolutions; None leaves all layers to their natural gradient.
        linear: Rule of linear layers.
        first: Rule of the layers that read the image; None if they are like the others.
        multiplies_input: Return input * coefficient, not the coefficient.
    """

    convolution: WeightRule | None = None
    linear: WeightRule | None = None
    first: WeightRule | None = None
    multiplies_input: bool = True


def _gradient(options: Options) -> Recipe:
    return Recipe(multiplies_input=False)


def _gradient_times_input(options: Options) -> Recipe:
    return Recipe()


def _epsilon(options: Options) -> Recipe:
    rule = Epsilon(options.for_epsilon())
    return Recipe(convolution=rule, linear=rule)


def _zplus(options: Options) -> Recipe:
    rule = ZPlus(options.for_others())
    return Recipe(convolution=rule, linear=rule)


def _epsilon_plus(options: Options) -> Recipe:
    return Recipe(convolution=ZPlus(options.for_others()), linear=Epsilon(options.for_epsilon()))


def _epsilon_plus_flat(options: Options) -> Recipe:
    return replace(_epsilon_plus(options), first=Flat(options.for_others()))


COMPOSITES: dict[str, Callable[[Options], Recipe]] = {
    "gradient": _gradient,
    "gradient_times_input": _gradient_times_input,
    "epsilon": _epsilon,
    "zplus": _zplus,
    "epsilon_plus": _epsilon_plus,
    "epsilon_plus_flat": _epsilon_plus_flat,
}

_FIRST_LAYER: dict[FirstLayer, Callable[[Options], WeightRule]] = {
    "epsilon": lambda options: Epsilon(options.for_epsilon()),
    "zplus": lambda options: ZPlus(options.for_others()),
    "flat": lambda options: Flat(options.for_others()),
}


class LiveComposite(Composite):
    """A Zennit composite whose relevance is differentiable in the weights.

    At its borders it takes and returns relevance, so Zennit's attributors can use it; inside it
    carries coefficients.

    Args:
        name: As the user knows it.
        rules: Hook of each layer that needs one, by the layer's name in the model.
        explains_gradient: The backward pass starts from the target's coefficient alone, not from
            coefficient * logit.
        multiplies_input: Return input * coefficient, not the coefficient.
        layer: Read relevance at this layer's output instead of the input.
    """

    def __init__(
        self,
        name: str,
        rules: Mapping[str, LiveHook],
        *,
        explains_gradient: bool = False,
        multiplies_input: bool = True,
        layer: str | None = None,
    ) -> None:
        super().__init__(module_map=self._rule_of)
        self.name = name
        self.explains_gradient = explains_gradient
        self.multiplies_input = multiplies_input
        self.layer = layer
        self.rules = dict(rules)
        self.tape = Tape()
        self.accepts_relevance = not explains_gradient

    def _rule_of(self, context: dict[str, object], name: str, module: nn.Module) -> Hook | None:
        return self.rules.get(name)

    def register(self, module: nn.Module) -> None:
        """Install all hooks; none is left if one cannot be installed.

        Raises:
            CompatibilityError: If the model is not the one that the composite was built for.
        """
        self.remove()
        try:
            self._install(module)
        except BaseException:
            self.remove()
            raise

    def _install(self, model: nn.Module) -> None:
        self.tape = Tape()
        missing = self.rules.keys() - dict(model.named_modules()).keys()
        if missing:
            raise CompatibilityError(
                f"composite {self.name} was built for another model: expected layers "
                f"{', '.join(sorted(missing))}, got {type(model).__name__} without them. Build it "
                f"again with build_composite."
            )
        for name, module in model.named_modules():
            template = self.module_map({}, name, module)
            if template is not None:
                self._attach(template.copy(), name, module)
            if self.rules and has_inplace(module):
                self.handles.append(Setting(module, "inplace", False))
            if name == self.layer:
                self._attach(Reading(), name, module)
        boundary = Boundary(
            accepts_relevance=self.accepts_relevance, multiplies_input=self.multiplies_input
        )
        self._attach(boundary, "", model)

    def _attach(self, hook: LiveHook, name: str, module: nn.Module) -> None:
        hook.name = name
        hook.tape = self.tape
        self.hook_refs.add(hook)
        self.handles.append(hook.register(module))

    @contextmanager
    def seeded_by_coefficients(self) -> Iterator[None]:
        """Take the target's coefficients at the output, as ``compute_relevance`` sends them."""
        before, self.accepts_relevance = self.accepts_relevance, False
        try:
            yield
        finally:
            self.accepts_relevance = before


def build_composite(
    name: str,
    model: nn.Module,
    *,
    input_shape: Sequence[int],
    layer: str | None = None,
    epsilon: float | None = None,
    stabilizer: float | None = None,
    relative_epsilon: bool | None = None,
    first_layer: FirstLayer | None = None,
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
        first_layer: Rule of the layers that read the image, instead of the composite's own.

    Raises:
        ConfigError: Unknown name, layer, or an option out of range or without effect.
        CompatibilityError: A layer that no rule covers; raised before anything is run.
    """
    given = {
        "epsilon": epsilon,
        "stabilizer": stabilizer,
        "relative_epsilon": relative_epsilon,
        "first_layer": first_layer,
    }
    options = Options(**{key: value for key, value in given.items() if value is not None})  # type: ignore[arg-type]
    recipe = _recipe(name, options)
    _check_layer(model, layer)
    if recipe.convolution is None or recipe.linear is None:
        return LiveComposite(
            name,
            {},
            explains_gradient=True,
            multiplies_input=recipe.multiplies_input,
            layer=layer,
        )
    refuse_uncovered(model)
    rules = _assign(model, recipe, options, trace(model, tuple(input_shape)))
    return LiveComposite(name, rules, multiplies_input=recipe.multiplies_input, layer=layer)


def _recipe(name: str, options: Options) -> Recipe:
    if name not in COMPOSITES:
        near = get_close_matches(name, COMPOSITES, n=1)
        hint = f"Did you mean {near[0]}?" if near else "Choose one of these."
        raise ConfigError(f"attribution must be one of {', '.join(COMPOSITES)}, got {name}. {hint}")
    recipe = COMPOSITES[name](options)
    if options.first_layer is None:
        return recipe
    if recipe.convolution is None:
        raise ConfigError(
            f"first_layer needs a composite with rules: expected one of epsilon, epsilon_plus, got "
            f"{name} with first_layer={options.first_layer}. Leave first_layer out."
        )
    if options.first_layer not in _FIRST_LAYER:
        raise ConfigError(
            f"first_layer must be one of {', '.join(_FIRST_LAYER)}, got {options.first_layer}. "
            f"Choose one, or leave it out."
        )
    return replace(recipe, first=_FIRST_LAYER[options.first_layer](options))


def _check_layer(model: nn.Module, layer: str | None) -> None:
    names = [name for name, _ in model.named_modules()]
    if layer is not None and layer not in names:
        near = get_close_matches(layer, names, n=1)
        hint = f"Did you mean {near[0]}?" if near else "See model.named_modules()."
        raise ConfigError(f"layer must be a layer of the model, got {layer}. {hint}")


def _assign(
    model: nn.Module, recipe: Recipe, options: Options, traced: Trace
) -> dict[str, LiveHook]:
    rules: dict[str, LiveHook] = {}
    for name, module in model.named_modules():
        if isinstance(module, WEIGHT_LAYERS):
            own = recipe.convolution if isinstance(module, CONVOLUTIONS) else recipe.linear
            rule = recipe.first if recipe.first and name in traced.first else own
            assert rule is not None
            rules[name] = rule
        elif isinstance(module, BATCH_NORMS):
            rules[name] = Normalization(options.for_epsilon())
        elif isinstance(module, AVERAGE_POOLS):
            rules[name] = AveragePool(options.for_others())
        elif isinstance(module, DROPOUTS):
            rules[name] = DropoutMask()
        elif isinstance(module, VIEWS):
            rules[name] = View()
    if recipe.first is not None and not traced.first:
        raise CompatibilityError(
            f"a first-layer rule needs a convolution or linear layer that reads the image: "
            f"expected one, got none in {type(model).__name__}. Let the first layer read the image "
            f"itself, or choose a composite without one, such as epsilon_plus."
        )
    return rules
