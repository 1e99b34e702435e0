"""Checks that an input fits a network before anything is trained."""

import copy
from collections.abc import Sequence

import torch
from torch import Tensor, nn

from glioma_xai.errors import ConfigError


def check_input_shape(
    input_shape: Sequence[int], classes: int, *, smallest: int
) -> tuple[int, ...]:
    """Return the input shape as a tuple, or say what is wrong with it.

    Args:
        input_shape: Channels and spatial size, (C, H, W[, D]).
        classes: Number of logits.
        smallest: Least number of pixels along each axis.

    Raises:
        ConfigError: If the shape or the number of classes is out of range.
    """
    shape = tuple(int(size) for size in input_shape)
    if len(shape) not in (3, 4):
        raise ConfigError(
            f"model.input_shape must be channels and two or three spatial sizes, got {shape}. "
            "Leave out the batch, for example (3, 96, 112)."
        )
    if shape[0] < 1 or min(shape[1:]) < smallest:
        raise ConfigError(
            f"model.input_shape needs at least 1 channel and {smallest} pixels along each axis, "
            f"got {shape}. Use larger images, or a 2-D network for an axis of length 1."
        )
    if classes < 2:
        raise ConfigError(
            f"model.classes must be at least 2, got {classes}. Two classes have two logits."
        )
    return shape


def check_fits(model: nn.Module, shape: tuple[int, ...], name: str) -> nn.Module:
    """Return the network if it can take the input: shapes, not numbers, run through a copy.

    Args:
        model: Not touched.
        shape: Channels and spatial size, (C, H, W[, D]).
        name: What the network is called in the message.

    Raises:
        ConfigError: If the image is too small.
    """
    try:
        _shapes_only(model)(torch.empty(2, *shape, device="meta"))
    except (RuntimeError, ValueError) as error:
        raise ConfigError(
            f"{name} needs a larger input than {shape}: {error}. Use first_stride=1 and "
            "max_pool=false for small images, or model=small_cnn."
        ) from error
    return model


def _shapes_only(model: nn.Module) -> nn.Module:
    """Copy a network without copying its numbers."""
    memo: dict[int, Tensor] = {}
    for tensor in [*model.parameters(), *model.buffers()]:
        empty = torch.empty_like(tensor, device="meta")
        memo[id(tensor)] = nn.Parameter(empty) if isinstance(tensor, nn.Parameter) else empty
    return copy.deepcopy(model, memo)
