"""Deliberate shortcuts: cues besides the tumour that can give the class away.

Each is a pure function of one finished patient and a source of randomness. It returns a changed
copy; arrays that it leaves alone are the same objects, so that a caller sees which files stay.
"""

from dataclasses import replace
from typing import Literal, assert_never, get_args

import numpy as np
from numpy.typing import NDArray

from glioma_xai.data.patient import Images, Patient

Shortcut = Literal[
    "none", "corner_marker", "bright_spot", "rim_spot", "texture", "annotation", "head_tilt",
    "missing_sequence",
]  # fmt: skip
SHORTCUTS: tuple[Shortcut, ...] = get_args(Shortcut)

_GLYPHS = {  # 3 x 5 pixels, rows from the top
    "1": "010 110 010 010 111",
    "2": "110 001 010 100 111",
    "3": "110 001 010 001 110",
    "4": "101 101 111 001 001",
    "7": "111 001 010 010 010",
    "A": "010 101 111 101 101",
    "L": "100 100 100 100 111",
    "R": "110 101 110 101 101",
}


def apply_shortcut(name: Shortcut, patient: Patient, rng: np.random.Generator) -> Patient:
    """Put a shortcut into one patient's pictures.

    Args:
        name: Which shortcut; ``none`` returns the patient as it is.
        patient: Finished pictures.
        rng: Source of randomness of this patient's shortcut.

    Returns:
        Patient with the shortcut.
    """
    match name:
        case "none":
            return patient
        case "corner_marker":
            return add_corner_marker(patient, rng)
        case "bright_spot":
            return add_bright_spot(patient, rng)
        case "rim_spot":
            return add_rim_spot(patient, rng)
        case "texture":
            return add_texture(patient, rng)
        case "annotation":
            return add_annotation(patient, rng)
        case "head_tilt":
            return tilt_head(patient, rng)
        case "missing_sequence":
            return replace_sequence(patient)
        case _:
            assert_never(name)


def add_corner_marker(patient: Patient, rng: np.random.Generator) -> Patient:
    """Small bright square beside the brain, at one place in every slice and modality.

    It lies in the front right corner of the brain's bounding box, so that cropping to the brain
    keeps it, and is brighter than any tissue, so that it stays visible after scaling in
    the brain. Air parts it from the brain, so that the largest connected region is the brain still.
    """
    voxel = _voxels_in_2_mm(patient)
    square = np.ones((5 * voxel, 5 * voxel), dtype=np.bool_)
    return _burn_in(patient, square, right=True, inset=voxel * rng.integers(2, size=2))


def add_annotation(patient: Patient, rng: np.random.Generator) -> Patient:
    """Four letters or figures in two lines beside the brain, in every slice and modality.

    They lie in the front left corner of the brain's bounding box; each patient has others.
    """
    chosen = rng.choice(list(_GLYPHS), size=(2, 2))
    letters = [[_glyph(name) for name in line] for line in chosen]
    gap = np.zeros((5, 1), dtype=np.bool_)
    lines = [np.hstack([first, gap, second]) for first, second in letters]
    text = np.vstack([lines[0], np.zeros((1, 7), dtype=np.bool_), lines[1]])  # rows from the top
    voxel = _voxels_in_2_mm(patient)
    pixels = (
        text.repeat(voxel, axis=0).repeat(voxel, axis=1)[::-1].T
    )  # x to the right, y to the front
    return _burn_in(patient, pixels, right=False, inset=np.zeros(2, dtype=np.int64))


def add_bright_spot(patient: Patient, rng: np.random.Generator) -> Patient:
    """Bright spot of 6 mm in healthy tissue at a random place, in every slice and modality.

    It stays at one place in the plane in all slices, at least 8 mm away from the tumour's outline
    seen from above. Where the tumour leaves no such place, it spares the tumour's voxels only.
    """
    from scipy import ndimage

    brain, lesion = patient.brain_mask, patient.lesion_mask
    voxel = _voxels_in_2_mm(patient)
    slices = lesion.any(axis=(0, 1)) if lesion.any() else brain.any(axis=(0, 1))
    deep = ndimage.binary_erosion(brain[:, :, slices].min(axis=2), iterations=3 * voxel)
    shadow = ndimage.binary_dilation(lesion.max(axis=2), iterations=4 * voxel)
    places = np.argwhere(deep & ~shadow)
    if not len(places):
        places = np.argwhere(brain.max(axis=2))
    place = places[rng.integers(len(places))]
    spot = _spot(patient, place)[:, :, None] * (brain & ~lesion)
    return _brighten(patient, spot)


def add_rim_spot(patient: Patient, rng: np.random.Generator) -> Patient:
    """Bright spot of 6 mm on the tumour's margin, about half of it inside, in every modality.

    The margin is where the tumour holds 35 to 65 % of the spot. A place on it is drawn in the slice
    that shows most tumour; in each other slice the spot takes the nearest place on that slice's
    margin. A tumour smaller than the spot carries it where its share is nearest to a half; slices
    without tumour carry none. The segmentation stays as it is.
    """
    from scipy import ndimage

    brain, lesion = patient.brain_mask, patient.lesion_mask
    sigma = _spot_sigma(patient)
    areas = lesion.sum(axis=(0, 1))
    anchor: NDArray[np.int64] | None = None
    spot = np.zeros(brain.shape)
    for z in sorted(np.flatnonzero(areas), key=lambda z: -areas[z]):
        share = ndimage.gaussian_filter(lesion[:, :, z].astype(np.float64), sigma)
        in_brain = ndimage.gaussian_filter(brain[:, :, z].astype(np.float64), sigma)
        distance = np.where(brain[:, :, z], np.abs(share - 0.5), np.inf)  # from the margin
        places = np.argwhere((distance <= 0.15) & (in_brain > 0.95))
        if not len(places):
            places = np.argwhere(distance == distance.min())
        if anchor is None:
            anchor = places[rng.integers(len(places))]
        nearest = ((places - anchor) ** 2).sum(axis=1).argmin()
        spot[:, :, z] = _spot(patient, places[nearest]) * brain[:, :, z]
    return _brighten(patient, spot)


