"""The deterministic part: from files to arrays of one size on one grid."""

import hashlib
import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import TypedDict

import nibabel as nib
import numpy as np
import torch
from monai.data import MetaTensor
from numpy.typing import NDArray

from glioma_xai.data.annotations import UNKNOWN, Annotation, annotate
from glioma_xai.data.grids import Centre, crop_and_pad, native_slices, resample
from glioma_xai.data.intensities import (
    NORMALISED_RANGE,
    Normalisation,
    find_foreground,
    normalisation_map,
)
from glioma_xai.data.labels import Region, lesion_region
from glioma_xai.data.slices import SliceSelection, select_slices
from glioma_xai.data.volumes import LoadedSubject
from glioma_xai.errors import ConfigError


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
        neighbours: Slices above and below that are added as channels, from the lowest to the
            highest, all modalities of one slice together; 0 for the slice alone.
        centre: What a window that is smaller than the image is centred on.
        jitter: Pixels that are stored around the window, for random crops in training.
        annotation: The mask that training sees.
    """

    modalities: tuple[str, ...]
    label_values: Mapping[str, int] | None = None
    region: Region = "whole_tumour"
    spatial_dims: int = 2
    spatial_size: tuple[int, ...] | None = (96, 112)
    spacing_mm: tuple[float, ...] | None = (2.0, 2.0)
    slices: SliceSelection = field(default_factory=SliceSelection)
    normalisation: Normalisation = "zscore"
    neighbours: int = 0
    centre: Centre = "brain"
    jitter: int = 0
    annotation: Annotation = field(default_factory=Annotation)

    def __post_init__(self) -> None:
        if self.neighbours and self.spatial_dims == 3:
            raise ConfigError(
                f"data.neighbours needs data.spatial_dims=2, got {self.spatial_dims} and "
                f"neighbours={self.neighbours}. A volume has its neighbours already."
            )
        if self.jitter and self.spatial_size is None:
            raise ConfigError(
                f"data.jitter needs data.spatial_size, got null and jitter={self.jitter}. "
                "Set the size that is cropped out."
            )

    @property
    def channels(self) -> int:
        """Number of image channels."""
        return len(self.modalities) * (2 * self.neighbours + 1)

    @property
    def stored_size(self) -> tuple[int, ...] | None:
        """Spatial size of what is stored: the sample's, and the jitter on all sides."""
        if self.spatial_size is None:
            return None
        return tuple(length + 2 * self.jitter for length in self.spatial_size)

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
    empty_mask: bool  # True for a mask that marks nothing anywhere; False without a mask
    sample_shape: list[int]  # H W [D]
    jitter: int  # pixels stored around that on all sides
    brain_fits: bool  # False if the window cuts off part of the brain
    value_range: list[float]  # smallest and largest stored value
    digest: str  # of every second voxel of the images, whatever mask, axes and window


@dataclass(frozen=True)
class Prepared:
    """Arrays of one subject.

    Args:
        samples: (N, C + 3, H, W[, D]) float16: modalities, annotation and lesion (1, 0, UNKNOWN),
            brain (1, 0); with the jitter on all sides.
        geometry: Where they lie on the subject's own grid.
    """

    samples: NDArray[np.float16]
    geometry: Geometry


class NoBrainError(Exception):
    """An image that shows nothing once it has the distance of pixels that is wanted."""


def prepare(loaded: LoadedSubject, preparation: Preparation) -> Prepared:
    """Orient, normalise, pick slices, resample and crop one subject; no randomness.

    Image, lesion and brain travel as one tensor, so that nothing can move one without the others.

    Raises:
        NoBrainError: If no pixel of the result is brain.
    """
    turned = _to_ras(loaded)
    stack, picked, count = _normalised_stack(turned, preparation)  # C+2 X Y Z
    stack = resample(stack, preparation.spacing_mm)
    if not (stack[-1] >= 0.5).any():
        raise NoBrainError("hardly a voxel that differs from the background")
    stack, brain_fits = crop_and_pad(stack, preparation.stored_size, centre=preparation.centre)
    affine = stack.affine.numpy()
    planar = preparation.spatial_dims == 2
    samples = stack.as_tensor().movedim(-1, 0) if planar else stack.as_tensor()[None]
    spacing = np.linalg.norm(affine[:3, :3], axis=0)[: preparation.spatial_dims]
    finished = _finished(samples.numpy(), preparation, tuple(spacing.tolist()))
    stored = finished.astype(np.float16)
    jitter = preparation.jitter
    geometry = Geometry(
        native_shape=list(loaded.image.shape[1:]),
        native_affine=loaded.affine.tolist(),
        model_affine=affine.tolist(),
        model_slices=count,
        slices=picked,
        native_slices=native_slices(picked, count, loaded.affine),
        lesion_area=[int((sample[-2] == 1).sum()) for sample in finished],
        empty_mask=loaded.labels is not None and not loaded.labels.any(),
        sample_shape=[length - 2 * jitter for length in finished.shape[2:]],
        jitter=jitter,
        brain_fits=brain_fits,
        value_range=[float(finished[:, :-3].min()), float(finished[:, :-3].max())],
        digest=_digest(turned.image),
    )
    return Prepared(stored, geometry)


