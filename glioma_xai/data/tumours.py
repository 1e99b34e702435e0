"""Gliomas: where they lie, how malignant they look, and which voxels they take.

The class acts through one hidden number only, the malignancy: normal around +1 (HGG) or -1 (LGG)
with standard deviation ``difficulty``. So no classifier, however good, can be right more often than
Phi(1 / difficulty). Position, extent and mass effect are drawn without looking at the class.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from glioma_xai.data.fields import Axes, Float, SmoothField, draw_field, push, soft_step

NECROSIS, OEDEMA, ENHANCING = 1, 2, 4  # the labels of BraTS up to 2021


@dataclass(frozen=True)
class Growth:
    """What a tumour of either class can have: place, extent and shape.

    Args:
        centre: (3,), mm, in the patient's space.
        axes: (3, 3), turns and stretches space, so that the tumour is no ball.
        extent_mm: Mean distance that the tumour with its oedema would reach in white matter.
        mass_effect: Greatest displacement of the brain around it, share of the extent.
        outline: Four random functions that make borders irregular, coarse to the eye.
        grain: Two random functions with shorter wavelength.
    """

    centre: Float
    axes: Float
    extent_mm: float
    mass_effect: float
    outline: SmoothField
    grain: SmoothField

    def undo_mass_effect(self, points: Float) -> Float:
        """Where the tissue at ``points`` lay before the tumour pushed it, (N, 3), mm."""
        radius = 0.75 * self.extent_mm
        return push(points, centre=self.centre.tolist(), radii=[radius] * 3, share=self.mass_effect)


@dataclass(frozen=True)
class Character:
    """How the grade shows; the class acts on each number through ``malignancy`` only.

    Args:
        malignancy: The hidden number, about +1 for HGG and -1 for LGG.
        enhancement: Uptake of contrast agent in [0, 1]; below .12 there is none to be seen.
        necrosis: Radius of the dead centre, share of the core's.
        core: Radius of the core, share of the whole extent; the rest is oedema.
        infiltration: How much the oedema prefers white matter; 0 is a round, sharp border.
        heterogeneity: Standard deviation of the intensity in the core, share.
    """

    malignancy: float
    enhancement: float
    necrosis: float
    core: float
    infiltration: float
    heterogeneity: float


@dataclass(frozen=True)
class Lesion:
    """Tumour in the N voxels of a head: shares of tissue and the segmentation.

    Args:
        necrosis: (N,), float32 in [0, 1].
        solid: (N,), core that does not enhance.
        enhancing: (N,), core that does.
        oedema: (N,).
        texture: (N,), relative change of the intensity inside the core, mean about 0.
        labels: (N,), uint8, 0 1 2 4.
    """

    necrosis: Float
    solid: Float
    enhancing: Float
    oedema: Float
    texture: Float
    labels: NDArray[np.uint8]


def draw_growth(rng: np.random.Generator, centre: Float) -> Growth:
    """Draw place, extent and shape, without knowledge of the class."""
    turn, _ = np.linalg.qr(rng.standard_normal((3, 3)))
    stretch = np.exp(rng.normal(0, 0.16, size=3))
    stretch /= stretch.prod() ** (1 / 3)
    return Growth(
        centre=centre,
        axes=(turn * stretch).astype(np.float32),
        extent_mm=float(np.clip(rng.normal(29, 5), 19, 40)),
        mass_effect=float(rng.uniform(0.08, 0.3)),
        outline=draw_field(rng, spacing_mm=10, functions=4),
        grain=draw_field(rng, spacing_mm=4.5, functions=2),
    )


def draw_character(rng: np.random.Generator, *, high_grade: bool, difficulty: float) -> Character:
    """Draw what the tumour looks like.

    Args:
        rng: Source of randomness.
        high_grade: True for HGG.
        difficulty: Standard deviation of the malignancy around +1 or -1.

    Returns:
        Character; given the malignancy, the class has no further influence.
    """
    malignancy = (1 if high_grade else -1) + difficulty * rng.standard_normal()
    signs = _sigmoid(2.6 * (malignancy + 0.3 * rng.standard_normal(5)))
    return Character(
        malignancy=float(malignancy),
        enhancement=float(signs[0]),
        necrosis=float(max(0.0, 0.95 * signs[1] * rng.uniform(0.75, 1.0) - 0.2)),
        core=float(0.94 - 0.4 * signs[2]),
        infiltration=float(0.15 + 0.85 * signs[3]),
        heterogeneity=float(0.05 + 0.12 * signs[4]),
    )


def grow(
    growth: Growth,
    character: Character,
    *,
    points: Float,
    tissue: Float,
    barrier: Float,
    inside: NDArray[np.bool_],
    axes: Axes,
) -> Lesion:
    """Fill voxels with tumour.

    The oedema follows white matter, since grey matter and fluid resist it; the core replaces what
    was there. Noise on the level sets makes borders irregular and the rim uneven.

    Args:
        growth: Place, extent and shape.
        character: Appearance.
        points: (N, 3), mm, in the patient's space.
        tissue: (N, 4) in [0, 1], see ``anatomy.sample_tissue``.
        barrier: (N,), 1 where the falx keeps the tumour out, 0 where nothing does.
        inside: (X, Y, Z), which voxels of the grid the N points are.
        axes: The grid.

    Returns:
        Lesion; all zero where the tumour does not reach.
    """
    reach = np.linalg.norm((points - growth.centre) @ growth.axes, axis=1) / growth.extent_mm
    near = reach < 1.6
    local = inside.copy()
    local[inside] = near
    noise = _on_voxels(growth.outline, axes, local)
    grain = _on_voxels(growth.grain, axes, local)
    parts = _fill(character, reach[near], tissue[near], barrier[near], noise, grain)
    full = np.zeros((5, len(points)), dtype=np.float32)
    full[:, near] = parts
    dead, solid, enhancing, oedema, texture = full
    return Lesion(dead, solid, enhancing, oedema, texture, _label(full[:4]))


def _fill(
    character: Character, reach: Float, tissue: Float, barrier: Float, noise: Float, grain: Float
) -> Float:
    """Shares of necrosis, solid, enhancing and oedema, and the texture; (5, M)."""
    white, fluid = tissue[:, 1], tissue[:, 2]
    fuzzy = character.infiltration
    resistance = fuzzy * (1 - white) + 0.5 * fluid
    border = reach / (1 + 0.35 * fuzzy) + (0.05 + 0.05 * fuzzy) * noise[0] + 0.07 * fuzzy * grain[0]
    border += 0.9 * resistance + barrier
    whole = soft_step(1 - border, 0.02 + 0.05 * fuzzy)
    whole *= 1 - np.clip(1.5 * fluid - 0.4, 0, 1)
    depth = reach / character.core + 0.13 * noise[1] + 0.04 * grain[0] + 0.45 * fluid + barrier
    core = soft_step(1 - depth, 0.04)
    uneven = 0.16 * noise[2] + 0.08 * grain[1]
    dead = core * soft_step(character.necrosis - depth - uneven, 0.05) * (character.necrosis > 0)
    coverage = soft_step(4.2 * character.enhancement - 1.5 + noise[3], 0.25)
    enhancing = (core - dead) * coverage * (character.enhancement > 0.12)
    solid = core - dead - enhancing
    oedema = np.clip(whole - core, 0, 1)
    texture = character.heterogeneity * (0.7 * noise[2] + 0.7 * grain[1])
    return np.stack([dead, solid, enhancing, oedema, texture])


def _label(shares: Float) -> NDArray[np.uint8]:
    """BraTS labels from the shares of necrosis, solid, enhancing and oedema, (N,)."""
    core = shares[:3].sum(axis=0)
    labels = np.where(shares[2] > 0.5 * core, ENHANCING, NECROSIS)
    labels = np.where(core > 0.5, labels, OEDEMA)
    return np.where(shares.sum(axis=0) > 0.5, labels, 0).astype(np.uint8)


def _on_voxels(field: SmoothField, axes: Axes, inside: NDArray[np.bool_]) -> Float:
    """Values of a field at the chosen voxels, (K, M)."""
    return field.on_grid(axes)[:, inside]


def _sigmoid(value: NDArray[np.float64]) -> NDArray[np.float64]:
    """Logistic function."""
    return 1 / (1 + np.exp(-value))
