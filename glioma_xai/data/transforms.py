"""The deterministic part: from files to arrays of one size on one grid."""

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import TypedDict

import nibabel as nib
import numpy as np
import torch
from monai.data import MetaTensor
from monai.transforms import SpatialCrop, SpatialPad, SpatialResample
from numpy.typing import NDArray
from torch import Tensor

from glioma_xai.data.intensities import (
    NORMALISED_RANGE,
    Normalisation,
    find_foreground,
    normalisation_map,
)
from glioma_xai.data.labels import Region, lesion_region
from glioma_xai.data.slices import SliceSelection, select_slices
from glioma_xai.data.volumes import LoadedSubject

UNKNOWN = -1.0
"""Stored lesion value of a pixel that nobody has annotated; it leaves the loader as NaN."""


@dataclass(frozen=True)
class Preparation:
    """Everything that decides what a subject's stored arrays look like.

    Args:
        modalities: Channels in order.
        label_values: Mask value of each part of the tumour; None if any non-zero value is tumour.
        region: The part that is the lesion.
        spatial_dims: 2 for axial slices, 3 for volumes.
        spatial_size: Pixels along x (left to right), y (posterior to anterior) and, for volumes, z;
            None keeps what the file has.
        spacing_mm: Distance of pixels; one number or one for each axis; None keeps the file's.
            Slices keep their distance. A pixel of a PNG counts as 1 mm.
        slices: Which slices are taken; not used for volumes.
        normalisation: Scale of intensities, from the brain of each volume and modality.
    """

    modalities: tuple[str, ...]
    label_values: Mapping[str, int] | None = None
    region: Region = "whole_tumour"
    spatial_dims: int = 2
    spatial_size: tuple[int, ...] | None = (96, 112)
    spacing_mm: tuple[float, ...] | None = (2.0, 2.0)
    slices: SliceSelection = field(default_factory=SliceSelection)
    normalisation: Normalisation = "zscore"

    def as_json(self) -> str:
        """Return the settings as text, the same for equal settings."""
        return json.dumps(asdict(self), sort_keys=True)


class Geometry(TypedDict):
    """Where prepared arrays lie on the subject's own grid; stored beside them as JSON."""

    native_shape: list[int]  # X Y Z of the file
    native_affine: list[list[float]]  # 4 4, file indices to mm
    model_affine: list[list[float]]  # 4 4, indices of the prepared grid to mm, every slice counted
    model_slices: int  # slices of the prepared grid, before any were picked
    slices: list[int]  # position of each sample on the prepared grid's third axis; empty for 3-D
    native_slices: list[int]  # the same in the file's own numbering
    lesion_area: list[int]  # lesion pixels of each sample
    sample_shape: list[int]  # H W [D]
    brain_fits: bool  # False if the window cuts off part of the brain
    value_range: list[float]  # smallest and largest stored value


@dataclass(frozen=True)
class Prepared:
    """Arrays of one subject.

    Args:
        samples: (N, C + 2, H, W[, D]) float16: modalities, lesion (1, 0 or UNKNOWN), brain (1, 0).
        geometry: Where they lie on the subject's own grid.
    """

    samples: NDArray[np.float16]
    geometry: Geometry


def prepare(loaded: LoadedSubject, preparation: Preparation) -> Prepared:
    """Orient, normalise, pick slices, resample and crop one subject; no randomness.

    Image, lesion and brain travel as one tensor, so that nothing can move one without the others.
    """
    stack, picked, count = _normalised_stack(loaded, preparation)  # C+2 X Y Z
    has_lesion = bool((stack[-2] == 1).any())
    planar = preparation.spatial_dims == 2
    stack = _resample(stack, preparation)
    stack, brain_fits = _window(stack, preparation)
    samples = stack.as_tensor().movedim(-1, 0) if planar else stack.as_tensor()[None]
    samples = _finished(samples, has_lesion=has_lesion, normalisation=preparation.normalisation)
    geometry = Geometry(
        native_shape=list(loaded.image.shape[1:]),
        native_affine=loaded.affine.tolist(),
        model_affine=stack.affine.tolist(),
        model_slices=count,
        slices=picked,
        native_slices=_native_slices(picked, count, loaded.affine),
        lesion_area=(samples[:, -2] == 1).flatten(1).sum(1).tolist(),
        sample_shape=list(samples.shape[2:]),
        brain_fits=brain_fits,
        value_range=[float(samples[:, :-2].min()), float(samples[:, :-2].max())],
    )
    return Prepared(samples.numpy().astype(np.float16), geometry)


