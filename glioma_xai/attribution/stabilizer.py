"""Division that survives a denominator of 0, in few passes over memory."""

from dataclasses import dataclass
from typing import Literal, cast

import torch
from torch import Tensor
from torch.autograd.function import FunctionCtx, once_differentiable

from glioma_xai.errors import ConfigError

Sign = Literal[-1, 0, 1]


@dataclass(frozen=True)
class Stabilizer:
    """Adds epsilon with the sign of the denominator (+ for 0).

    Args:
        epsilon: In units of the layer's output; with ``relative`` a share of its mean absolute
            value.
        relative: Scale epsilon by each sample's mean |denominator|, so that a network cannot escape
            guidance by shrinking its activations below an absolute epsilon.
    """

    epsilon: float = 1e-6
    relative: bool = False

    def __post_init__(self) -> None:
        if self.epsilon < 0:
            raise ConfigError(
                f"epsilon must be at least 0, got {self.epsilon}. Use 1e-6, or more for smoother "
                f"relevance."
            )

    def divide(self, relevance: Tensor, denominator: Tensor) -> Tensor:
        """Return relevance / (denominator + epsilon * sign(denominator))."""
        return relevance / self._stabilize(denominator)

    def scale(
        self, coefficient: Tensor, output: Tensor, denominator: Tensor, *, sign: Sign = 0
    ) -> Tensor:
        """Return coefficient * output / (denominator + epsilon * sign(denominator)).

        Args:
            coefficient: Like ``output``.
            output: What the layer put out.
            denominator: Like ``output``, or one that broadcasts.
            sign: That of every denominator, where it is known.
        """
        if self.relative or denominator.shape != output.shape:
            return self.divide(coefficient * output, denominator)
        if denominator is output:
            return cast(Tensor, _Damped.apply(coefficient, output, self.epsilon))
        return cast(Tensor, _Quotient.apply(coefficient, output, denominator, self.epsilon, sign))

    def _stabilize(self, denominator: Tensor) -> Tensor:
        epsilon: Tensor | float = self.epsilon
        if self.relative:
            axes = tuple(range(1, denominator.ndim))
            epsilon = self.epsilon * denominator.abs().mean(axes, keepdim=True)
        return torch.where(denominator < 0, denominator - epsilon, denominator + epsilon)


class _SavedContext(FunctionCtx):
    saved_tensors: tuple[Tensor, ...]
    epsilon: float


class _Damped(torch.autograd.Function):
    """c * z / (z + epsilon sign z), which is c * |z| / (|z| + epsilon)."""

    @staticmethod
    def forward(ctx: _SavedContext, coefficient: Tensor, output: Tensor, epsilon: float) -> Tensor:
        ctx.save_for_backward(coefficient, output)
        ctx.epsilon = epsilon
        return output.abs().div_(_distance(output, epsilon)).mul_(coefficient)

    @staticmethod
    @once_differentiable
    def backward(ctx: _SavedContext, gradient: Tensor) -> tuple[Tensor, Tensor, None]:  # type: ignore[override]
        coefficient, output = ctx.saved_tensors
        distance = _distance(output, ctx.epsilon)
        slope = output.sign().div_(distance).div_(distance).mul_(ctx.epsilon)
        to_coefficient = output.abs().div_(distance).mul_(gradient)
        return to_coefficient, slope.mul_(gradient).mul_(coefficient), None


def _distance(output: Tensor, epsilon: float) -> Tensor:
    """Return |z| + epsilon, never 0."""
    return output.abs().add_(max(epsilon, torch.finfo(output.dtype).tiny))


class _Quotient(torch.autograd.Function):
    """c * z / (d + epsilon sign d)."""

    @staticmethod
    def forward(
        ctx: _SavedContext,
        coefficient: Tensor,
        output: Tensor,
        denominator: Tensor,
        epsilon: float,
        sign: Sign,
    ) -> Tensor:
        if sign:
            stable = denominator + sign * epsilon
        else:
            stable = denominator.sign().mul_(2 * epsilon).add_(epsilon).clamp_(-epsilon, epsilon)
            stable.add_(denominator)
        ctx.save_for_backward(coefficient, output, stable)
        return (coefficient * output).div_(stable)

    @staticmethod
    @once_differentiable
    def backward(  # type: ignore[override]
        ctx: _SavedContext, gradient: Tensor
    ) -> tuple[Tensor, Tensor, Tensor, None, None]:
        coefficient, output, stable = ctx.saved_tensors
        shared = gradient / stable
        to_output = shared * coefficient
        to_denominator = (to_output * output).div_(stable).neg_()
        return shared.mul_(output), to_output, to_denominator, None, None
