"""Background, brain and the scale of intensities."""

from typing import Literal

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

Normalisation = Literal["zscore", "percentile", "none"]
NORMALISED_RANGE: dict[str, tuple[float, float]] = {"zscore": (-4.0, 6.0), "percentile": (0.0, 1.0)}
NEAR_BACKGROUND = 0.03
"""Share of the intensity range within which a voxel counts as near the background."""
CONSTANT_SHARE = 0.9
"""A background is constant if at least this share of the voxels near it has exactly its value."""


def background_value(channel: NDArray[np.float32]) -> float:
    """Return the intensity of air: the commonest value on the faces of the first two axes.

    It need not be 0: some cohorts are stored with zero mean, so air is a negative constant.
    """
    border = np.concatenate(
        [channel[0].ravel(), channel[-1].ravel(), channel[:, 0].ravel(), channel[:, -1].ravel()]
    )
    values, counts = np.unique(border, return_counts=True)
    return float(values[counts.argmax()])


def brain_and_air(image: NDArray[np.float32]) -> tuple[NDArray[np.bool_], NDArray[np.bool_]]:
    """Return the brain (X, Y, Z), and the air around it for each modality (C, X, Y, Z).

    The brain is the largest connected set of voxels that differ from the background in any
    modality, holes filled. Where the background is not constant (images that still show the
    skull), the modalities are averaged and cut at half of Otsu's threshold, so that the result is
    the head. Air is what lies outside the brain at the background's value, or below that cut;
    a marker burnt into the corner is neither.
    """
    backgrounds = [background_value(channel) for channel in image]
    constant = [_is_constant(c, b) for c, b in zip(image, backgrounds, strict=True)]
    if all(constant):
        differs = np.stack([c != b for c, b in zip(image, backgrounds, strict=True)])
        brain = _largest_filled(np.logical_or.reduce(differs, axis=0))
        return brain, ~differs & ~brain
    scaled = np.stack([_above(c, b) for c, b in zip(image, backgrounds, strict=True)])
    mean = scaled.mean(axis=0)
    brain = _largest_filled(mean > 0.5 * otsu_threshold(mean))
    cuts = np.array(
        [0 if flat else 0.5 * otsu_threshold(s) for flat, s in zip(constant, scaled, strict=True)]
    )
    return brain, (scaled <= cuts[:, None, None, None]) & ~brain


def _is_constant(channel: NDArray[np.float32], background: float) -> bool:
    reach = NEAR_BACKGROUND * (float(np.percentile(channel[:, :, ::4], 99.5)) - background)
    near = np.abs(channel - background) <= abs(reach)
    return float((channel == background).sum()) >= CONSTANT_SHARE * float(near.sum())


def _above(channel: NDArray[np.float32], background: float) -> NDArray[np.float32]:
    """Scale to 0 at the background and 1 at the 99.5th percentile, clipped."""
    high = max(float(np.percentile(channel, 99.5)), background + 1e-6)
    scaled: NDArray[np.float32] = (channel - background) / (high - background)
    return scaled.clip(0, 1)


def otsu_threshold(values: NDArray[np.float32], bins: int = 128) -> float:
    """Return the threshold in (0, 1) that maximises the variance between the two sides.

    Reference:
        Otsu (1979), IEEE Transactions on Systems, Man, and Cybernetics 9(1):62-66.
    """
    counts, edges = np.histogram(values, bins=bins, range=(0.0, 1.0))
    centres = (edges[:-1] + edges[1:]) / 2
    below = np.cumsum(counts)[:-1].astype(np.float64)
    above = counts.sum() - below
    sums = np.cumsum(counts * centres)
    with np.errstate(invalid="ignore", divide="ignore"):
        between = below * above * (sums[:-1] / below - (sums[-1] - sums[:-1]) / above) ** 2
    return float(edges[1:-1][np.nan_to_num(between).argmax()])


def _largest_filled(foreground: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """Return the largest connected component with its holes filled, slice by slice."""
    components, count = ndimage.label(foreground)
    if count > 1:
        sizes = np.bincount(components.ravel())
        sizes[0] = 0
        foreground = components == sizes.argmax()
    in_plane = ndimage.generate_binary_structure(foreground.ndim, 1)
    in_plane[..., 0] = in_plane[..., 2] = False  # a slab is open above and below
    outside, _ = ndimage.label(~foreground, structure=in_plane)
    open_regions = np.unique(
        np.concatenate([outside[[0, -1]].ravel(), outside[:, [0, -1]].ravel()])
    )
    is_open = np.zeros(int(outside.max()) + 1, dtype=bool)
    is_open[open_regions] = True
    is_open[0] = False  # 0 is the foreground itself
    return ~is_open[outside]


def normalisation_map(
    image: NDArray[np.float32], brain: NDArray[np.bool_], method: Normalisation
) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Return shift and scale (C,) of the affine map (x - shift) / scale, from the brain alone.

    ``zscore``: mean and standard deviation. ``percentile``: the 0.5th percentile goes to 0 and
    the 99.5th to 1. ``none``: shift 0 and scale 1. A constant brain has scale 1.
    """
    if method == "none":
        return np.zeros(len(image), np.float32), np.ones(len(image), np.float32)
    inside = image[:, brain]  # C voxels
    if method == "zscore":
        shift = inside.mean(axis=1, dtype=np.float64)
        scale = inside.std(axis=1, dtype=np.float64)
    else:
        shift, high = np.percentile(inside, (0.5, 99.5), axis=1)
        scale = high - shift
    return shift.astype(np.float32), np.where(scale > 0, scale, 1).astype(np.float32)
