"""One forward pass, two backward passes: the relay that switches, and what it knows of tensors.

A rule replaces its layer's output by a relay of the same values. While the composite's context is
open, the relay answers a backward pass with the rule's relevance and leaves the layer's natural
gradient undefined, so autograd never computes it. After the context is closed the relay passes
gradients on as if it were not there.

Between layers the backward pass carries the coefficient c of the relevance R = a * c, not R. Then
ReLU, max-pooling, dropout, views, residual sums and concatenation need no rule: their natural
gradient hands c on exactly as relevance shared in proportion to contributions demands.
"""

import weakref
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Protocol, cast

import torch
from torch import Tensor
from torch.autograd.function import FunctionCtx

from glioma_xai.attribution.batchnorm import Affine

Operation = Callable[[Tensor], Tensor]


class Propagation(Protocol):
    """Something that turns the gradient at an output into the relevance of its source."""

    @property
    def active(self) -> bool:
        """True while the composite's context is open."""

    def propagate(self, gradient: Tensor) -> Tensor | None:
        """Return what the source receives; None for nothing."""

    def release(self) -> None:
        """Let go of all tensors."""


class _RelayContext(FunctionCtx):
    propagation: Propagation


class _Relay(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: _RelayContext, propagation: Propagation, output: Tensor, source: Tensor
    ) -> Tensor:
        ctx.propagation = propagation
        ctx.set_materialize_grads(False)
        # Same storage, but no view in autograd's eyes: `out += residual` stays allowed.
        return output.detach()

    @staticmethod
    def backward(  # type: ignore[override]
        ctx: _RelayContext, gradient: Tensor | None
    ) -> tuple[None, Tensor | None, Tensor | None]:
        if gradient is None or not ctx.propagation.active:
            return None, gradient, None
        return None, None, ctx.propagation.propagate(gradient)


def relay(propagation: Propagation, output: Tensor, source: Tensor) -> Tensor:
    """Return the values of ``output`` with a backward pass that ``propagation`` answers.

    Args:
        propagation: Asked for the source's relevance while it is active.
        output: What the layer computed; receives the gradient once ``propagation`` is inactive.
        source: Receives the relevance; any tensor that ``output`` was computed from.
    """
    return cast(Tensor, _Relay.apply(propagation, output, source))


@dataclass
class FoldedNorm:
    """A BatchNorm, and what only linear, channel-wise steps made of its output.

    Args:
        affine: Scale and shift of the BatchNorm.
        value: The steps applied to the BatchNorm's input instead of its output.
        steps: The steps so far: dropout's own mask, average pools, flattening.
    """

    affine: Affine
    value: Tensor
    steps: tuple[Operation, ...] = ()

    def after(self, step: Operation) -> "FoldedNorm":
        """Return the same BatchNorm, seen one step later."""
        return FoldedNorm(self.affine, step(self.value), (*self.steps, step))

    def passed(self) -> Tensor:
        """Return what became of a 1 in the place of the BatchNorm's output: (1 or B, ...)."""
        ones = self.affine.ones()
        for step in self.steps:
            ones = step(ones)
        return ones


@dataclass
class Origin:
    """Where a tensor comes from, as far as a rule downstream needs to know.

    Args:
        layer: The call of the weight layer that made it, if a BatchNorm may still be folded in.
        norm: The BatchNorm whose output it is, up to linear channel-wise steps.
        pixels: The model's input, up to views: where a rule that emits relevance sends it.
    """

    layer: Propagation | None = None
    norm: FoldedNorm | None = None
    pixels: Tensor | None = None


@dataclass
class Tape:
    """Origins of the tensors of one forward pass.

    An origin is forgotten when its tensor is changed in place.

    Args:
        reading: Output of the layer whose relevance is wanted, once it has been called.
        constant_pixels: No gradient in the images is wanted, only their relevance.
        calls: Everything that keeps tensors for the relevance pass.
    """

    constant_pixels: bool = False
    reading: Tensor | None = None
    calls: list[Propagation] = field(default_factory=list)
    _origins: dict[int, tuple["weakref.ref[Tensor]", int, Origin]] = field(default_factory=dict)

    def mark(self, tensor: Tensor, origin: Origin) -> None:
        """Remember where ``tensor`` comes from."""
        self._origins[id(tensor)] = (weakref.ref(tensor), tensor._version, origin)

    def origin(self, tensor: Tensor) -> Origin:
        """Return what is known of ``tensor``; an empty origin if nothing is."""
        reference, version, origin = self._origins.get(id(tensor), (None, 0, Origin()))
        if reference is None or reference() is not tensor or tensor._version != version:
            return Origin()
        return origin

    def forget(self) -> None:
        """Drop all origins: the forward pass is over."""
        self._origins.clear()

    def release(self) -> None:
        """Drop all tensors: the relevance pass is over."""
        self.reading = None
        for call in self.calls:
            call.release()
        self.calls.clear()
