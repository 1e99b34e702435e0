"""How alike relevance maps are: of other seeds or folds, of other networks, of random weights."""

from collections.abc import Callable

import torch
from torch import Tensor
from torchmetrics.functional import spearman_corrcoef

from glioma_xai.errors import ShapeError

Similarity = Callable[[Tensor, Tensor], Tensor]
"""Two batches of relevance, (B, C, H, W[, D]), to one value a sample, (B,)."""


def rank_correlation(relevance: Tensor, other: Tensor) -> Tensor:
    """Spearman's correlation of two relevance maps over their pixels.

    Args:
        relevance: Signed relevance, (B, C, H, W[, D]); compared after summing over channels.
        other: The other relevance of the same samples, same shape.

    Returns:
        (B,) in [-1, 1]; NaN for a constant map or values that are not finite.

    Raises:
        ShapeError: If the shapes differ.
    """
    first, second = _maps(relevance, other)
    usable = (first.std(dim=1) > 0) & (second.std(dim=1) > 0)  # False for NaN too
    result = torch.full((len(first),), torch.nan, dtype=first.dtype, device=first.device)
    for row in usable.nonzero()[:, 0].tolist():
        result[row] = spearman_corrcoef(first[row], second[row])
    return result


def _maps(relevance: Tensor, other: Tensor) -> tuple[Tensor, Tensor]:
    if relevance.shape != other.shape:
        raise ShapeError(
            "two relevance maps must be of the same samples: expected "
            f"{tuple(relevance.shape)}, got {tuple(other.shape)}. Explain the same batch twice."
        )
    first, second = (r.detach().sum(dim=1).flatten(1) for r in (relevance, other))
    return first, second
