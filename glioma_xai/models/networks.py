"""Builders of classifiers, 2-D or 3-D as ``input_shape`` (C, H, W[, D]) says."""

import math
from collections import OrderedDict
from collections.abc import Sequence
from typing import Literal

import torch
from torch import Tensor, nn

from glioma_xai.errors import ConfigError

_CONVOLUTION: dict[int, type[nn.Conv2d] | type[nn.Conv3d]] = {2: nn.Conv2d, 3: nn.Conv3d}
_MAX_POOL: dict[int, type[nn.MaxPool2d] | type[nn.MaxPool3d]] = {2: nn.MaxPool2d, 3: nn.MaxPool3d}
_BATCH_NORM: dict[int, type[nn.BatchNorm2d] | type[nn.BatchNorm3d]] = {
    2: nn.BatchNorm2d,
    3: nn.BatchNorm3d,
}


def _check(input_shape: Sequence[int], classes: int, *, smallest: int) -> tuple[int, ...]:
    """Return the input shape as a tuple, or say what is wrong with it."""
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
        shape = _check(input_shape, classes, smallest=2)
        if not 0 <= dropout < 1:
            raise ConfigError(f"model.dropout must be in [0, 1), got {dropout}. Use 0.2.")
        if not channels or min(*channels, hidden) < 1:
            raise ConfigError(
                f"model.channels and model.hidden need widths >= 1, got {list(channels)} and "
                f"{hidden}. The paper uses [16, 32, 64, 128] and 64."
            )
        dims, size, width = len(shape) - 1, shape[1:], shape[0]
        layers: OrderedDict[str, nn.Module] = OrderedDict()
        for block, features in enumerate(channels, start=1):
            kernel = tuple(min(axis, 2) for axis in size)
            layers[f"conv{block}"] = _CONVOLUTION[dims](width, features, 3, padding=1)
            layers[f"relu{block}"] = nn.ReLU()
            layers[f"pool{block}"] = _MAX_POOL[dims](kernel)  # type: ignore[arg-type]
            if block == 1 and batch_norm:
                layers["norm1"] = _BATCH_NORM[dims](features)
            if block in (1, len(channels)) and dropout > 0:
                layers[f"dropout{block}"] = nn.Dropout(dropout)
            size = tuple(axis // step for axis, step in zip(size, kernel, strict=True))
            width = features
        layers["flatten"] = nn.Flatten()
        layers["dense1"] = nn.Linear(width * math.prod(size), hidden)
        layers["relu_dense1"] = nn.ReLU()
        layers["dense2"] = nn.Linear(hidden, classes)
        super().__init__(layers)


def _not_in_place(model: nn.Module) -> nn.Module:
    """Let no activation overwrite its input, so that hooks see what entered and what came out."""
    for module in model.modules():
        if getattr(module, "inplace", False):
            module.inplace = False  # type: ignore[assignment]
    return model


def _check_size(model: nn.Module, shape: tuple[int, ...], name: str) -> nn.Module:
    """Run shapes only, without numbers, through a copy, and say so if the image is too small."""
    copy = _shapes_only(model)
    try:
        copy(torch.empty(2, *shape, device="meta"))
    except (RuntimeError, ValueError) as error:
        raise ConfigError(
            f"{name} needs a larger input than {shape}: {error}. Use first_stride=1 and "
            "max_pool=false for small images, or model=small_cnn."
        ) from error
    return model


def _shapes_only(model: nn.Module) -> nn.Module:
    """Copy a network without copying its numbers."""
    import copy

    memo: dict[int, Tensor] = {}
    for tensor in [*model.parameters(), *model.buffers()]:
        empty = torch.empty_like(tensor, device="meta")
        memo[id(tensor)] = nn.Parameter(empty) if isinstance(tensor, nn.Parameter) else empty
    return copy.deepcopy(model, memo)


_RESNET: dict[int, tuple[str, list[int]]] = {
    10: ("basic", [1, 1, 1, 1]),
    18: ("basic", [2, 2, 2, 2]),
    34: ("basic", [3, 4, 6, 3]),
    50: ("bottleneck", [3, 4, 6, 3]),
}


def resnet(
    *,
    input_shape: Sequence[int],
    classes: int = 2,
    depth: Literal[10, 18, 34, 50] = 10,
    channels: Sequence[int] = (64, 128, 256, 512),
    first_kernel: int = 7,
    first_stride: int = 1,
    max_pool: bool = True,
) -> nn.Module:
    """Build MONAI's ResNet with activations that are not in-place.

    Args:
        input_shape: Channels and spatial size, (C, H, W[, D]).
        classes: Number of logits.
        depth: Number of weighted layers.
        channels: Width of the four stages.
        first_kernel: Kernel of the first convolution, odd.
        first_stride: Its stride; 1 suits small images, 2 large ones.
        max_pool: Whether it is followed by a pool of stride 2.

    Returns:
        Network from (B, C, H, W[, D]) to (B, classes).

    Raises:
        ConfigError: If an argument is out of range or the image too small.

    Reference:
        He et al. (2016), CVPR.
    """
    shape = _check(input_shape, classes, smallest=1)
    if depth not in _RESNET:
        raise ConfigError(f"resnet depth must be one of {sorted(_RESNET)}, got {depth}.")
    if len(channels) != 4:
        raise ConfigError(f"resnet needs four channel numbers, got {list(channels)}.")
    from monai.networks.nets import ResNet  # its import takes seconds

    block, layers = _RESNET[depth]
    model = ResNet(
        block,
        layers,
        list(channels),
        spatial_dims=len(shape) - 1,
        n_input_channels=shape[0],
        conv1_t_size=first_kernel,
        conv1_t_stride=first_stride,
        no_max_pool=not max_pool,
        num_classes=classes,
        act="relu",
    )
    return _check_size(_not_in_place(model), shape, f"resnet{depth}")


def densenet(
    *,
    input_shape: Sequence[int],
    classes: int = 2,
    blocks: Sequence[int] = (6, 12, 24, 16),
    growth_rate: int = 32,
    first_channels: int = 64,
    first_stride: int = 2,
    max_pool: bool = True,
    dropout: float = 0.0,
) -> nn.Module:
    """Build MONAI's DenseNet (121 layers by default) with activations that are not in-place.

    Args:
        input_shape: Channels and spatial size, (C, H, W[, D]).
        classes: Number of logits.
        blocks: Number of layers in each dense block.
        growth_rate: Channels that each layer adds.
        first_channels: Width of the first convolution.
        first_stride: Its stride; 1 suits small images.
        max_pool: Whether it is followed by a pool of stride 2.
        dropout: Share of values dropped in each dense layer.

    Returns:
        Network from (B, C, H, W[, D]) to (B, classes).

    Raises:
        ConfigError: If an argument is out of range or the image too small.

    Reference:
        Huang et al. (2017), CVPR.
    """
    shape = _check(input_shape, classes, smallest=1)
    from monai.networks.nets import DenseNet  # its import takes seconds

    dims = len(shape) - 1
    model = DenseNet(
        spatial_dims=dims,
        in_channels=shape[0],
        out_channels=classes,
        init_features=first_channels,
        growth_rate=growth_rate,
        block_config=tuple(blocks),
        dropout_prob=dropout,
        act="relu",
    )
    model.features.conv0.stride = (first_stride,) * dims
    if not max_pool:
        del model.features.pool0
    return _check_size(_not_in_place(model), shape, "densenet")
