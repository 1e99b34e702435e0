"""Published networks, built by MONAI, with options for small images."""

from collections.abc import Sequence
from typing import Literal

from torch import nn

from glioma_xai.errors import ConfigError
from glioma_xai.models.shapes import check_fits, check_input_shape

_RESNET: dict[int, tuple[str, list[int]]] = {
    10: ("basic", [1, 1, 1, 1]),
    18: ("basic", [2, 2, 2, 2]),
    34: ("basic", [3, 4, 6, 3]),
    50: ("bottleneck", [3, 4, 6, 3]),
}


def _not_in_place(model: nn.Module) -> nn.Module:
    """Let no activation overwrite its input, so that hooks see what entered and what came out."""
    for module in model.modules():
        if getattr(module, "inplace", False):
            module.inplace = False  # type: ignore[assignment]
    return model


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
    shape = check_input_shape(input_shape, classes, smallest=1)
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
    return check_fits(_not_in_place(model), shape, f"resnet{depth}")


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
    shape = check_input_shape(input_shape, classes, smallest=1)
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
    return check_fits(_not_in_place(model), shape, "densenet")
