"""Healthy heads: the MNI152 tissue maps, deformed anew for every patient."""

from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from glioma_xai.data.fields import Axes, Float, SmoothField, draw_field, push

TISSUES = ("grey", "white", "csf")
_COARSE = 3  # mm, grid on which distances are measured
_VENTRICLES = (  # centre and half axes of the left and the right lateral ventricle, mm
    ((-14.0, -12.0, 16.0), (16.0, 44.0, 22.0)),
    ((14.0, -12.0, 16.0), (16.0, 44.0, 22.0)),
)


@dataclass(frozen=True)
class Template:
    """Tissue maps of the average head on a 1 mm grid.

    Args:
        maps: (X, Y, Z, 4), uint8 with 255 for 1: grey matter, white matter, cerebrospinal fluid,
            nearness to the ventricles.
        origin_mm: (3,), centre of the first voxel.
        tumour_sites: (S, 3), mm, where a tumour may start: deep white matter of the cerebrum.
    """

    maps: NDArray[np.uint8]
    origin_mm: Float
    tumour_sites: Float


@dataclass(frozen=True)
class HeadShape:
    """One patient's deformation: a map from the patient's space to the template's, both in mm.

    Args:
        matrix: (3, 3) rotation and scale.
        offset: (3,) translation, mm.
        coarse: Displacement with long wavelength, three functions.
        fine: Displacement that changes the gyri, three functions.
        ventricle_share: Growth of the lateral ventricles, see ``fields.push``.
    """

    matrix: Float
    offset: Float
    coarse: SmoothField
    fine: SmoothField
    ventricle_share: float

    def to_template(self, points: Float, displacement: Float) -> Float:
        """Map points of the patient's space into the template's.

        Args:
            points: (N, 3), mm.
            displacement: (N, 3), mm, the two displacement fields at those points.

        Returns:
            (N, 3), mm.
        """
        mapped = points @ self.matrix.T + self.offset + displacement
        for centre, radii in _VENTRICLES:
            mapped = push(mapped, centre=centre, radii=radii, share=self.ventricle_share)
        return mapped

    def displacement(self, axes: Axes) -> Float:
        """Sum of the two displacement fields on a grid, (3, X, Y, Z), mm."""
        return 3.0 * self.coarse.on_grid(axes) + 1.3 * self.fine.on_grid(axes)

    def to_patient(self, point: Float) -> Float:
        """Invert the map for one template point by fixed-point iteration, (3,), mm."""
        estimate = point.copy()
        for _ in range(12):
            axes: Axes = (estimate[:1], estimate[1:2], estimate[2:])
            shift = self.displacement(axes).reshape(1, 3)
            estimate = estimate + (point - self.to_template(estimate[None], shift)[0])
        return estimate


@lru_cache(maxsize=1)
def load_template() -> Template:
    """Read nilearn's MNI152 templates and derive what the phantom needs; cached in the process.

    Returns:
        Template with sharpened tissue maps: the average of 152 heads is blurred, one head is not.

    Reference:
        Fonov et al. (2011), NeuroImage 54(1):313-327, the ICBM 2009a nonlinear symmetric atlas.
    """
    from nilearn import datasets  # costs a second, needed only where a cohort is written
    from scipy import ndimage

    images = [
        load(resolution=1)
        for load in (
            datasets.load_mni152_template,
            datasets.load_mni152_gm_template,
            datasets.load_mni152_wm_template,
        )
    ]
    occupied = np.nonzero(np.asarray(images[0].dataobj))
    box = tuple(slice(max(0, index.min() - 1), index.max() + 2) for index in occupied)
    head, grey, white = (np.asarray(image.dataobj, dtype=np.float32)[box] for image in images)
    origin = np.array([side.start for side in box]) + images[0].affine[:3, 3]
    brain = ndimage.binary_fill_holes(head > 0.2)
    fluid = np.clip(1 - grey - white, 0, 1) + np.clip(0.62 - head, 0, None) * 2
    tissue = np.stack([grey, white, fluid], axis=-1) ** 2
    tissue /= tissue.sum(axis=-1, keepdims=True) + 1e-6
    tissue *= brain[..., None]
    ventricles = _find_ventricles(tissue[..., 2], brain)
    near = np.clip(2.2 * ndimage.gaussian_filter(ventricles.astype(np.float32), 3.5), 0, 1)
    maps = np.concatenate([tissue, (near * brain)[..., None]], axis=-1)
    maps = (255 * maps + 0.5).astype(np.uint8)
    origin = origin.astype(np.float32)
    return Template(maps, origin, _tumour_sites(tissue[..., 1], origin))


