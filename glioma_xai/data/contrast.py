"""From tissue to MRI: intensities of four sequences, scanner, bias field, noise."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from glioma_xai.data.fields import Axes, Float, SmoothField, draw_field
from glioma_xai.data.tumours import Lesion
from glioma_xai.records import MODALITIES, Modality

# Intensity with white matter of T1 as 1: grey, white, fluid, necrosis, solid, enhancing, oedema.
_INTENSITIES: dict[Modality, tuple[float, ...]] = {
    "t1": (0.72, 1.00, 0.30, 0.42, 0.60, 0.70, 0.68),
    "t1ce": (0.74, 1.00, 0.30, 0.40, 0.62, 1.75, 0.68),
    "t2": (0.80, 0.58, 1.55, 1.35, 1.25, 1.05, 1.18),
    "flair": (0.83, 0.68, 0.22, 0.72, 1.35, 1.15, 1.32),
}
_VESSEL = {"t1": 0.0, "t1ce": 1.3, "t2": -0.35, "flair": -0.05}
_PERIVENTRICULAR = {"t1": -0.12, "t1ce": -0.12, "t2": 0.25, "flair": 0.45}  # ageing white matter


@dataclass(frozen=True)
class Scanner:
    """What all pictures of one site share, four numbers each in the order of ``MODALITIES``.

    Args:
        gain: Stored units for white matter on T1.
        tissue: (4, 7), factor of each tissue's intensity.
        noise: Standard deviation of the noise, share of white matter on T1.
    """

    gain: Float
    tissue: Float
    noise: Float


@dataclass(frozen=True)
class Exposure:
    """What differs from patient to patient, whatever the class.

    Args:
        tissue: (4, 7), factor of each tissue's intensity.
        gain: (4,), factor of the scanner's gain.
        bias: Four smooth functions, the logarithm of the coils' sensitivity.
        bias_strength: Standard deviation of that logarithm.
        vessels: Two functions; vessels run where both are 0.
        mottle: One function, unevenness of healthy tissue.
        ageing: Brightness of white matter beside the ventricles, share in [0, 1].
        shift: (4, 2), misregistration in the plane, voxels.
    """

    tissue: Float
    gain: Float
    bias: SmoothField
    bias_strength: float
    vessels: SmoothField
    mottle: SmoothField
    ageing: float
    shift: Float


def draw_scanner(rng: np.random.Generator) -> Scanner:
    """Draw a site's scanner."""
    return Scanner(
        gain=np.exp(rng.uniform(np.log(250), np.log(1500), size=4)).astype(np.float32),
        tissue=_factors(rng, 0.03),
        noise=rng.uniform(0.015, 0.035, size=4).astype(np.float32),
    )


def draw_exposure(rng: np.random.Generator) -> Exposure:
    """Draw one patient's session."""
    return Exposure(
        tissue=_factors(rng, 0.03),
        gain=np.exp(rng.normal(0, 0.15, size=4)).astype(np.float32),
        bias=draw_field(rng, spacing_mm=75, functions=4),
        bias_strength=float(rng.uniform(0.02, 0.07)),
        vessels=draw_field(rng, spacing_mm=8, functions=2),
        mottle=draw_field(rng, spacing_mm=6),
        ageing=float(rng.beta(1.2, 2.5)),
        shift=rng.uniform(-0.3, 0.3, size=(4, 2)).astype(np.float32),
    )


def render(
    scanner: Scanner,
    exposure: Exposure,
    *,
    tissue: Float,
    lesion: Lesion,
    uptake: float,
    inside: NDArray[np.bool_],
    axes: Axes,
) -> dict[Modality, Float]:
    """Noise-free pictures of the four sequences.

    Args:
        scanner: The site's scanner.
        exposure: The patient's session.
        tissue: (N, 4), healthy tissue, see ``anatomy.sample_tissue``.
        lesion: Tumour in the same N voxels.
        uptake: Contrast agent taken up by enhancing tumour, in [0, 1].
        inside: (X, Y, Z), which voxels of the grid the N are.
        axes: The grid.

    Returns:
        Modality to (X, Y, Z), float32, stored units; 0 outside ``inside``.
    """
    shares = _shares(tissue, lesion)  # 7 N
    healthy = 1 - shares[3:].sum(axis=0)
    sulci = np.clip(2.5 * tissue[:, 2] + 0.1, 0, 1) * (1 - tissue[:, 3])
    vessel = _vessels(exposure, axes, inside) * sulci * healthy
    ageing = exposure.ageing * tissue[:, 3] * shares[1]
    uneven = 1 + 0.02 * exposure.mottle.on_grid(axes)[0][inside] * healthy
    uneven += lesion.texture * (shares[3] + shares[4] + shares[5] + 0.6 * shares[6])
    bias = np.exp(exposure.bias_strength * exposure.bias.on_grid(axes)[:, inside])
    pictures: dict[Modality, Float] = {}
    for k, modality in enumerate(MODALITIES):
        values = np.array(_INTENSITIES[modality], dtype=np.float32)
        values = values * scanner.tissue[k] * exposure.tissue[k]
        if modality == "t1ce":
            values[5] = values[4] + (values[5] - values[4]) * (0.35 + 0.65 * uptake)
        signal = values @ shares * uneven + _VESSEL[modality] * vessel
        signal += _PERIVENTRICULAR[modality] * ageing
        picture = np.zeros(inside.shape, dtype=np.float32)
        picture[inside] = signal * bias[k] * scanner.gain[k] * exposure.gain[k]
        pictures[modality] = _shift_in_plane(picture, exposure.shift[k])
    return pictures


def add_noise(picture: Float, sigma: float, rng: np.random.Generator) -> Float:
    """Rician noise: the magnitude of a signal with Gaussian noise in both channels.

    Args:
        picture: (...), magnitude without noise.
        sigma: Standard deviation in each channel, in the picture's units.
        rng: Source of randomness.

    Returns:
        Same shape, not negative.
    """
    noise = rng.standard_normal((2, *picture.shape), dtype=np.float32) * np.float32(sigma)
    magnitude: Float = np.hypot(picture + noise[0], noise[1])
    return magnitude


def _shares(tissue: Float, lesion: Lesion) -> Float:
    """Grey, white, fluid, necrosis, solid, enhancing, oedema in each voxel, (7, N)."""
    tumour = np.stack([lesion.necrosis, lesion.solid, lesion.enhancing, lesion.oedema])
    healthy = np.clip(1 - tumour.sum(axis=0), 0, 1)
    return np.concatenate([tissue[:, :3].T * healthy, tumour])


def _vessels(exposure: Exposure, axes: Axes, inside: NDArray[np.bool_]) -> Float:
    """Thin curves: where two smooth functions are 0 at once, (N,) in [0, 1]."""
    first, second = exposure.vessels.on_grid(axes)[:, inside]
    vessels: Float = np.exp(-(first**2 + second**2) / (2 * 0.2**2))
    return vessels


def _shift_in_plane(picture: Float, shift: Float) -> Float:
    """Move a picture by less than a voxel with linear interpolation, as registration does."""
    for axis, amount in enumerate(shift.tolist()):
        neighbour = np.roll(picture, 1 if amount > 0 else -1, axis=axis)
        picture = (1 - abs(amount)) * picture + abs(amount) * neighbour
    return picture


def _factors(rng: np.random.Generator, spread: float) -> Float:
    """Factors around 1 for every sequence and tissue, (4, 7)."""
    return np.exp(rng.normal(0, spread, size=(4, 7))).astype(np.float32)
