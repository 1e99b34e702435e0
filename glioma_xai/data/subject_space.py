"""Maps of prepared samples back onto the subject's own grid."""

from collections.abc import Sequence

import nibabel as nib
import numpy as np
from numpy.typing import NDArray
from scipy import ndimage
from torch import Tensor

from glioma_xai.data.transforms import Geometry
from glioma_xai.errors import ShapeError

GRID_TOLERANCE = 1e-3
"""Voxels by which two grids may differ and still count as the same up to flips and shifts."""


def restore(
    geometry: Geometry, maps: Tensor | NDArray[np.floating], slice_indices: Sequence[int] = ()
) -> nib.Nifti1Image:
    """Return maps as a NIfTI image with the shape and affine of the subject's file.

    Where preparing was flipping, cropping and padding only, values are copied exactly; where it
    resampled, they are interpolated linearly. Outside the prepared window, and in slices without a
    map, the result is 0. A value is a density: interpolation keeps values, not their sum.

    Args:
        geometry: Of the prepared subject.
        maps: For slices (N, H, W), for a volume (H, W, D) or (1, H, W, D).
        slice_indices: Slice of each map in the file's own numbering; empty means the slices
            that the subject's samples have, in their order.

    Raises:
        ShapeError: If maps and slices do not fit the subject.
    """
    values = np.asarray(maps, dtype=np.float32)
    if geometry["slices"]:
        volume = _stack_slices(geometry, values, slice_indices)
        around = [(geometry["jitter"],) * 2] * 2 + [(0, 0)]
    else:
        volume = values.reshape(geometry["sample_shape"])
        around = [(geometry["jitter"],) * 2] * 3
    volume = np.pad(volume, around)
    native_affine = np.array(geometry["native_affine"])
    to_model = np.linalg.inv(np.array(geometry["model_affine"])) @ native_affine
    exact = np.abs(to_model - to_model.round()).max() < GRID_TOLERANCE
    restored = ndimage.affine_transform(
        volume,
        to_model.round() if exact else to_model,
        output_shape=tuple(geometry["native_shape"]),
        order=0 if exact else 1,
        mode="constant" if exact else "grid-constant",
    )
    return nib.Nifti1Image(restored, native_affine)


def _stack_slices(
    geometry: Geometry, values: NDArray[np.float32], slice_indices: Sequence[int]
) -> NDArray[np.float32]:
    """Put slices to their places on the prepared grid, (H, W, all slices)."""
    positions = dict(zip(geometry["native_slices"], geometry["slices"], strict=True))
    wanted = list(slice_indices) or list(geometry["native_slices"])
    expected = (len(wanted), *geometry["sample_shape"])
    if values.shape != expected:
        raise ShapeError(
            f"maps must be one for each slice: expected {expected}, got {values.shape}. "
            "Sum relevance over channels and pass slice_indices in order."
        )
    unknown = [index for index in wanted if index not in positions]
    if unknown:
        raise ShapeError(
            f"slice_indices must be slices of the subject's samples: expected some of "
            f"{geometry['native_slices']}, got {unknown}. Take them from the batch's slice_index."
        )
    volume = np.zeros((*geometry["sample_shape"], geometry["model_slices"]), dtype=np.float32)
    for index, map_ in zip(wanted, values, strict=True):
        volume[..., positions[index]] = map_
    return volume
