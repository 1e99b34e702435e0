"""Why two images are alike for a network: relevance of the dot product of their hidden features.

A dot product is a second-order thing: it is relevant that this part of one image and that part of
the other go together. BiLRP gives every pair of pixels the relevance

    R(i, j) = sum_m R_m(i) R'_m(j)

where R_m is the relevance of feature m in the first image and R'_m in the second. Each factor is an
ordinary relevance map, so nothing second-order is ever computed; and because regions are summed
over before the factors meet, the pixel-by-pixel matrix is never formed either.

Reference:
    Eberle et al. (2022), "Building and interpreting deep similarity models", IEEE Transactions on
    Pattern Analysis and Machine Intelligence 44:1149-1161.
"""

from typing import NoReturn

import torch
from torch import Tensor, nn
from zennit.core import Composite

from glioma_xai.attribution.guards import unwrapped
from glioma_xai.attribution.relevance import compute_relevance
from glioma_xai.attribution.trace import trace
from glioma_xai.errors import CompatibilityError, ConfigError, ShapeError


class HiddenFeatures(nn.Module):
    """A network cut off at a hidden layer: images to features, each channel's mean over space.

    Composites are built for this module and not for the network itself.

    Args:
        model: Returns logits; comes back as it was.
        input_shape: Channels and spatial size, without the batch.
        layer: Layer whose output is read; None for what the last weight layer reads.

    Raises:
        ConfigError: If the model has no such layer.
    """

    def __init__(
        self, model: nn.Module, *, input_shape: tuple[int, ...], layer: str | None = None
    ) -> None:
        super().__init__()
        self.model = model = unwrapped(model)
        self.reads_input = layer is None
        self.layer = trace(model, input_shape).order[-1] if layer is None else layer
        if self.layer not in dict(model.named_modules()):
            known = [name for name, _ in model.named_modules() if name]
            raise ConfigError(
                f"layer: expected one of {', '.join(known[:20])}"
                f"{', ...' if len(known) > 20 else ''}, got {layer}. Choose one of them, or leave "
                "it out for what the last layer reads."
            )
        self.training = model.training  # the model's own modules keep theirs

    def forward(self, images: Tensor) -> Tensor:
        """Features, (B, M); nothing behind the layer is run."""
        module = self.model.get_submodule(self.layer)
        handle = (
            module.register_forward_pre_hook(lambda _, inputs: _stop(inputs[0]))
            if self.reads_input
            else module.register_forward_hook(lambda _, __, output: _stop(output))
        )
        try:
            self.model(images)
        except _Reached as reached:
            found = reached.features
            return found.flatten(2).mean(2) if found.ndim > 2 else found
        finally:
            handle.remove()
        raise CompatibilityError(
            f"layer {self.layer} must be called in the forward pass: expected one call, got none. "
            "Choose a layer that the model uses."
        )


class _Reached(Exception):
    def __init__(self, features: Tensor) -> None:
        super().__init__("the layer is reached")
        self.features = features


def _stop(features: Tensor) -> NoReturn:
    raise _Reached(features)


def largest_products(first: Tensor, others: Tensor, *, most: int) -> Tensor:
    """Choose the features that carry the dot products of one image with others.

    A feature that is 0 in either image of every pair adds nothing and is never chosen, so that
    with ``most`` at or above the number of the others BiLRP is exact.

    Args:
        first: Features of an image, (M,).
        others: Features of those that it is compared with, (N, M).
        most: Number of features.

    Returns:
        Rows of the identity, one a chosen feature, those with the largest summed absolute product
        first, (K, M) with K at most ``most``.
    """
    weight = (first * others).abs().sum(dim=0)  # M
    count = min(most, int((weight > 0).sum()))
    chosen = weight.argsort(descending=True, stable=True)[:count]
    return torch.eye(len(first), dtype=first.dtype, device=first.device)[chosen]


def region_factors(
    features: HiddenFeatures,
    image: Tensor,
    composite: Composite,
    *,
    coefficients: Tensor,
    regions: Tensor,
    chunk: int = 16,
) -> Tensor:
    """Relevance of each combination of an image's features, summed over regions.

    Args:
        features: In ``eval()`` mode.
        image: One image, (C, H, W[, D]).
        composite: Built for ``features``.
        coefficients: One combination of features a row, (K, M), from :func:`largest_products`.
        regions: Number of each pixel's region from 0 on, (H, W[, D]), int64.
        chunk: Combinations a pass.

    Returns:
        (K, regions), in units of a feature.

    Raises:
        ConfigError: In ``train()`` mode.
        ShapeError: If the regions do not lie on the image.
    """
    if features.model.training:
        raise ConfigError(
            "features of an image must not depend on a batch: expected a model in eval() mode, got "
            "one in train() mode. Call model.eval()."
        )
    if regions.shape != image.shape[1:]:
        raise ShapeError(
            f"regions must number the pixels of the image: expected {tuple(image.shape[1:])}, got "
            f"{tuple(regions.shape)}. Make them for this image."
        )
    pixels, count = regions.flatten(), int(regions.max()) + 1
    factors = []
    for rows in torch.split(coefficients, chunk):
        images = image.repeat(len(rows), *[1] * image.ndim)
        _, relevance = compute_relevance(features, images, composite, target=rows)
        maps = relevance.sum(dim=1).flatten(1)  # K pixels
        factors.append(maps.new_zeros(len(rows), count).index_add_(1, pixels, maps))
    return torch.cat(factors) if factors else image.new_zeros(0, count)


def link_regions(first: Tensor, second: Tensor) -> Tensor:
    """Relevance of every pair of regions for the dot product of two images' features.

    Args:
        first: Factors of the first image, (K, regions), from :func:`region_factors`.
        second: Those of the second, (K, its regions), with the same coefficients.

    Returns:
        (regions, regions of the second), in units of the dot product. Their sum is the dot product,
        up to what biases and stabilizers absorb.
    """
    return first.T @ second


def similarity_map(
    features: HiddenFeatures,
    image: Tensor,
    composite: Composite,
    *,
    coefficients: Tensor,
    other: Tensor,
) -> Tensor:
    """What in one image makes it like another: its links, summed over all of the other's pixels.

    Relevance is linear in the coefficients, so one pass gives the sum of all.

    Args:
        features: In ``eval()`` mode.
        image: One image, (C, H, W[, D]).
        composite: Built for ``features``.
        coefficients: As in :func:`region_factors`, (K, M).
        other: Factors of the other image, (K, its regions).

    Returns:
        Signed relevance, (C, H, W[, D]), in units of the dot product.
    """
    weights = other.sum(dim=1) @ coefficients  # M
    _, relevance = compute_relevance(features, image[None], composite, target=weights[None])
    return relevance[0]
