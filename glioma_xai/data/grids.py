"""Resampling, cropping and padding, with the affine kept right."""

from collections.abc import Sequence
from typing import Literal

import nibabel as nib
import numpy as np
import torch
from monai.data import MetaTensor
from monai.transforms import SpatialCrop, SpatialPad, SpatialResample
from numpy.typing import NDArray

Centre = Literal["brain", "tumour"]


def resample(stack: MetaTensor, spacing_mm: Sequence[float] | None) -> MetaTensor:
    """Change the pixels' distance, linearly; slices stay where they are.

    A pixel of twice the size is the mean of those it covers: the new grid has the old one's
    outer edges, not its first pixel.

    Args:
        stack: (C, X, Y, Z).
        spacing_mm: Two numbers keep the distance of slices, three change it; None keeps all.
    """
    if spacing_mm is None:
        return stack
    affine = stack.affine.numpy()
    present = np.linalg.norm(affine[:3, :3], axis=0)
    wanted = np.array([*spacing_mm, present[2]][:3])
    factor = wanted / present
    if np.allclose(factor, 1, atol=1e-3):
        return stack
    size = np.maximum(np.round(np.array(stack.shape[1:]) / factor), 1).astype(int)
    step = np.diag([*factor, 1.0])
    step[:3, 3] = (factor - 1) / 2
    transform = SpatialResample(
        mode="bilinear", padding_mode="border", align_corners=False, dtype=torch.float32
    )
    target = torch.from_numpy(affine @ step)
    resampled: MetaTensor = transform(stack, dst_affine=target, spatial_size=size.tolist())
    return resampled


def crop_and_pad(
    stack: MetaTensor, spatial_size: Sequence[int] | None, *, centre: Centre
) -> tuple[MetaTensor, bool]:
    """Bring to one size; also say whether all of the brain is inside.

    An axis that is too short is padded on both sides. On one that is too long the window is
    centred on the brain or tumour, but never reaches beyond the image, so nothing is cut without
    need.

    Args:
        stack: (C, X, Y, Z) with the lesion and the brain last.
        spatial_size: Two numbers keep the slices, three crop them too; None changes nothing.
        centre: What the window is centred on; a subject without tumour takes the brain.
    """
    if spatial_size is None:
        return stack, True
    lesion, brain = stack.as_tensor()[-2:].numpy() >= 0.5  # X Y Z each
    target = lesion if centre == "tumour" and lesion.any() else brain
    size = (*spatial_size, brain.shape[2])[:3]
    starts, ends, fits = [], [], True
    for axis, wanted in enumerate(size):
        (low, high), (brain_low, brain_high) = _extent(target, axis), _extent(brain, axis)
        start = min(max((low + high - wanted) // 2, 0), max(brain.shape[axis] - wanted, 0))
        starts.append(start)
        ends.append(min(start + wanted, brain.shape[axis]))
        fits = fits and start <= brain_low and brain_high <= start + wanted
    cropped = SpatialCrop(roi_start=starts, roi_end=ends)(stack)
    return SpatialPad(size)(cropped), fits


def _extent(region: NDArray[np.bool_], axis: int) -> tuple[int, int]:
    """Return the first index of a region (X, Y, Z) along an axis, and the one after the last."""
    inside = np.flatnonzero(region.any(axis=tuple(other for other in range(3) if other != axis)))
    return int(inside[0]), int(inside[-1]) + 1


def native_slices(picked: Sequence[int], count: int, affine: NDArray[np.float64]) -> list[int]:
    """Return the slices in the file's own numbering, which may run from head to foot."""
    directions = {int(axis): way for axis, way in nib.orientations.io_orientation(affine)}
    return [k if directions[2] > 0 else count - 1 - k for k in picked]