def _normalised_stack(
    loaded: LoadedSubject, preparation: Preparation
) -> tuple[MetaTensor, list[int], int]:
    """Return image, lesion and brain (C + 2, X, Y, Z) in RAS+, which slices, and of how many.

    Air is 0, and so is the lesion where it is unknown. The affine counts all slices.
    """
    orientation = nib.orientations.io_orientation(loaded.affine)
    shape = loaded.image.shape[1:]
    affine = loaded.affine @ nib.orientations.inv_ornt_aff(orientation, shape)
    image = np.stack([nib.orientations.apply_orientation(c, orientation) for c in loaded.image])
    if loaded.labels is None:
        lesion = np.zeros(image.shape[1:], dtype=bool)
    else:
        labels = nib.orientations.apply_orientation(loaded.labels, orientation)
        lesion = lesion_region(labels, preparation.label_values, preparation.region)
    foreground = find_foreground(image)
    brain = foreground.brain
    shift, scale = normalisation_map(image, brain, preparation.normalisation)
    picked: list[int] = []
    count = brain.shape[2]
    if preparation.spatial_dims == 2:
        area = (lesion if lesion.any() else brain).sum(axis=(0, 1))
        picked = select_slices(area, preparation.slices)
        image, lesion, brain = image[..., picked], lesion[..., picked], brain[..., picked]
    stack = np.empty((len(image) + 2, *brain.shape), dtype=np.float32)
    np.subtract(image, shift[:, None, None, None], out=stack[:-2])
    stack[:-2] /= scale[:, None, None, None]
    stack[:-2][foreground.is_air(image, brain)] = 0
    stack[-2], stack[-1] = lesion, brain
    return MetaTensor(torch.from_numpy(stack), torch.from_numpy(affine)), picked, count


def _resample(stack: MetaTensor, preparation: Preparation) -> MetaTensor:
    """Change the pixels' distance, linearly; slices stay where they are.

    A pixel of twice the size is the mean of those it covers: the new grid has the old one's
    outer edges, not its first pixel.
    """
    if preparation.spacing_mm is None:
        return stack
    affine = stack.affine.numpy()
    present = np.linalg.norm(affine[:3, :3], axis=0)
    wanted = np.array([*preparation.spacing_mm, present[2]][:3])
    factor = wanted / present
    if np.allclose(factor, 1, atol=1e-3):
        return stack
    size = np.maximum(np.round(np.array(stack.shape[1:]) / factor), 1).astype(int)
    step = np.diag([*factor, 1.0])
    step[:3, 3] = (factor - 1) / 2
    resample = SpatialResample(
        mode="bilinear", padding_mode="border", align_corners=False, dtype=torch.float32
    )
    return resample(stack, dst_affine=torch.from_numpy(affine @ step), spatial_size=size.tolist())


def _window(stack: MetaTensor, preparation: Preparation) -> tuple[MetaTensor, bool]:
    """Crop and pad to one size around the brain; also say whether all of the brain is inside.

    An axis that is too short is padded on both sides. On one that is too long the window is
    centred on the brain, but never reaches beyond the image, so nothing is cut without need.
    """
    if preparation.spatial_size is None:
        return stack, True
    brain = stack.as_tensor()[-1] >= 0.5  # X Y Z
    size = (*preparation.spatial_size, brain.shape[2])[:3]
    starts, ends, fits = [], [], True
    for axis, wanted in enumerate(size):
        others = tuple(other for other in range(3) if other != axis)
        inside = brain.any(dim=others[1]).any(dim=others[0]).nonzero()[:, 0]
        low, high = int(inside[0]), int(inside[-1]) + 1
        start = min(max((low + high - wanted) // 2, 0), max(brain.shape[axis] - wanted, 0))
        starts.append(start)
        ends.append(min(start + wanted, brain.shape[axis]))
        fits = fits and start <= low and high <= start + wanted
    cropped = SpatialCrop(roi_start=starts, roi_end=ends)(stack)
    return SpatialPad(size)(cropped), fits


def _finished(samples: Tensor, *, has_lesion: bool, normalisation: Normalisation) -> Tensor:
    """Clip intensities, and make masks 0, 1 or UNKNOWN, (N, C + 2, *spatial).

    A sample without tumour says nothing about where to look: its lesion is unknown.
    """
    samples = samples.contiguous()
    largest = float(np.finfo(np.float16).max)
    low, high = NORMALISED_RANGE.get(normalisation, (-largest, largest))
    samples[:, :-2].clamp_(low, high)
    samples[:, -2:] = (samples[:, -2:] >= 0.5).to(samples.dtype)
    shows = (samples[:, -2] == 1).flatten(1).any(dim=1) & has_lesion
    samples[~shows, -2] = UNKNOWN
    return samples


def _native_slices(picked: list[int], count: int, affine: NDArray[np.float64]) -> list[int]:
    """Return the slices in the file's own numbering, which may run from head to foot."""
    axis = int(np.abs(affine[2, :3]).argmax())
    return [k if affine[2, axis] > 0 else count - 1 - k for k in picked]
