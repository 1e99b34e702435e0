"""Division that survives a denominator of 0."""

from dataclasses import dataclass

import torch
from torch import Tensor


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

    def divide(self, relevance: Tensor, denominator: Tensor) -> Tensor:
        """Return relevance / (denominator + epsilon * sign(denominator))."""
        return relevance / self._stabilize(denominator)

    def scale(self, coefficient: Tensor, output: Tensor, denominator: Tensor) -> Tensor:
        """Return coefficient * output / (denominator + epsilon * sign(denominator))."""
        return coefficient * output / self._stabilize(denominator)

    def _stabilize(self, denominator: Tensor) -> Tensor:
        epsilon: Tensor | float = self.epsilon
        if self.relative:
            axes = tuple(range(1, denominator.ndim))
            epsilon = self.epsilon * denominator.abs().mean(axes, keepdim=True)
        return torch.where(denominator < 0, denominator - epsilon, denominator + epsilon)
