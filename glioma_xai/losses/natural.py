"""The natural amount of relevance, measured on a network, and the ISNet's loss that asks for it."""

import math
from collections.abc import Sequence
from typing import Literal

import torch
from torch import Tensor, nn

from glioma_xai.errors import ConfigError
from glioma_xai.losses.ranked import check_options, isnet


def natural_range(totals: Tensor) -> tuple[float, float]:
    """C1 and C2 of ``isnet`` from an unguided network: mean -+ 3 standard deviations, bounded.

    C1 = max(mean / 5, mean - 3 std) and C2 = min(25 C1, mean + 3 std).

    Args:
        totals: Sum of |relevance| of each training sample in the last epoch of a short training
            without guidance (or of its first epochs), (N,), N >= 2.

    Returns:
        (C1, C2), to be given to ``relevance_range``.

    Raises:
        ConfigError: If there are fewer than two values, or they are not finite, positive and
            different.

    Reference:
        Bassi, Decherchi and Cavalli (2024), IEEE Access, and the authors' code.
    """
    totals = totals.double()
    if totals.numel() < 2 or not bool(torch.isfinite(totals).all()):
        raise ConfigError(
            f"natural_range needs at least two finite totals, got {totals.numel()} values. "
            "Collect them over a whole epoch."
        )
    mean, std = totals.mean().item(), totals.std().item()
    low = max(mean / 5, mean - 3 * std)
    high = min(25 * low, mean + 3 * std)
    if not 0 < low < high:
        raise ConfigError(
            f"natural_range needs totals that are positive and vary, got mean {mean:g} and "
            f"standard deviation {std:g}. Train a little before measuring."
        )
    return low, high


class ISNet(nn.Module):
    """:func:`glioma_xai.losses.isnet` with its range measured on the network that is trained.

    The range is a buffer, so that it is saved with the network and a resumed run keeps it.

    Args:
        relevance_range: C1 and C2; ``auto`` waits for :meth:`calibrate`; None drops the foreground
            part.
        decay: See :func:`glioma_xai.losses.isnet`, as are the next three.
        background_scale: E.
        background_weight: w_1.
        foreground_weight: w_2.
    """

    measured_range: Tensor

    def __init__(
        self,
        *,
        relevance_range: Literal["auto"] | Sequence[float] | None = "auto",
        decay: float = 0.996,
        background_scale: float = 1.0,
        background_weight: float = 1.0,
        foreground_weight: float = 3.0,
    ) -> None:
        super().__init__()
        if relevance_range not in ("auto", None) and len(relevance_range) != 2:
            raise ConfigError(
                f"loss.guidance.relevance_range: expected auto, null or two numbers, found "
                f"{relevance_range}. Give [C1, C2]."
            )
        bounds = None if isinstance(relevance_range, str) else relevance_range
        check_options(bounds, decay, background_scale, background_weight, foreground_weight)
        self.options = {
            "decay": decay,
            "background_scale": background_scale,
            "background_weight": background_weight,
            "foreground_weight": foreground_weight,
        }
        self.automatic = isinstance(relevance_range, str)
        self.bounded = relevance_range is not None
        known = [math.nan, math.nan] if bounds is None else [float(bound) for bound in bounds]
        self.register_buffer("measured_range", torch.tensor(known))

    @property
    def needs_calibration(self) -> bool:
        """Whether :meth:`calibrate` must come before the loss."""
        return self.automatic and bool(self.measured_range.isnan().any())

    def calibrate(self, totals: Tensor) -> None:
        """Set the range, see :func:`natural_range`.

        Args:
            totals: Sum of |relevance| of each map, (N,).
        """
        self.measured_range.copy_(torch.tensor(natural_range(totals)))

    def forward(self, relevance: Tensor, lesion_mask: Tensor) -> Tensor:
        """Loss of each sample, (B,).

        Raises:
            ConfigError: If the range has not been measured.
        """
        if self.needs_calibration:
            raise ConfigError(
                "isnet: expected a measured range, found none. Call calibrate first, or set "
                "loss.guidance.relevance_range=[C1, C2]."
            )
        low, high = self.measured_range.tolist()
        bounds = (low, high) if self.bounded else None
        return isnet(relevance, lesion_mask, relevance_range=bounds, **self.options)
