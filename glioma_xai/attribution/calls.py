"""One call of a layer as its rule sees it: what it read and what it put out."""

from abc import ABC, abstractmethod
from typing import Protocol, cast

from torch import Tensor

from glioma_xai.attribution.batchnorm import Affine
from glioma_xai.attribution.shares import Contraction, Division
from glioma_xai.attribution.stabilizer import Sign, Stabilizer


class Rule(Protocol):
    """What a call needs of its rule."""

    closed: bool
    emits_relevance: bool
    stabilizer: Stabilizer

    @property
    def coefficients(self) -> bool:
        """True if the backward pass carries coefficients, False if it carries relevance."""


class Call(ABC):
    """One call of a layer, active as long as its rule's composite is in place.

    Args:
        rule: Distributes the relevance.
        values: What the layer read.
        output: What the layer put out.
    """

    def __init__(self, rule: Rule, *, values: Tensor, output: Tensor) -> None:
        self.rule = rule
        self.rectified: Tensor | None = None  # until release(), part of a cycle
        self._values: Tensor | None = values
        self._written: Tensor | None = output
        self._version = output._version

    @property
    def active(self) -> bool:
        """True while the rule's composite is in place."""
        return not self.rule.closed

    @property
    def values(self) -> Tensor:
        """What the layer read."""
        return kept(self._values)

    @property
    def output(self) -> Tensor:
        """The output; computed anew if a later step has overwritten it in place."""
        if self._written is None and self.rectified is not None:
            return self.rectified
        written = kept(self._written)
        return written if written._version == self._version else self._respond_again()

    def rectify(self, rectified: Tensor) -> None:
        """Use what a ReLU made of the output, the only place where it has a coefficient."""
        if self.rule.coefficients:
            self.rectified = rectified
            if not self.rule.stabilizer.relative:  # the mean |output| needs all of it
                self._written = None

    def release(self) -> None:
        """Let go of all tensors: the relevance pass is over."""
        self._values = self._written = self.rectified = None

    def division(self, response: Tensor | None = None, *, sign: Sign = 0) -> Division | None:
        """Return how the output's coefficients become shares; None if they are not fused.

        Args:
            response: The denominator, as large as the output; None for the output itself.
            sign: Of every response, where it is known.
        """
        if not self.rule.coefficients:
            return None
        carrier = self.output if self.rectified is None else self.rectified
        if response is not None and response.shape != carrier.shape:
            return None
        epsilon = self.rule.stabilizer.amount(self.output if response is None else response)
        if response is None and self.rectified is not None:
            sign = 1
        return Division(carrier, carrier.detach(), response, epsilon, sign)

    def shares(self, gradient: Tensor, response: Tensor | None = None, *, sign: Sign = 0) -> Tensor:
        """Return the output's relevance per unit of ``response``.

        Args:
            gradient: What the backward pass carries.
            response: The denominator, or one that broadcasts; None for the output itself.
            sign: Of every response, where it is known.
        """
        division = self.division(response, sign=sign)
        if division is not None:
            return division.scale(gradient)
        output = self.output
        relevance = gradient * output if self.rule.coefficients else gradient
        return self.rule.stabilizer.divide(relevance, output if response is None else response)

    def total(self, gradient: Tensor, groups: int) -> Tensor:
        """Return the relevance of all output channels of a group together, (B, groups, ...)."""
        if not self.rule.coefficients:
            return gradient.view(len(gradient), groups, -1, *gradient.shape[2:]).sum(2)
        carrier = self.output if self.rectified is None else self.rectified
        return cast(Tensor, Contraction.apply(gradient, carrier, carrier.detach(), groups))

    @abstractmethod
    def propagate(self, gradient: Tensor) -> Tensor | None:
        """Return what the source receives."""

    def _respond_again(self) -> Tensor:
        raise RuntimeError(f"{type(self).__name__} keeps an output that nothing may overwrite")


def kept(tensor: Tensor | None) -> Tensor:
    """Return a tensor that the call has not let go of."""
    assert tensor is not None, "the relevance pass of this call is over"
    return tensor


class NormCall(Call):
    """A BatchNorm that stands alone: a diagonal linear layer under the epsilon rule."""

    def __init__(self, rule: Rule, affine: Affine, *, values: Tensor, output: Tensor) -> None:
        super().__init__(rule, values=values, output=output)
        self._affine = affine

    def _respond_again(self) -> Tensor:
        return self._affine.apply()

    def propagate(self, gradient: Tensor) -> Tensor:
        """Return the coefficient of what the BatchNorm read, or its relevance."""
        scale, _ = self._affine.scale_and_shift()
        result = self.shares(gradient) * as_channels(scale, gradient.ndim)
        return result if self.rule.coefficients else self.values * result


class PassCall(Call):
    """A layer that hands relevance on unchanged, value by value."""

    def propagate(self, gradient: Tensor) -> Tensor:
        """Return the coefficient of what the layer read, or the relevance as it is."""
        return self.shares(gradient, self.values) if self.rule.coefficients else gradient


class GuidedCall(Call):
    """A ReLU that lets only positive gradients pass."""

    def propagate(self, gradient: Tensor) -> Tensor:
        """Return the positive part; the ReLU's own backward does the rest."""
        return gradient.clamp(min=0)


class GateCall(Call):
    """A gate, which has no relevance of its own."""

    def propagate(self, gradient: Tensor) -> None:
        """Return nothing: all relevance goes to what the gate multiplies."""


class PoolCall(Call):
    """An average pool: its natural backward spreads the shares over what it read."""

    def propagate(self, gradient: Tensor) -> Tensor:
        """Return the shares, for the output itself."""
        return self.shares(gradient)


class InputCall(Call):
    """The model's input: turns its coefficient into its relevance."""

    def propagate(self, gradient: Tensor) -> Tensor:
        """Return input * coefficient."""
        return self.values * gradient


class OutputCall(Call):
    """The model's output: turns relevance that an attributor sends in into a coefficient."""

    def propagate(self, gradient: Tensor) -> Tensor:
        """Return relevance / output; 0 for an output of 0, which has nothing to explain."""
        silent = self.values == 0
        return (gradient / self.values.masked_fill(silent, 1)).masked_fill(silent, 0)


def as_channels(vector: Tensor, ndim: int) -> Tensor:
    """View one value a channel so that it broadcasts over (B, C, ...)."""
    return vector.view(1, -1, *[1] * (ndim - 2))
