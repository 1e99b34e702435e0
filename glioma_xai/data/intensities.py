"""Background, brain and the scale of intensities."""

from dataclasses import dataclass
from typing import Literal, get_args

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

Normalisation = Literal["zscore", "healthy", "percentile", "none"]
NORMALISATIONS: tuple[Normalisation, ...] = get_args(Normalisation)
NORMALISED_RANGE: dict[str, tuple[float, float]] = {
    "zscore": (-4.0, 6.0),
    "healthy": (-4.0, 6.0),
    "percentile": (0.0, 1.0),
}
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


@dataclass(frozen=True)
class Foreground:
    """What an image shows apart from air.

    Args:
        brain: (X, Y, Z), True in the brain (in the head, where the skull is still there).
        air: (C, 2) lowest and highest intensity of air in each modality.
    """

    brain: NDArray[np.bool_]
    air: NDArray[np.float32]

    def is_air(self, part: NDArray[np.float32], channel: int) -> NDArray[np.bool_]:
        """Return True where a modality, or a part of it, has the intensity of air.

        A marker burnt into the corner is neither air nor brain.
        """
        low, high = self.air[channel]
        air: NDArray[np.bool_] = part == low if low == high else (part >= low) & (part <= high)
        return air


def find_foreground(image: NDArray[np.float32]) -> Foreground:
    """Return the brain of an image (C, X, Y, Z) and the intensities of air.

    The brain is the largest connected set of voxels that differ from the background in any
    modality, holes filled. Where the background is not constant (images that still show the
    skull), the modalities are averaged and cut at half of Otsu's threshold, so that the result is
    the head; air is then what lies below such a cut.
    """
    backgrounds = [background_value(channel) for channel in image]
    constant = [_is_constant(c, b) for c, b in zip(image, backgrounds, strict=True)]
    if all(constant):
        differs = image[0] != backgrounds[0]
        for channel, background in zip(image[1:], backgrounds[1:], strict=True):
            differs |= channel != background
        air = np.array([(b, b) for b in backgrounds], dtype=np.float32)
        return Foreground(_largest_filled(differs), air)
    tops = [_high(c, b) for c, b in zip(image, backgrounds, strict=True)]
    scaled = [
        ((c - b) / (t - b)).clip(0, 1) for c, b, t in zip(image, backgrounds, tops, strict=True)
    ]
    mean = np.mean(scaled, axis=0)
    brain = _largest_filled(mean > 0.5 * otsu_threshold(mean))
    air = np.array([(b, b) for b in backgrounds], dtype=np.float32)
    for row, (flat, background, top) in enumerate(zip(constant, backgrounds, tops, strict=True)):
        if not flat:
            cut = 0.5 * otsu_threshold(scaled[row])
            air[row] = -np.inf, background + cut * (top - background)
    return Foreground(brain, air)


def _is_constant(channel: NDArray[np.float32], background: float) -> bool:
    """Return whether the voxels near the background have exactly its value, from a sample."""
    sample = channel[:, :, :: max(channel.shape[2] // 20, 1)]
    reach = NEAR_BACKGROUND * abs(_high(sample, background) - background)
    near = np.abs(sample - background) <= reach
    return float((sample == background).sum()) >= CONSTANT_SHARE * float(near.sum())


def _high(channel: NDArray[np.float32], background: float) -> float:
    return max(float(np.percentile(channel, 99.5)), background + 1e-6)


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
    box = _bounding_box(foreground)
    filled = np.zeros_like(foreground)
    filled[box] = _largest_filled_in_box(foreground[box])
    return filled


def _bounding_box(foreground: NDArray[np.bool_]) -> tuple[slice, ...]:
    """Return the smallest box that holds everything, which is quicker to search than the whole."""
    box = []
    for axis in range(foreground.ndim):
        others = tuple(other for other in range(foreground.ndim) if other != axis)
        inside = np.flatnonzero(foreground.any(axis=others))
        box.append(slice(int(inside[0]), int(inside[-1]) + 1))
    return tuple(box)


def _largest_filled_in_box(foreground: NDArray[np.bool_]) -> NDArray[np.bool_]:
    foreground = np.pad(foreground, ((1, 1), (1, 1), (0, 0)))  # so that what is outside is joined
    components, count = ndimage.label(foreground)
    if count > 1:
        sizes = np.bincount(components.ravel())
        sizes[0] = 0
        foreground = components == sizes.argmax()
    in_plane = ndimage.generate_binary_structure(foreground.ndim, 1)
    in_plane[..., 0] = in_plane[..., 2] = False  # a slab is open above and below
    outside, _ = ndimage.label(~foreground, structure=in_plane)
    is_open = np.zeros(int(outside.max()) + 1, dtype=bool)
    is_open[np.unique(outside[0])] = True  # the padding, slice by slice
    is_open[0] = False  # 0 is the foreground itself
    filled: NDArray[np.bool_] = ~is_open[outside][1:-1, 1:-1]
    return filled


def normalisation_map(
    image: NDArray[np.float32],
    brain: NDArray[np.bool_],
    tumour: NDArray[np.bool_] | None,
    method: Normalisation,
) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Return shift and scale (C,) of the affine map (x - shift) / scale, from the brain alone.

    ``zscore``: mean and standard deviation. ``healthy``: the same without the tumour, so that a
    large bright tumour does not darken the rest of the brain and thus show itself there; the whole
    brain where no tumour is marked or it leaves less than a tenth of the brain. ``percentile``: the
    0.5th percentile goes to 0 and the 99.5th to 1. ``none``: shift 0 and scale 1. A constant brain
    has scale 1.
    """
    if method == "none":
        return np.zeros(len(image), np.float32), np.ones(len(image), np.float32)
    region = brain
    if method == "healthy" and tumour is not None:
        healthy = brain & ~tumour
        region = healthy if 10 * int(healthy.sum()) >= int(brain.sum()) else brain
    inside = image[:, region]  # C voxels
    if method in ("zscore", "healthy"):
        shift, scale = inside.mean(axis=1), inside.std(axis=1)
    else:
        shift, high = np.percentile(inside, (0.5, 99.5), axis=1)
        scale = high - shift
    return shift.astype(np.float32), np.where(scale > 0, scale, 1).astype(np.float32)
