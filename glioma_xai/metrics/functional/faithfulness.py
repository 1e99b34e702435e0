"""Does relevance show what the network uses? Remove pixels in its order and watch the output.

Perturbation asks the network, not the picture: if the regions that a map calls most relevant are
removed first, the explained score must fall faster than under a random order, and fall last if
they are removed last. What is put in their place matters: black patches are far from anything the
network has seen, so the fill is an argument (blurred image, mean tissue, another patient's tissue).
"""

from collections.abc import Callable
from typing import Literal

import torch
from scipy.ndimage import gaussian_filter
from torch import Tensor

from glioma_xai.errors import ConfigError, ShapeError

Predict = Callable[[Tensor], Tensor]
"""Images (B, C, H, W[, D]) to the score that relevance explains, (B,)."""
Order = Literal["most", "least", "random"]


def patch_regions(shape: tuple[int, ...], size: int) -> Tensor:
    """Number the square or cubic patches that tile an image.

    Args:
        shape: Spatial shape, (H, W[, D]).
        size: Edge in pixels; patches at the far border may be smaller.

    Returns:
        Region of each pixel, shape (1, 1, H, W[, D]), int64.
    """
    numbers = torch.zeros(shape, dtype=torch.int64)
    for axis, length in enumerate(shape):
        along = torch.arange(length) // size
        count = -(-length // size)
        view = [1] * len(shape)
        view[axis] = length
        numbers = numbers * count + along.reshape(view)
    return numbers[None, None]


def cut_regions(patches: Tensor, *borders: Tensor) -> Tensor:
    """Cut patches along the borders of masks: what lies on either side becomes a region of its own.

    Args:
        patches: From :func:`patch_regions`, (1, 1, H, W[, D]).
        borders: Masks, (B, 1, H, W[, D]), bool; say the tumour and the brain.

    Returns:
        Region of each pixel, (B, 1, H, W[, D]), int64.
    """
    regions = patches
    for mask in borders:
        regions = 2 * regions + mask.to(torch.int64)
    return regions


def perturbation_curve(
    predict: Predict,
    images: Tensor,
    relevance: Tensor,
    *,
    fill: Tensor,
    regions: Tensor,
    order: Order = "most",
    steps: int = 20,
    generator: torch.Generator | None = None,
) -> Tensor:
    """Explained score while regions are replaced by ``fill``, in the order of their relevance.

    Args:
        predict: Images to the explained score; called without gradients.
        images: (B, C, H, W[, D]).
        relevance: Signed relevance of the images, same shape; a region's is its mean a pixel.
        fill: What takes the place of a region, same shape, from :func:`blurred`,
            :func:`mean_tissue`, or images of other patients.
        regions: Number of each pixel's region from 0 on, (1 or B, 1, H, W[, D]), int64; a sample
            need not have all of them.
        order: ``most`` relevant first, ``least`` relevant first, or ``random``.
        steps: Points after the first; each replaces the same share of a sample's regions.
        generator: For the random order.

    Returns:
        (B, steps + 1), from the image itself to the whole fill.

    Raises:
        ShapeError: If shapes differ.
        ConfigError: If there are fewer regions than steps.

    Reference:
        Samek et al. (2017), IEEE Transactions on Neural Networks and Learning Systems
        28:2660-2673 (most relevant first); least relevant first after Ancona et al. (2018), ICLR.
    """
    _check(images, relevance, fill, regions)
    places = regions.expand(len(images), 1, *images.shape[2:])
    ranks, present = _ranks(relevance, places, order, generator)  # B regions, 0 goes first
    count = ranks.shape[1]
    if not 1 <= steps <= count:
        raise ConfigError(
            f"steps must not exceed the regions: expected 1 to {count}, got {steps}. Use smaller "
            "patches or fewer steps."
        )
    rank_of_pixel = ranks.gather(1, places.flatten(1)).reshape(places.shape)
    points = []
    with torch.no_grad():
        for step in range(steps + 1):
            leaving = step * present // steps  # B
            removed = rank_of_pixel < leaving.view(-1, *[1] * (images.ndim - 1))
            points.append(predict(torch.where(removed, fill, images)))
    return torch.stack(points, dim=1)


def area_between(curve: Tensor, other: Tensor) -> Tensor:
    """Mean of one curve minus another over the removed share: area between them, by trapezoids.

    With ``other`` most relevant first and ``curve`` random it is how much better than chance the
    map finds what the network uses: positive for a faithful map.

    Args:
        curve: (B, steps + 1).
        other: Same shape, of the same images with the same steps.

    Returns:
        (B,), in units of the explained score.
    """
    return torch.trapezoid(curve - other, dim=1) / (curve.shape[1] - 1)


def blurred(images: Tensor, *, sigma: float) -> Tensor:
    """Images with the detail taken out, as a fill.

    Args:
        images: (B, C, H, W[, D]).
        sigma: Standard deviation of the Gaussian, pixels, along each spatial axis.

    Returns:
        Same shape, dtype and device.
    """
    axes = tuple(range(2, images.ndim))
    smooth = gaussian_filter(images.detach().cpu().numpy(), sigma, axes=axes)
    return torch.from_numpy(smooth).to(images)


def mean_tissue(images: Tensor, brain_mask: Tensor, lesion_mask: Tensor) -> Tensor:
    """Each image's mean over the brain without the tumour, a channel at a time, as a fill.

    Args:
        images: (B, C, H, W[, D]).
        brain_mask: 1 in the brain, (B, 1, H, W[, D]).
        lesion_mask: 1 in the tumour, NaN unknown, (B, 1, H, W[, D]).

    Returns:
        Same shape as the images: the mean in the brain, the image itself outside it. An image
        without healthy brain is returned as it is.
    """
    brain = brain_mask > 0.5
    healthy = (brain & ~(lesion_mask > 0.5)).to(images.dtype)
    weight = healthy.flatten(2).sum(dim=2)  # B 1
    mean = (images * healthy).flatten(2).sum(dim=2) / weight  # B C
    mean = mean.reshape(*mean.shape, *[1] * (images.ndim - 2))
    return torch.where(brain & mean.isfinite(), mean, images)


def _ranks(
    relevance: Tensor, places: Tensor, order: Order, generator: torch.Generator | None
) -> tuple[Tensor, Tensor]:
    """Position at which each region goes, (B, regions), and how many a sample has, (B,)."""
    count = int(places.max()) + 1
    batch, pixels = len(relevance), places.flatten(1)
    total = relevance.new_zeros(batch, count)
    size = torch.zeros_like(total).scatter_add_(
        1, pixels, torch.ones_like(pixels, dtype=total.dtype)
    )
    if order == "random":
        keys = torch.rand(batch, count, generator=generator).to(relevance)
    else:
        total.scatter_add_(1, pixels, relevance.detach().sum(dim=1).flatten(1))
        keys = total / size.clamp(min=1)
    keys = keys if order == "most" else -keys
    leaving = keys.masked_fill(size == 0, -torch.inf).argsort(dim=1, descending=True, stable=True)
    return leaving.argsort(dim=1), (size > 0).sum(dim=1)


def _check(images: Tensor, relevance: Tensor, fill: Tensor, regions: Tensor) -> None:
    for name, tensor in (("relevance", relevance), ("fill", fill)):
        if tensor.shape != images.shape:
            raise ShapeError(
                f"{name} must match the images: expected {tuple(images.shape)}, got "
                f"{tuple(tensor.shape)}. Pass the same batch throughout."
            )
    if regions.shape[1:] != (1, *images.shape[2:]) or len(regions) not in (1, len(images)):
        raise ShapeError(
            f"regions must number the pixels of the images: expected (1 or {len(images)}, 1, "
            f"{', '.join(map(str, images.shape[2:]))}), got {tuple(regions.shape)}. Make them with "
            "patch_regions."
        )
