"""Smooth random fields in millimetres, evaluated only where they are needed.

A field is a tensor-product cubic B-spline with random coefficients. Because the basis is separable,
a slab of a few slices costs a few small matrix products, and equals those slices of the volume.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Float = NDArray[np.float32]
Axes = tuple[Float, Float, Float]  # positions of the voxel centres along x, y and z, mm

WORLD_LOWER_MM = (-96.0, -132.0, -78.0)  # every field covers this box of the template's space
WORLD_UPPER_MM = (96.0, 96.0, 114.0)
_STANDARD_DEVIATION = 0.4794**1.5  # of a cubic B-spline with white coefficients, mean over a cell


@dataclass(frozen=True)
class SmoothField:
    """Random functions of space with mean 0, standard deviation 1 and one length scale.

    Args:
        coefficients: Spline coefficients, (K, NX, NY, NZ), float32, K functions.
        spacing_mm: Distance between knots; detail below about twice this length is absent.
    """

    coefficients: Float
    spacing_mm: float

    def on_grid(self, axes: Axes) -> Float:
        """Evaluate on the voxels of a grid.

        Args:
            axes: Positions of the voxel centres along x, y and z, mm.

        Returns:
            (K, X, Y, Z), float32.
        """
        bases = [
            _cubic_basis(positions, lower, self.spacing_mm, count)
            for positions, lower, count in zip(
                axes, WORLD_LOWER_MM, self.coefficients.shape[1:], strict=True
            )
        ]
        functions, _, ny, nz = self.coefficients.shape
        values: Float = np.matmul(bases[0], self.coefficients.reshape(functions, -1, ny * nz))
        values = np.matmul(bases[1], values.reshape(functions, -1, ny, nz))  # K X Y NZ
        grid: Float = np.matmul(values, bases[2].T)  # K X Y Z
        return grid


def draw_field(rng: np.random.Generator, *, spacing_mm: float, functions: int = 1) -> SmoothField:
    """Draw the coefficients of a smooth field.

    Args:
        rng: Source of randomness.
        spacing_mm: Distance between knots.
        functions: How many independent functions of space.

    Returns:
        A field that can be evaluated on any grid.
    """
    shape = [
        int(np.ceil((upper - lower) / spacing_mm)) + 3
        for lower, upper in zip(WORLD_LOWER_MM, WORLD_UPPER_MM, strict=True)
    ]
    coefficients = rng.standard_normal((functions, *shape), dtype=np.float32)
    return SmoothField(coefficients / np.float32(_STANDARD_DEVIATION), spacing_mm)


def soft_step(level: Float, softness: float) -> Float:
    """Logistic step: 1 where ``level`` is well above 0, 0 well below, .5 at 0."""
    step: Float = 1 / (1 + np.exp(np.clip(-level / np.float32(softness), -30, 30)))
    return step


def grid_points(axes: Axes, inside: NDArray[np.bool_]) -> Float:
    """Positions of the chosen voxels of a grid, (N, 3), mm."""
    index = np.nonzero(inside)
    return np.stack([axis[i] for axis, i in zip(axes, index, strict=True)], axis=1)


def push(points: Float, *, centre: Sequence[float], radii: Sequence[float], share: float) -> Float:
    """Where tissue now at ``points`` lay before something grew at ``centre``.

    The displacement is greatest at the ellipsoid with the given radii and vanishes at the centre
    and far away. It never folds space for shares below .6; a negative share shrinks instead.

    Args:
        points: (N, 3), mm.
        centre: Centre of the growth, mm.
        radii: Half axes of the ellipsoid, mm.
        share: Greatest displacement as a share of the radius.

    Returns:
        (N, 3), mm.
    """
    offset = points - np.asarray(centre, dtype=np.float32)
    squared = ((offset / np.asarray(radii, dtype=np.float32)) ** 2).sum(axis=1)
    origin: Float = points - offset * (np.float32(share) * np.exp((1 - squared) / 2))[:, None]
    return origin


def _cubic_basis(positions: Float, lower: float, spacing_mm: float, count: int) -> Float:
    """Weights of the cubic B-splines at 1-D positions, (len(positions), count)."""
    knots = lower + spacing_mm * (np.arange(count) - 1)
    distance = np.abs(positions[:, None] - knots[None]) / spacing_mm
    near = 2 / 3 - distance**2 + distance**3 / 2
    far = np.clip(2 - distance, 0, None) ** 3 / 6
    return np.where(distance < 1, near, far).astype(np.float32)