def draw_head(rng: np.random.Generator) -> HeadShape:
    """Draw one patient's head: pose, size, gyri and width of the ventricles."""
    angles = rng.normal(0, np.deg2rad(3), size=3)
    scale = np.diag(1 + rng.normal(0, 0.035, size=3))
    matrix = (_rotation(angles) @ scale).astype(np.float32)
    offset = rng.normal(0, 1.5, size=3).astype(np.float32)
    return HeadShape(
        matrix=matrix,
        offset=offset,
        coarse=draw_field(rng, spacing_mm=42, functions=3),
        fine=draw_field(rng, spacing_mm=13, functions=3),
        ventricle_share=float(rng.uniform(-0.1, 0.28)),
    )


def draw_location(rng: np.random.Generator, head: HeadShape) -> Float:
    """Draw where a tumour starts: deep white matter, in the patient's space, (3,), mm."""
    sites = load_template().tumour_sites
    return head.to_patient(sites[rng.integers(len(sites))])


def candidate_voxels(axes: Axes) -> NDArray[np.bool_]:
    """Voxels of a grid that can belong to anybody's brain, (X, Y, Z)."""
    margin = _wide_brain()
    index = [
        np.clip(np.round((axis - start) / _COARSE).astype(int), 0, size - 1)
        for axis, start, size in zip(axes, load_template().origin_mm, margin.shape, strict=True)
    ]
    return margin[np.ix_(*index)]


def sample_tissue(points: Float) -> Float:
    """Trilinear interpolation of the template's maps.

    Args:
        points: (N, 3), mm, in the template's space; outside of it the maps are 0.

    Returns:
        (N, 4), float32 in [0, 1]: grey, white, cerebrospinal fluid, nearness to the ventricles.
    """
    template = load_template()
    maps = template.maps
    size = np.array(maps.shape[:3])
    position = np.clip(points - template.origin_mm, 0, size - 1.001).astype(np.float32)
    corner = position.astype(np.int32)
    weight = position - corner
    flat = maps.reshape(-1, maps.shape[3])
    strides = (int(size[1] * size[2]), int(size[2]), 1)
    first = corner @ np.array(strides, dtype=np.int32)
    result = np.zeros((len(points), maps.shape[3]), dtype=np.float32)
    for x in (0, 1):
        for y in (0, 1):
            plane = (weight[:, 0] if x else 1 - weight[:, 0]) * (
                weight[:, 1] if y else 1 - weight[:, 1]
            )
            for z in (0, 1):
                share = plane * (weight[:, 2] if z else 1 - weight[:, 2])
                result += flat[first + x * strides[0] + y * strides[1] + z] * share[:, None]
    result /= 255
    return result


@lru_cache(maxsize=1)
def _wide_brain() -> NDArray[np.bool_]:
    """The template's brain with a margin for pose, size and deformation."""
    from scipy import ndimage

    fluid_to_white = load_template().maps[::_COARSE, ::_COARSE, ::_COARSE, :3]
    outside = fluid_to_white.max(axis=-1) == 0
    return np.asarray(ndimage.distance_transform_edt(outside) < 14 / _COARSE)


def _find_ventricles(fluid: Float, brain: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """Fluid spaces far from the surface, the lateral ventricles among them."""
    from scipy import ndimage

    coarse = brain[::_COARSE, ::_COARSE, ::_COARSE]
    deep = ndimage.distance_transform_edt(coarse) > 22 / _COARSE
    deep = deep.repeat(_COARSE, 0).repeat(_COARSE, 1).repeat(_COARSE, 2)
    return (fluid > 0.6) & deep[tuple(slice(n) for n in brain.shape)]


def _tumour_sites(white: Float, origin_mm: Float) -> Float:
    """White matter of the cerebrum, away from midline, base and very top, (S, 3), mm."""
    x, y, z = np.meshgrid(
        *(np.arange(n) + start for n, start in zip(white.shape, origin_mm, strict=True)),
        indexing="ij",
        sparse=True,
    )
    deep = (white > 0.9) & (np.abs(x) > 14) & (z > -8) & (z < 46) & ((z > 4) | (y > -30))
    return np.argwhere(deep).astype(np.float32) + origin_mm


def _rotation(angles: NDArray[np.float64]) -> NDArray[np.float64]:
    """Rotation about x, then y, then z; angles in rad."""
    matrix = np.eye(3)
    for axis, angle in enumerate(angles):
        first, second = [i for i in range(3) if i != axis]
        turn = np.eye(3)
        turn[first, first] = turn[second, second] = np.cos(angle)
        turn[first, second], turn[second, first] = -np.sin(angle), np.sin(angle)
        matrix = turn @ matrix
    return matrix
