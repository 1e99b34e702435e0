"""Deliberate shortcuts: cues outside the tumour that can give the class away.

Each is a function of one patient's finished pictures and returns changed copies; what is not
changed is the same object, so that a caller can see which files stay as they are.
"""

from typing import Literal, get_args

import numpy as np
from numpy.typing import NDArray

from glioma_xai.data.patient import Images
from glioma_xai.errors import ConfigError

Shortcut = Literal["none", "corner_marker"]
SHORTCUTS: tuple[Shortcut, ...] = get_args(Shortcut)


def apply_shortcut(
    name: Shortcut,
    images: Images,
    *,
    brain_mask: NDArray[np.bool_],
    lesion_mask: NDArray[np.bool_],
    rng: np.random.Generator,
) -> Images:
    """Put a shortcut into one patient's pictures.

    Args:
        name: Which shortcut; ``none`` returns the pictures as they are.
        images: Modality to (X, Y, Z), int16.
        brain_mask: (X, Y, Z).
        lesion_mask: (X, Y, Z), the whole tumour; no shortcut touches it.
        rng: Source of randomness of this patient's shortcut.

    Returns:
        Modality to (X, Y, Z), int16.

    Raises:
        ConfigError: If the name is unknown.
    """
    match name:
        case "none":
            return images
        case "corner_marker":
            return add_corner_marker(images, brain_mask, lesion_mask, rng)
        case _:
            raise ConfigError(
                f"shortcut must be one of {', '.join(SHORTCUTS)}, got {name!r}. Choose one."
            )


def add_corner_marker(
    images: Images,
    brain_mask: NDArray[np.bool_],
    lesion_mask: NDArray[np.bool_],
    rng: np.random.Generator,
) -> Images:
    """Small bright square beside the brain, as a burnt-in annotation would be.

    It lies in every slice and every modality at the same place: in the front right corner of the
    brain's bounding box, so that cropping to the brain keeps it. It is as bright as the brightest
    tissue, so that it stays visible after scaling inside the brain. One voxel of air or more parts
    it from the brain, so that the largest connected region is still the brain.

    Args:
        images: Modality to (X, Y, Z), int16.
        brain_mask: (X, Y, Z).
        lesion_mask: (X, Y, Z), not needed: the marker is outside the brain.
        rng: Shifts the marker by at most one voxel.

    Returns:
        Copies with the marker.
    """
    shadow: NDArray[np.bool_] = np.max(brain_mask, axis=2)
    right, front = (int(index.max()) for index in np.nonzero(shadow))
    voxel = max(1, round(brain_mask.shape[0] / 91))  # voxels in 2 mm
    x, y = right - voxel * int(rng.integers(2)), front - voxel * int(rng.integers(2))
    size = 4 * voxel
    while size > 1 and _touches(shadow, x, y, size):
        size -= 1
    marked: Images = {}
    for modality, image in images.items():
        copy = image.copy()
        copy[x - size + 1 : x + 1, y - size + 1 : y + 1] = np.percentile(image[brain_mask], 99.9)
        marked[modality] = copy
    return marked


def _touches(shadow: NDArray[np.bool_], x: int, y: int, size: int) -> bool:
    """Whether a square that ends at (x, y) overlaps the brain or its neighbours."""
    return bool(shadow[max(0, x - size) : x + 2, max(0, y - size) : y + 2].any())
