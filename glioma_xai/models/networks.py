"""Builders of classifiers, 2-D or 3-D as ``input_shape`` (C, H, W[, D]) says."""

import math
from collections import OrderedDict
from collections.abc import Sequence

from torch import nn

from glioma_xai.errors import ConfigError
from glioma_xai.models.published import densenet, resnet
from glioma_xai.models.shapes import check_input_shape

__all__ = ["SmallCNN", "densenet", "resnet", "vgg"]

_CONVOLUTION: dict[int, type[nn.Conv2d] | type[nn.Conv3d]] = {2: nn.Conv2d, 3: nn.Conv3d}
_MAX_POOL: dict[int, type[nn.MaxPool2d] | type[nn.MaxPool3d]] = {2: nn.MaxPool2d, 3: nn.MaxPool3d}
_BATCH_NORM: dict[int, type[nn.BatchNorm2d] | type[nn.BatchNorm3d]] = {
    2: nn.BatchNorm2d,
    3: nn.BatchNorm3d,
}


def _check_widths(channels: Sequence[int], hidden: int, dropout: float) -> None:
    if not 0 <= dropout < 1:
        raise ConfigError(f"model.dropout must be in [0, 1), got {dropout}. Use 0.2.")
    if not channels or min(*channels, hidden) < 1:
        raise ConfigError(
            f"model.channels and model.hidden need widths >= 1, got {list(channels)} and {hidden}. "
            "The paper uses [16, 32, 64, 128] and 64."
        )


def _pool(size: tuple[int, ...]) -> tuple[nn.Module, tuple[int, ...]]:
    """Return a pool of 2 that leaves axes of one pixel alone, and the size after it."""
    kernel = tuple(min(axis, 2) for axis in size)
    pool = _MAX_POOL[len(size)](kernel)  # type: ignore[arg-type]
    return pool, tuple(axis // step for axis, step in zip(size, kernel, strict=True))


class SmallCNN(nn.Sequential):
    """The paper's CNN: four convolutions, two dense layers.

    Conv16-ReLU-MaxPool-BatchNorm-Dropout, Conv32-ReLU-MaxPool, Conv64-ReLU-MaxPool,
    Conv128-ReLU-MaxPool-Dropout, Flatten, Dense64-ReLU, Dense; kernels of 3, same padding, pools of
    2. An axis that has shrunk to one pixel is not pooled further, so images down to 2 pixels along
    each axis work; everything else is as published.

    Args:
        input_shape: Channels and spatial size, (C, H, W[, D]).
        classes: Number of logits.
        dropout: Share of values dropped, in [0, 1); 0 leaves the layers out.
        batch_norm: False leaves BatchNorm out.
        channels: Width of each convolution, any number of them.
        hidden: Width of the dense layer.

    Raises:
        ConfigError: If the shape, the number of classes, dropout or a width is out of range.
    """

    def __init__(
        self,
        *,
        input_shape: Sequence[int],
        classes: int = 2,
        dropout: float = 0.2,
        batch_norm: bool = True,
        channels: Sequence[int] = (16, 32, 64, 128),
        hidden: int = 64,
    ) -> None:
        shape = check_input_shape(input_shape, classes, smallest=2)
        _check_widths(channels, hidden, dropout)
        dims, size, width = len(shape) - 1, shape[1:], shape[0]
        layers: OrderedDict[str, nn.Module] = OrderedDict()
        for block, features in enumerate(channels, start=1):
            pool, size = _pool(size)
            layers[f"conv{block}"] = _CONVOLUTION[dims](width, features, 3, padding=1)
            layers[f"relu{block}"] = nn.ReLU()
            layers[f"pool{block}"] = pool
            if block == 1 and batch_norm:
                layers["norm1"] = _BATCH_NORM[dims](features)
            if block in (1, len(channels)) and dropout > 0:
                layers[f"dropout{block}"] = nn.Dropout(dropout)
            width = features
        layers["flatten"] = nn.Flatten()
        layers["dense1"] = nn.Linear(width * math.prod(size), hidden)
        layers["relu_dense1"] = nn.ReLU()
        layers["dense2"] = nn.Linear(hidden, classes)
        super().__init__(layers)


def vgg(
    *,
    input_shape: Sequence[int],
    classes: int = 2,
    channels: Sequence[Sequence[int]] = ((16, 16), (32, 32), (64, 64), (128, 128)),
    hidden: int = 64,
    batch_norm: bool = True,
    dropout: float = 0.2,
) -> nn.Sequential:
    """Build a plain network of the VGG kind: blocks of Conv[-BatchNorm]-ReLU, each with a pool.

    As in :class:`SmallCNN`, an axis of one pixel is not pooled further. ``channels`` of
    ((64,), (128,), (256, 256), (512, 512), (512, 512)) are VGG11's.

    Args:
        input_shape: Channels and spatial size, (C, H, W[, D]).
        classes: Number of logits.
        channels: Widths of the convolutions, block by block.
        hidden: Width of the dense layer.
        batch_norm: False leaves BatchNorm out.
        dropout: Share of values dropped before the last layer, in [0, 1).

    Returns:
        Network from (B, C, H, W[, D]) to (B, classes).

    Raises:
        ConfigError: If an argument is out of range.

    Reference:
        Simonyan and Zisserman (2015), ICLR.
    """
    shape = check_input_shape(input_shape, classes, smallest=2)
    _check_widths([width for block in channels for width in block], hidden, dropout)
    dims, size, width = len(shape) - 1, shape[1:], shape[0]
    layers: list[nn.Module] = []
    for block in channels:
        for features in block:
            layers.append(_CONVOLUTION[dims](width, features, 3, padding=1))
            layers += [_BATCH_NORM[dims](features)] if batch_norm else []
            layers.append(nn.ReLU())
            width = features
        pool, size = _pool(size)
        layers.append(pool)
    layers += [nn.Flatten(), nn.Linear(width * math.prod(size), hidden), nn.ReLU()]
    layers += [nn.Dropout(dropout)] if dropout > 0 else []
    return nn.Sequential(*layers, nn.Linear(hidden, classes))
