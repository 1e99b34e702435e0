"""One synthetic patient: anatomy, tumour and scanner put together on a slab or a whole volume."""

from dataclasses import dataclass
from enum import IntEnum
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from glioma_xai.data.anatomy import candidate_voxels, draw_head, draw_location, sample_tissue
from glioma_xai.data.contrast import add_noise, draw_exposure, draw_scanner, render
from glioma_xai.data.fields import Axes, Float, grid_points
from glioma_xai.data.tumours import draw_character, draw_growth, grow
from glioma_xai.records import MODALITIES, Modality

Grade = Literal["HGG", "LGG"]
Images = dict[Modality, NDArray[np.int16]]

_LOWER_MM = (-90.0, -126.0, -72.0)  # first voxel centre and size of the grid: MNI152 at 2 mm
_SIZE_MM = (182.0, 218.0, 182.0)


class Stream(IntEnum):
    """Independent sources of randomness, so that what is drawn in one never shifts another."""

    GRADE = 0
    SITE = 1
    SCANNER = 2
    ANATOMY = 3
    GROWTH = 4
    CHARACTER = 5
    EXPOSURE = 6
    NOISE = 7
    SHORTCUT = 8
    PRESENCE = 9


@dataclass(frozen=True)
class Patient:
    """Pictures of one patient before any shortcut.

    Args:
        images: Modality to (X, Y, Z), int16; exactly 0 outside the brain, at least 1 in it.
        segmentation: (X, Y, Z), uint8, BraTS labels 0 1 2 4.
        brain_mask: (X, Y, Z).
        affine: (4, 4), voxel to mm, RAS.
        malignancy: The hidden number through which the class acts, see ``tumours``.
    """

    images: Images
    segmentation: NDArray[np.uint8]
    brain_mask: NDArray[np.bool_]
    affine: NDArray[np.float64]
    malignancy: float

    @property
    def lesion_mask(self) -> NDArray[np.bool_]:
        """Whole tumour, (X, Y, Z)."""
        return self.segmentation > 0


def stream(seed: int, number: int, name: Stream) -> np.random.Generator:
    """Source of randomness for one patient (or site, or pair of patients) and one purpose."""
    return np.random.default_rng([seed, number, name])


def build_patient(
    *,
    seed: int,
    number: int,
    grade: Grade,
    site: int,
    difficulty: float,
    slices: int | None,
    spacing_mm: float = 2.0,
) -> Patient:
    """Make one patient; a slab equals the same slices of the whole volume.

    Args:
        seed: The cohort's seed.
        number: The patient's number in the cohort.
        grade: Class.
        site: Number of the site, which decides the scanner.
        difficulty: See ``tumours.draw_character``.
        slices: Axial slices around the tumour's centre; None for the whole volume.
        spacing_mm: Edge of a voxel.

    Returns:
        Patient with all four sequences in one space.
    """
    head = draw_head(stream(seed, number, Stream.ANATOMY))
    growth_rng = stream(seed, number, Stream.GROWTH)
    growth = draw_growth(growth_rng, draw_location(growth_rng, head))
    character = draw_character(
        stream(seed, number, Stream.CHARACTER), high_grade=grade == "HGG", difficulty=difficulty
    )
    axes, first = _grid(spacing_mm, slices, float(growth.centre[2]))

    inside = candidate_voxels(axes)
    displacement = head.displacement(axes)[:, inside].T
    points = grid_points(axes, inside)
    origin = head.to_template(growth.undo_mass_effect(points), displacement)
    tissue = sample_tissue(origin)
    brain = tissue[:, :3].sum(axis=1) > 0.5
    inside[inside] = brain
    points, tissue = points[brain], tissue[brain]
    across = origin[brain, 0] * np.sign(growth.centre[0]) < 0

    lesion = grow(
        growth,
        character,
        points=points,
        tissue=tissue,
        barrier=across * (1 - tissue[:, 1]),
        inside=inside,
        axes=axes,
    )
    scanner = draw_scanner(stream(seed, site, Stream.SCANNER))
    pictures = render(
        scanner,
        draw_exposure(stream(seed, number, Stream.EXPOSURE)),
        tissue=tissue,
        lesion=lesion,
        uptake=character.enhancement,
        inside=inside,
        axes=axes,
    )
    sigma = scanner.noise * scanner.gain
    segmentation = np.zeros(inside.shape, dtype=np.uint8)
    segmentation[inside] = lesion.labels
    affine = np.diag([spacing_mm, spacing_mm, spacing_mm, 1.0])
    affine[:3, 3] = [axis[0] for axis in axes]
    images = _store(pictures, sigma, inside, (seed, number, first))
    return Patient(images, segmentation, inside, affine, character.malignancy)


def _grid(spacing_mm: float, slices: int | None, centre_mm: float) -> tuple[Axes, int]:
    """Voxel centres along x, y and z, and the number of the first slice in the whole volume."""
    x, y, z = (
        (lower + spacing_mm * np.arange(round(size / spacing_mm))).astype(np.float32)
        for lower, size in zip(_LOWER_MM, _SIZE_MM, strict=True)
    )
    if slices is None:
        return (x, y, z), 0
    first = round((centre_mm - _LOWER_MM[2]) / spacing_mm - (slices - 1) / 2)
    first = int(np.clip(first, 0, max(0, len(z) - slices)))
    return (x, y, z[first : first + slices]), first


def _store(
    pictures: dict[Modality, Float],
    sigma: Float,
    brain_mask: NDArray[np.bool_],
    key: tuple[int, int, int],
) -> Images:
    """Add noise slice by slice, strip everything outside the brain, round to integers."""
    seed, number, first = key
    images: Images = {m: np.zeros(brain_mask.shape, dtype=np.int16) for m in MODALITIES}
    for z in range(brain_mask.shape[2]):
        rng = np.random.default_rng([seed, number, Stream.NOISE, first + z])
        inside = brain_mask[:, :, z]
        for k, modality in enumerate(MODALITIES):
            noisy = add_noise(pictures[modality][:, :, z][inside], float(sigma[k]), rng)
            images[modality][:, :, z][inside] = np.clip(np.rint(noisy), 1, 32767)
    return images
