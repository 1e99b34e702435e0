"""Small networks of every structure that relevance must pass, in float64."""

from collections.abc import Callable

import torch
from torch import Tensor, nn

Builder = Callable[[], nn.Module]


def prepared(model: nn.Module, seed: int = 0) -> nn.Module:
    """Give weights a size that keeps units alive, and BatchNorms uneven numbers of either sign."""
    generator = torch.Generator().manual_seed(seed)
    for module in model.modules():
        if isinstance(module, nn.modules.batchnorm._BatchNorm):
            if module.affine:
                nn.init.normal_(module.weight, 1, 0.3, generator=generator)
                nn.init.normal_(module.bias, 0, 0.3, generator=generator)
            nn.init.normal_(module.running_mean, 0, 0.3, generator=generator)
            nn.init.uniform_(module.running_var, 0.5, 2.0, generator=generator)
        elif isinstance(module, nn.Linear | nn.Conv1d | nn.Conv2d | nn.Conv3d):
            nn.init.kaiming_normal_(module.weight, nonlinearity="relu", generator=generator)
            if module.bias is not None:
                nn.init.normal_(module.bias, 0, 0.2, generator=generator)
    return model.double()


def paper_cnn() -> nn.Module:
    """The paper's order of layers: BatchNorm and dropout in front of a convolution."""
    return prepared(
        nn.Sequential(
            nn.Conv2d(2, 4, 3, padding=1),
            nn.ReLU(),
            nn.MaxPool2d(2),
            nn.BatchNorm2d(4),
            nn.Dropout(0.2),
            nn.Conv2d(4, 5, 3, padding=1),
            nn.ReLU(),
            nn.MaxPool2d(2),
            nn.Conv2d(5, 6, 3, padding=1),
            nn.ReLU(),
            nn.MaxPool2d(2),
            nn.Dropout(0.2),
            nn.Flatten(),
            nn.Linear(24, 8),
            nn.ReLU(),
            nn.Linear(8, 3),
        )
    )


def vgg() -> nn.Module:
    """BatchNorm behind each convolution, in-place ReLU, an average pool."""
    return prepared(
        nn.Sequential(
            nn.Conv2d(2, 4, 3, padding=1, bias=False),
            nn.BatchNorm2d(4),
            nn.ReLU(inplace=True),
            nn.Conv2d(4, 4, 3, stride=2, padding=1, groups=2),
            nn.BatchNorm2d(4),
            nn.LeakyReLU(0.1, inplace=True),
            nn.Conv2d(4, 6, 3, padding=2, dilation=2),
            nn.ReLU(inplace=True),
            nn.AdaptiveAvgPool2d(2),
            nn.Flatten(),
            nn.Linear(24, 8),
            nn.BatchNorm1d(8),
            nn.ReLU(inplace=True),
            nn.Linear(8, 3),
        )
    )


def plain() -> nn.Module:
    """No BatchNorm and no dropout: the kind of network that stock Zennit supports."""
    return prepared(
        nn.Sequential(
            nn.Conv2d(2, 4, 3, padding=1),
            nn.ReLU(),
            nn.Conv2d(4, 5, 3, stride=2),
            nn.ReLU(),
            nn.MaxPool2d(2),
            nn.Conv2d(5, 6, 3, padding=1),
            nn.ReLU(),
            nn.AvgPool2d(2),
            nn.Flatten(),
            nn.Linear(6, 8),
            nn.ReLU(),
            nn.Linear(8, 3),
        )
    )


def unusual_norms() -> nn.Module:
    """BatchNorm in front of everything: of the input, a pool and a linear layer."""
    return prepared(
        nn.Sequential(
            nn.BatchNorm2d(2),
            nn.Conv2d(2, 4, 3),
            nn.ReLU(),
            nn.BatchNorm2d(4),
            nn.ReLU(),
            nn.Conv2d(4, 4, 3, padding=1, groups=2),
            nn.ReLU(),
            nn.BatchNorm2d(4),
            nn.Dropout2d(0.3),
            nn.AvgPool2d(2),
            nn.Conv2d(4, 5, 3, padding=1, bias=False),
            nn.BatchNorm2d(5),
            nn.ReLU(),
            nn.MaxPool2d(3),
            nn.BatchNorm2d(5, affine=False),
            nn.Dropout(0.2),
            nn.Flatten(),
            nn.Linear(20, 3),
        )
    )