def _to_ras(loaded: LoadedSubject) -> LoadedSubject:
    """Return the subject with its axes from left to right, back to front and foot to head."""
    orientation = nib.orientations.io_orientation(loaded.affine)
    turn = nib.orientations.apply_orientation
    back = nib.orientations.inv_ornt_aff(orientation, loaded.image.shape[1:])
    return LoadedSubject(
        np.moveaxis(turn(np.moveaxis(loaded.image, 0, -1), orientation), -1, 0),  # no copy
        None if loaded.labels is None else turn(loaded.labels, orientation),
        loaded.affine @ back,
    )


def _digest(image: NDArray[np.float32]) -> str:
    """Return a name of what images in RAS+ show, (C, X, Y, Z); every second voxel is looked at."""
    seen = np.ascontiguousarray(image[:, ::2, ::2, ::2])
    return hashlib.sha1(seen.data, usedforsecurity=False).hexdigest()


def _normalised_stack(
    loaded: LoadedSubject, preparation: Preparation
) -> tuple[MetaTensor, list[int], int]:
    """Return image, lesion and brain (C + 2, X, Y, Z), which slices, and of how many.

    Air is 0, and so is the lesion where it is unknown. The affine counts all slices.

    Args:
        loaded: In RAS+.
        preparation: Settings.
    """
    image, labels = loaded.image, loaded.labels
    tumour, lesion = None, np.zeros(image.shape[1:], dtype=bool)
    if labels is not None:
        tumour = labels != 0
        lesion = lesion_region(labels, preparation.label_values, preparation.region)
    foreground = find_foreground(image)
    brain = foreground.brain
    shift, scale = normalisation_map(image, brain, tumour, preparation.normalisation)
    picked, count = [], brain.shape[2]
    groups: list[slice | NDArray[np.intp]] = [slice(None)]
    if preparation.spatial_dims == 2:
        shown = [part for part in (lesion, tumour) if part is not None and part.any()]
        area = (shown[0] if shown else brain).sum(axis=(0, 1))
        picked = select_slices(area, preparation.slices)
        reach = range(-preparation.neighbours, preparation.neighbours + 1)
        groups = [np.clip(np.array(picked) + step, 0, count - 1) for step in reach]
    own = groups[len(groups) // 2]
    channels = len(image)
    stack = np.empty((preparation.channels + 2, *brain[..., own].shape), dtype=np.float32)
    for place, group in enumerate(groups):
        for channel in range(channels):
            part, target = image[channel][..., group], stack[place * channels + channel]
            np.subtract(part, shift[channel], out=target)
            target /= scale[channel]
            target[foreground.is_air(part, channel) & ~brain[..., group]] = 0
    stack[-2], stack[-1] = lesion[..., own], brain[..., own]
    return MetaTensor(torch.from_numpy(stack), torch.from_numpy(loaded.affine)), picked, count


def _finished(
    samples: NDArray[np.float32], preparation: Preparation, spacing_mm: tuple[float, ...]
) -> NDArray[np.float32]:
    """Clip intensities, make masks 0, 1 or UNKNOWN and add the annotation, (N, C + 3, *spatial).

    A sample without tumour says nothing about where to look: its lesion is unknown.
    """
    largest = float(np.finfo(np.float16).max)
    low, high = NORMALISED_RANGE.get(preparation.normalisation, (-largest, largest))
    finished = np.empty((len(samples), samples.shape[1] + 1, *samples.shape[2:]), np.float32)
    np.clip(samples[:, :-2], low, high, out=finished[:, :-3])
    for row, sample in enumerate(samples):
        lesion = sample[-2] >= 0.5
        finished[row, -3] = annotate(lesion, preparation.annotation, spacing_mm)
        finished[row, -2] = lesion if lesion.any() else UNKNOWN
        finished[row, -1] = sample[-1] >= 0.5
    return finished