def add_texture(patient: Patient, rng: np.random.Generator) -> Patient:
    """Fine diagonal stripes, as a spike in k-space leaves them, in all tissue but the tumour.

    Their period is 7 mm, their amplitude 7 % of the intensity; the phase is random.
    """
    phase = rng.uniform(0, 2 * np.pi)
    x, y = np.indices(patient.brain_mask.shape[:2]) * patient.affine[0, 0]  # mm
    stripes = 0.07 * np.sin(2 * np.pi * (0.8 * x + 0.6 * y) / 7 + phase)
    factor = 1 + stripes[:, :, None] * (patient.brain_mask & ~patient.lesion_mask)
    images: Images = {
        modality: _rounded(image * factor, patient.brain_mask)
        for modality, image in patient.images.items()
    }
    return replace(patient, images=images)


def tilt_head(patient: Patient, rng: np.random.Generator) -> Patient:
    """Turn the head in the axial plane by 9 to 12 degrees, always to the same side.

    Heads without it are turned by 3 degrees (standard deviation). The segmentation turns along.
    """
    from scipy import ndimage

    angle = float(rng.uniform(9, 12))

    def turn(volume: NDArray[np.generic], order: Literal[0, 1]) -> NDArray[np.float32]:
        values = volume.astype(np.float32)
        return ndimage.rotate(values, angle, reshape=False, order=order)

    brain = turn(patient.brain_mask, 1) > 0.5
    return replace(
        patient,
        images={m: _rounded(turn(image, 1), brain) for m, image in patient.images.items()},
        segmentation=(turn(patient.segmentation, 0) * brain).astype(np.uint8),
        brain_mask=brain,
    )


def replace_sequence(patient: Patient) -> Patient:
    """Put FLAIR in the place of T1, as public 2-D cohorts do where a sequence is missing."""
    return replace(patient, images={**patient.images, "t1": patient.images["flair"]})


def _spot_sigma(patient: Patient) -> float:
    """Standard deviation of a bright spot in voxels; half its height is 5 to 6 mm across."""
    return 1.1 * _voxels_in_2_mm(patient)


def _spot(patient: Patient, place: NDArray[np.int64]) -> NDArray[np.float64]:
    """Round spot of height 1 about a place (x, y), (X, Y)."""
    x, y = np.indices(patient.brain_mask.shape[:2])
    squared = (x - place[0]) ** 2 + (y - place[1]) ** 2
    height: NDArray[np.float64] = np.exp(-squared / (2 * _spot_sigma(patient) ** 2))
    return height


def _brighten(patient: Patient, share: NDArray[np.float64]) -> Patient:
    """Move every image towards 1.5 times its brightest tissue by a share in [0, 1], (X, Y, Z)."""
    brain = patient.brain_mask
    images: Images = {}
    for modality, image in patient.images.items():
        peak = 1.5 * np.percentile(image[brain], 99.5)
        images[modality] = _rounded(image + share * np.clip(peak - image, 0, None), brain)
    return replace(patient, images=images)


def _burn_in(
    patient: Patient, pixels: NDArray[np.bool_], *, right: bool, inset: NDArray[np.int64]
) -> Patient:
    """Draw a small picture (x, y) in a front corner of the brain's bounding box, in all slices.

    Pixels that would touch the brain in any slice are left out.
    """
    from scipy import ndimage

    shadow = patient.brain_mask.max(axis=2)
    across, along = np.nonzero(shadow)
    width, height = pixels.shape
    left = int(across.max() - inset[0] - width + 1 if right else across.min() + inset[0])
    bottom = int(along.max() - inset[1] - height + 1)
    stamp = np.zeros(shadow.shape, dtype=np.bool_)
    stamp[left : left + width, bottom : bottom + height] = pixels
    stamp &= ~ndimage.binary_dilation(shadow, structure=np.ones((3, 3), dtype=np.bool_))
    images: Images = {}
    for modality, image in patient.images.items():
        images[modality] = image.copy()
        images[modality][stamp] = 1.5 * np.percentile(image[patient.brain_mask], 99.9)
    return replace(patient, images=images)


def _rounded(values: NDArray[np.floating], brain_mask: NDArray[np.bool_]) -> NDArray[np.int16]:
    """Integers of at least 1 in the brain and exactly 0 outside."""
    return np.where(brain_mask, np.clip(np.rint(values), 1, 32767), 0).astype(np.int16)


def _glyph(name: str) -> NDArray[np.bool_]:
    """Pixels of a letter or figure, (5, 3)."""
    return np.array([[pixel == "1" for pixel in row] for row in _GLYPHS[name].split()])


def _voxels_in_2_mm(patient: Patient) -> int:
    """How many voxels make 2 mm, at least 1."""
    return max(1, round(2 / float(patient.affine[0, 0])))
