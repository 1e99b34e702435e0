"""Which pixels a relevance score may count, and for which samples it is defined.

The one policy, kept by every score of this package:

* A pixel whose ``lesion_mask`` is NaN is unknown and is left out, as is one outside ``brain_mask``.
* A sample without a lesion, without positive relevance among the counted pixels, or with a NaN or
  infinite relevance anywhere scores NaN: neither a hit nor a miss.
* Whoever averages a score averages the defined samples and reports how many were not.
"""

from dataclasses import dataclass

import torch
from torch import Tensor

from glioma_xai.errors import ShapeError


@dataclass(frozen=True)
class Regions:
    """Relevance of the counted pixels, flattened in space to N pixels; 0 where not counted.

    Args:
        positive: max(R, 0) summed over channels, (B, N).
        absolute: |R| summed over channels, (B, N).
        map: R summed over channels, (B, N); minus infinity where not counted.
        inside: The pixel must carry relevance, (B, N), bool.
        outside: The pixel must not carry relevance, (B, N), bool.
        defined: The sample has a lesion and finite, somewhere positive relevance, (B,), bool.
    """

    positive: Tensor
    absolute: Tensor
    map: Tensor
    inside: Tensor
    outside: Tensor
    defined: Tensor


def count_regions(
    relevance: Tensor, lesion_mask: Tensor, *, brain_mask: Tensor | None = None
) -> Regions:
    """Apply the policy of this module to a batch.

    Args:
        relevance: Signed relevance, (B, C, H, W[, D]), in units of the explained logit.
        lesion_mask: 1 must carry relevance, 0 must not, NaN unknown, (B, 1, H, W[, D]), or bool.
        brain_mask: Pixels outside it (0 or False) are not counted, (B, 1, H, W[, D]).

    Returns:
        The counted pixels of each sample.

    Raises:
        ShapeError: If batch or spatial sizes differ, or a mask has more than one channel.
    """
    _check_mask("lesion_mask", relevance, lesion_mask)
    inside, counted = split_pixels(lesion_mask, brain_mask=brain_mask)
    values = relevance.detach().flatten(2)  # B C N
    finite = values.abs().flatten(1).amax(dim=1).isfinite()  # B; a NaN is the largest of all
    values = torch.where(counted[:, None], values.nan_to_num(0.0, 0.0, 0.0), 0.0)
    positive = values.clamp(min=0).sum(dim=1)  # B N
    return Regions(
        positive=positive,
        absolute=values.abs().sum(dim=1),
        map=values.sum(dim=1).masked_fill(~counted, -torch.inf),
        inside=inside,
        outside=counted & ~inside,
        defined=finite & inside.any(dim=1) & (positive > 0).any(dim=1),
    )


def split_pixels(lesion_mask: Tensor, *, brain_mask: Tensor | None = None) -> tuple[Tensor, Tensor]:
    """Pixels of the lesion, and all counted pixels.

    Args:
        lesion_mask: 1 must carry relevance, 0 must not, NaN unknown, (B, 1, H, W[, D]), or bool.
        brain_mask: Pixels outside it are not counted, (B, 1, H, W[, D]).

    Returns:
        Two selections of pixels, (B, N), bool.

    Raises:
        ShapeError: If the masks differ in shape.
    """
    lesion = lesion_mask.detach().flatten(1)  # B N
    counted = ~lesion.isnan()
    if brain_mask is not None:
        _check_mask("brain_mask", lesion_mask, brain_mask)
        counted &= brain_mask.flatten(1) > 0.5
    return counted & (lesion > 0.5), counted


def mean_of_defined(scores: Tensor) -> tuple[float, int]:
    """Mean over the samples whose score is defined, and the number of those whose is not.

    Args:
        scores: One score a sample, (B,); NaN where undefined.

    Returns:
        The mean, NaN if no score is defined, and the count of undefined scores.
    """
    undefined = int(scores.isnan().sum())
    return float(scores.nanmean()), undefined


def _check_mask(name: str, relevance: Tensor, mask: Tensor) -> None:
    expected = (relevance.shape[0], 1, *relevance.shape[2:])
    if tuple(mask.shape) == expected:
        return
    if mask.ndim != relevance.ndim:
        fix = "A 2-D mask met 3-D relevance or the reverse: set data.spatial_dims to one of them."
    elif mask.shape[1] != 1:
        fix = "Merge the tumour labels into one channel first."
    else:
        fix = "Resample the mask to the grid of the image first."
    raise ShapeError(
        f"{name} must match relevance in batch and space: expected {expected}, "
        f"got {tuple(mask.shape)}. {fix}"
    )
