"""Inputs at which relevance is read.

Relevance at the image itself is local: a unit that the shortcut switches off is silent there. Read
at copies whose background is scaled, mixed or noisy, it must account for what the background would
do. Classification goes on seeing the original images.

Only pixels known to lie outside the lesion of a guided sample change, and randomness is a function
of ``key`` and each sample's ``index``: see :mod:`glioma_xai.losses.backgrounds`.
"""

import math
from collections.abc import Sequence
from typing import Protocol

import numpy as np
import torch
from torch import Tensor

from glioma_xai.errors import ConfigError
from glioma_xai.losses.backgrounds import (
    Stream,
    changeable_pixels,
    draw_donors,
    exchange_background,
    sample_generators,
)


class Probe(Protocol):
    """A function that turns a batch into the inputs at which its relevance is read."""

    def __call__(
        self,
        images: Tensor,
        lesion_mask: Tensor,
        *,
        index: Tensor,
        key: Sequence[int],
        patient_id: Sequence[str] | None = None,
    ) -> Tensor:
        """Return images of the same shape."""
        ...


def _uniform(index: Tensor, key: Sequence[int], stream: Stream, like: Tensor) -> Tensor:
    """One number in [0, 1) a sample, shaped to multiply a batch of images, (B, 1, 1, 1[, 1])."""
    values = [generator.random() for generator in sample_generators(index, key, stream)]
    return like.new_tensor(values).view(-1, *[1] * (like.ndim - 1))


def image(
    images: Tensor,
    lesion_mask: Tensor,
    *,
    index: Tensor,
    key: Sequence[int],
    patient_id: Sequence[str] | None = None,
) -> Tensor:
    """Return the images themselves; nothing is drawn."""
    return images


def scaled(
    images: Tensor,
    lesion_mask: Tensor,
    *,
    index: Tensor,
    key: Sequence[int],
    patient_id: Sequence[str] | None = None,
    low: float = 0.0,
    high: float = 1.0,
) -> Tensor:
    """Multiply each sample's background by a factor drawn uniformly from [low, high].

    Args:
        images: Normalised so that 0 is no signal, (B, C, H, W[, D]).
        lesion_mask: 1 must, 0 must not, NaN unknown, (B, 1, H, W[, D]).
        index: Each sample's key for randomness, (B,) int64.
        key: Seed, epoch and the like.
        patient_id: Unused.
        low: Smallest factor.
        high: Largest factor.

    Returns:
        (B, C, H, W[, D]).

    Raises:
        ShapeError: If images and masks do not fit.
        ConfigError: If ``low`` exceeds ``high``, or one is not finite.
    """
    if not -math.inf < low <= high < math.inf:
        raise ConfigError(
            f"probe scaled needs finite numbers low <= high, got {low} and {high}. Take 0 and 1."
        )
    factor = low + (high - low) * _uniform(index, key, Stream.FACTOR, images)
    return torch.where(changeable_pixels(images, lesion_mask), images * factor, images)


def mixed(
    images: Tensor,
    lesion_mask: Tensor,
    *,
    index: Tensor,
    key: Sequence[int],
    patient_id: Sequence[str] | None = None,
) -> Tensor:
    r"""Mix each sample's background with another sample's, in a ratio drawn uniformly.

    .. math:: x' = m x + (1 - m) (a x + (1 - a) b), \quad a \sim U[0, 1]

    with b the donor, its lesion filled from x.

    Args:
        images: (B, C, H, W[, D]).
        lesion_mask: 1 must, 0 must not, NaN unknown, (B, 1, H, W[, D]).
        index: Each sample's key for randomness, (B,) int64.
        key: Seed, epoch and the like.
        patient_id: B names; a donor is of another patient. None takes each sample for a patient.

    Returns:
        (B, C, H, W[, D]); a sample without a possible donor as it is.

    Raises:
        ShapeError: If images, masks and index do not fit.
    """
    donors = draw_donors(lesion_mask, index=index, key=key, patient_id=patient_id)
    exchanged = exchange_background(images, lesion_mask, donors=donors)
    return torch.lerp(exchanged, images, _uniform(index, key, Stream.FACTOR, images))


def noise(
    images: Tensor,
    lesion_mask: Tensor,
    *,
    index: Tensor,
    key: Sequence[int],
    patient_id: Sequence[str] | None = None,
    std: float = 1.0,
) -> Tensor:
    """Add normal noise to each sample's background.

    Args:
        images: (B, C, H, W[, D]).
        lesion_mask: 1 must, 0 must not, NaN unknown, (B, 1, H, W[, D]).
        index: Each sample's key for randomness, (B,) int64.
        key: Seed, epoch and the like.
        patient_id: Unused.
        std: Standard deviation, in units of the normalised image.

    Returns:
        (B, C, H, W[, D]).

    Raises:
        ShapeError: If images and masks do not fit.
        ConfigError: If ``std`` is negative or not finite.
    """
    if not 0 <= std < math.inf:
        raise ConfigError(
            f"probe noise needs a finite std >= 0, got {std}. Use 1 for normalised images."
        )
    drawn = [
        torch.from_numpy(generator.standard_normal(tuple(images.shape[1:]), dtype=np.float32))
        for generator in sample_generators(index, key, Stream.NOISE)
    ]
    added = torch.stack(drawn).to(images)  # B C H W [D]
    return torch.where(changeable_pixels(images, lesion_mask), images + std * added, images)