class ResidualBlock(nn.Module):
    """As in MONAI's ResNet: one ReLU module used twice, in place, and ``out += residual``."""

    def __init__(self, dims: int, width: int, features: int, stride: int) -> None:
        super().__init__()
        convolution = {2: nn.Conv2d, 3: nn.Conv3d}[dims]
        norm = {2: nn.BatchNorm2d, 3: nn.BatchNorm3d}[dims]
        self.conv1 = convolution(width, features, 3, stride, 1, bias=False)
        self.bn1 = norm(features)
        self.conv2 = convolution(features, features, 3, 1, 1, bias=False)
        self.bn2 = norm(features)
        self.relu = nn.ReLU(inplace=True)
        self.downsample = nn.Sequential(
            convolution(width, features, 1, stride, bias=False), norm(features)
        )

    def forward(self, x: Tensor) -> Tensor:
        out = self.relu(self.bn1(self.conv1(x)))
        out = self.bn2(self.conv2(out))
        out += self.downsample(x)
        return self.relu(out)


def residual(dims: int, width: int = 4) -> nn.Module:
    """Stem, two residual blocks, global average."""
    convolution = {2: nn.Conv2d, 3: nn.Conv3d}[dims]
    norm = {2: nn.BatchNorm2d, 3: nn.BatchNorm3d}[dims]
    pool = {2: nn.AdaptiveAvgPool2d, 3: nn.AdaptiveAvgPool3d}[dims]
    return prepared(
        nn.Sequential(
            convolution(2, width, 3, padding=1, bias=False),
            norm(width),
            nn.ReLU(inplace=True),
            ResidualBlock(dims, width, width, 2),
            ResidualBlock(dims, width, width, 1),
            pool(1),
            nn.Flatten(),
            nn.Linear(width, 3),
        )
    )


class DenseLayer(nn.Module):
    """BatchNorm-ReLU-Conv twice, its output beside its input, as in DenseNet."""

    def __init__(self, width: int, growth: int) -> None:
        super().__init__()
        self.layers = nn.Sequential(
            nn.BatchNorm2d(width),
            nn.ReLU(inplace=True),
            nn.Conv2d(width, 4, 1, bias=False),
            nn.BatchNorm2d(4),
            nn.ReLU(inplace=True),
            nn.Conv2d(4, growth, 3, padding=1, bias=False),
        )

    def forward(self, x: Tensor) -> Tensor:
        return torch.cat([x, self.layers(x)], dim=1)


def dense() -> nn.Module:
    """Stem, dense block, transition, dense block."""
    return prepared(
        nn.Sequential(
            nn.Conv2d(2, 4, 3, padding=1, bias=False),
            nn.BatchNorm2d(4),
            nn.ReLU(inplace=True),
            nn.MaxPool2d(2),
            DenseLayer(4, 2),
            DenseLayer(6, 2),
            nn.BatchNorm2d(8),
            nn.ReLU(inplace=True),
            nn.Conv2d(8, 4, 1, bias=False),
            nn.AvgPool2d(2),
            DenseLayer(4, 2),
            nn.BatchNorm2d(6),
            nn.ReLU(inplace=True),
            nn.AdaptiveAvgPool2d(1),
            nn.Flatten(),
            nn.Linear(6, 3),
        )
    )


NETS: dict[str, Builder] = {
    "paper_cnn": paper_cnn,
    "vgg": vgg,
    "plain": plain,
    "unusual_norms": unusual_norms,
    "residual_2d": lambda: residual(2),
    "residual_3d": lambda: residual(3),
    "dense": dense,
}


def images(name: str, batch: int = 3, seed: int = 2) -> Tensor:
    """Images that fit a network, (B, 2, 16, 16) or (B, 2, 8, 8, 8), signed."""
    size = (8, 8, 8) if name.endswith("3d") else (16, 16)
    generator = torch.Generator().manual_seed(seed)
    return torch.randn((batch, 2, *size), generator=generator, dtype=torch.float64)


LABELS = torch.tensor([0, 2, 1])
