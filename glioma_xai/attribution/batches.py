"""The coefficients of K targets as one batch of K * B, beside tensors of one sample each."""

from typing import Any, cast

import torch
from torch import Tensor


def apart(values: Tensor, like: Tensor) -> Tensor:
    """View a batch of K * B as (K, B, ...) beside one of B."""
    if values.shape == like.shape:
        return values
    return values.view(-1, *like.shape)


def together(values: Tensor, like: Tensor) -> Tensor:
    """View (K, B, ...) as K * B again."""
    return values if values.ndim == like.ndim else values.flatten(0, 1)


def added(values: Tensor, like: Tensor) -> Tensor:
    """Add up what K targets, and the positions that one value stands for, send back."""
    values = values if values.ndim == like.ndim else values.sum(0)
    return values if values.shape == like.shape else values.sum_to_size(like.shape)


class Batchable(torch.autograd.Function):
    """A function whose first input, the coefficients, may hold several targets under vmap."""

    @classmethod
    def several(cls, inputs: tuple[Any, ...], targets: int) -> Tensor:
        """Return the result for all targets; the first input holds them as one batch."""
        return cast(Tensor, cls.apply(*inputs))

    @classmethod
    def vmap(
        cls,
        info: Any,  # noqa: ANN401
        in_dims: tuple[int | None, ...],
        *inputs: Any,  # noqa: ANN401
    ) -> tuple[Tensor, int]:
        """Lay the coefficients of all targets into one batch; nothing else differs by target."""
        where, *others = in_dims
        assert where is not None
        assert all(other is None for other in others)
        flat = inputs[0].movedim(where, 0).flatten(0, 1)
        result = cls.several((flat, *inputs[1:]), info.batch_size)
        return result.view(info.batch_size, -1, *result.shape[1:]), 0
