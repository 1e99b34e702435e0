"""Division that survives a denominator of 0."""

from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

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

    def amount(self, denominator: Tensor) -> Tensor | float:
        """Return what is added: one number, or (B, 1, ...)."""
        if not self.relative:
            return self.epsilon
        axes = tuple(range(1, denominator.ndim))
        return self.epsilon * denominator.abs().mean(axes, keepdim=True)

    def divide(self, relevance: Tensor, denominator: Tensor) -> Tensor:
        """Return relevance / (denominator + epsilon * sign(denominator))."""
        epsilon = self.amount(denominator)
        stable = torch.where(denominator < 0, denominator - epsilon, denominator + epsilon)
        return relevance / stable
