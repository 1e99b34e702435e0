"""The composite that installs our hooks, and takes them off again."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager

from torch import nn
from zennit.core import Composite, Hook

from glioma_xai.attribution.coverage import has_inplace
from glioma_xai.attribution.hooks import LiveHook
from glioma_xai.attribution.steps import Boundary, Reading
from glioma_xai.attribution.tape import Tape
from glioma_xai.errors import CompatibilityError


class Setting:
    """An attribute of a module, changed until the composite is removed."""

    def __init__(self, module: nn.Module, name: str, value: object) -> None:
        self._module, self._name, self._before = module, name, getattr(module, name)
        setattr(module, name, value)

    def remove(self) -> None:
        """Give the attribute its value back."""
        setattr(self._module, self._name, self._before)


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
        self.constant_pixels = False

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

    def remove(self) -> None:
        """Take all hooks off and let go of the forward pass's tensors."""
        super().remove()
        self.tape.release()

    def _install(self, model: nn.Module) -> None:
        self.tape = Tape(constant_pixels=self.constant_pixels)
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
    def seeded_by_coefficients(self, *, constant_pixels: bool) -> Iterator[None]:
        """Take the target's coefficients at the output, as ``compute_relevance`` sends them."""
        before = self.accepts_relevance, self.constant_pixels
        self.accepts_relevance, self.constant_pixels = False, constant_pixels
        try:
            yield
        finally:
            self.accepts_relevance, self.constant_pixels = before
