"""The random part: image, lesion and brain moved together, intensities changed inside the brain.

Drawing and applying are apart: what is drawn is a pure function of (seed, epoch, index), and what
is applied has no randomness. One resampling does flip, rotation, scale, shift and bending at once.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from glioma_xai.errors import ConfigError

BENDING_GRID = 5
"""Control points of the elastic field along each axis."""


@dataclass(frozen=True)
class Augmentation:
    """How far a training sample is changed; zeros change nothing.

    Args:
        enabled: False leaves every sample as it is.
        flip: Probability of a flip from left to right.
        rotation_degrees: Largest rotation to either side, in the axial plane.
        scale: Largest relative change of size.
        translation: Largest shift along each axis, as a share of its length.
        elastic: Largest displacement of the smooth random field, as a share of each axis' length.
        gain: Largest relative change of contrast, drawn for each modality.
        shift: Largest change of brightness inside the brain, in units of the normalised image.
        noise: Largest standard deviation of Gaussian noise inside the brain, same units.
    """

    enabled: bool = True
    flip: float = 0.5
    rotation_degrees: float = 15.0
    scale: float = 0.1
    translation: float = 0.05
    elastic: float = 0.0
    gain: float = 0.1
    shift: float = 0.1
    noise: float = 0.05

    def __post_init__(self) -> None:
        limits = {"flip": 1.0, "rotation_degrees": 180.0, "scale": 0.9, "translation": 1.0}
        limits |= {"elastic": 0.2, "gain": 1.0, "shift": 10.0, "noise": 10.0}
        for name, limit in limits.items():
            if not 0 <= getattr(self, name) <= limit:
                raise ConfigError(
                    f"data.augmentation.{name} must lie in [0, {limit:g}], got "
                    f"{getattr(self, name)}. Set 0 to leave it out."
                )


@dataclass(frozen=True)
class Change:
    """What was drawn for one sample.

    Args:
        matrix: (D, D + 1) output position to input position, in pixels from the image's centre.
        bending: (D, 5, ..., 5) displacement in pixels at control points; None for none.
        gain: (C,) factor of each modality.
        shift: (C,) added inside the brain.
        noise: (C, *spatial) added inside the brain; None for none.
    """

    matrix: NDArray[np.float32]
    bending: NDArray[np.float32] | None
    gain: NDArray[np.float32]
    shift: NDArray[np.float32]
    noise: NDArray[np.float32] | None


def sample_generator(seed: int, epoch: int, index: int) -> np.random.Generator:
    """Return the generator of one sample in one epoch; workers and batches play no part."""
    return np.random.default_rng([seed, epoch, index])


def draw_change(
    settings: Augmentation, shape: tuple[int, ...], generator: np.random.Generator
) -> Change:
    """Draw a change for an image of shape (C, H, W[, D])."""
    channels, size = shape[0], np.array(shape[1:], dtype=np.float32)
    dims = len(size)
    angle = np.deg2rad(generator.uniform(-settings.rotation_degrees, settings.rotation_degrees))
    factor = 1 + generator.uniform(-settings.scale, settings.scale)
    side = -1.0 if generator.uniform() < settings.flip else 1.0
    matrix = np.eye(dims, dims + 1, dtype=np.float32)
    turn = np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
    matrix[:2, :2] = turn
    matrix[:, :dims] /= factor
    matrix[0, :dims] *= side
    matrix[:, dims] = generator.uniform(-settings.translation, settings.translation, dims) * size
    bending = None
    if settings.elastic:
        points = generator.uniform(-1, 1, (dims, *[BENDING_GRID] * dims))
        reach = (settings.elastic * size).reshape(dims, *[1] * dims)
        bending = (points * reach).astype(np.float32)
    noise = None
    if settings.noise:
        deviation = np.float32(generator.uniform(0, settings.noise))
        noise = deviation * generator.standard_normal(shape, dtype=np.float32)
    return Change(
        matrix,
        bending,
        generator.uniform(1 - settings.gain, 1 + settings.gain, channels).astype(np.float32),
        generator.uniform(-settings.shift, settings.shift, channels).astype(np.float32),
        noise,
    )


def apply_changes(image: Tensor, masks: Tensor, changes: Sequence[Change]) -> tuple[Tensor, Tensor]:
    """Return changed copies of a batch, one change a sample.

    The image is interpolated linearly, masks take the nearest value, and what comes
    in from outside is air: 0 everywhere.

    Args:
        image: (B, C, H, W[, D]).
        masks: (B, 2, H, W[, D]), annotation and brain.
        changes: B of them.
    """
    grid = _sampling_grid(changes, tuple(image.shape[2:]))
    image = F.grid_sample(image, grid, mode="bilinear", align_corners=False)  # B C H W [D]
    masks = F.grid_sample(masks, grid, mode="nearest", align_corners=False)  # B 2 H W [D]
    ones = (-1,) + (1,) * (image.ndim - 2)
    for moved, brain, change in zip(image, masks[:, 1:], changes, strict=True):
        inside = torch.from_numpy(change.shift).view(ones)
        if change.noise is not None:
            inside = inside + torch.from_numpy(change.noise)
        moved.mul_(torch.from_numpy(change.gain).view(ones)).add_(inside * brain)
    return image, masks


def _sampling_grid(changes: Sequence[Change], size: tuple[int, ...]) -> Tensor:
    """Return (B, *size, D): where each output pixel is read, in torch's normalised coordinates."""
    dims = len(size)
    half = np.array(size, dtype=np.float32) / 2
    matrix = np.stack([change.matrix for change in changes])  # pixels, axes in order of the array
    matrix[:, :, :dims] *= half[None] / half[:, None]
    matrix[:, :, dims] /= half
    reverse = np.arange(dims)[::-1]  # torch counts axes from the last
    theta = matrix[:, reverse][:, :, [*reverse, dims]]
    shape = [len(changes), 1, *size]
    grid = F.affine_grid(torch.from_numpy(theta), shape, align_corners=False)
    bending = [change.bending for change in changes if change.bending is not None]
    if not bending:
        return grid
    mode = "bicubic" if dims == 2 else "trilinear"
    points = torch.from_numpy(np.stack(bending) / half.reshape(dims, *[1] * dims))  # B D 5 5 [5]
    field = F.interpolate(points, size=size, mode=mode, align_corners=True)
    return grid + field.movedim(1, -1).flip(-1)
