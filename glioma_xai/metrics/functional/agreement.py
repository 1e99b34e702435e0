"""How alike relevance maps are: of other seeds or folds, of other networks, of random weights."""

from collections.abc import Callable, Sequence

import torch
from torch import Tensor
from torchmetrics.functional import spearman_corrcoef
from torchmetrics.functional.image import structural_similarity_index_measure

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


def structural_similarity(relevance: Tensor, other: Tensor) -> Tensor:
    """Structural similarity of two relevance maps, each scaled by its largest absolute value.

    Args:
        relevance: Signed relevance, (B, C, H, W[, D]); compared after summing over channels. Every
            side must be at least 11 pixels long.
        other: The other relevance of the same samples, same shape.

    Returns:
        (B,) in [-1, 1]; NaN for a map of zeros or values that are not finite.

    Raises:
        ShapeError: If the shapes differ.

    Reference:
        Wang, Bovik, Sheikh and Simoncelli (2004), IEEE Transactions on Image Processing 13:600-612.
    """
    shape = (len(relevance), 1, *relevance.shape[2:])
    scaled = [m / m.abs().amax(dim=1, keepdim=True) for m in _maps(relevance, other)]
    usable = scaled[0].isfinite().all(dim=1) & scaled[1].isfinite().all(dim=1)
    first, second = (m.nan_to_num(0.0, 0.0, 0.0).reshape(shape) for m in scaled)
    values = structural_similarity_index_measure(first, second, data_range=2.0, reduction="none")
    assert isinstance(values, Tensor)  # the other type of its result needs an option
    return torch.where(usable, values.reshape(-1), torch.nan)


def agreement_matrix(
    maps: Sequence[Tensor], *, similarity: Similarity = rank_correlation
) -> Tensor:
    """Mean similarity of the maps of every two networks on the same samples.

    Args:
        maps: Relevance of M networks (seeds, folds) for the same samples, each (B, C, H, W[, D]).
        similarity: How two batches are compared.

    Returns:
        (M, M), symmetric, 1 on the diagonal; the mean over samples that define it, else NaN.

    Raises:
        ShapeError: If the shapes differ.
    """
    matrix = torch.eye(len(maps), dtype=torch.float64)
    for i in range(len(maps)):
        for j in range(i):
            matrix[i, j] = matrix[j, i] = similarity(maps[i], maps[j]).nanmean()
    return matrix


def _maps(relevance: Tensor, other: Tensor) -> tuple[Tensor, Tensor]:
    if relevance.shape != other.shape:
        raise ShapeError(
            "two relevance maps must be of the same samples: expected "
            f"{tuple(relevance.shape)}, got {tuple(other.shape)}. Explain the same batch twice."
        )
    first, second = (r.detach().sum(dim=1).flatten(1) for r in (relevance, other))
    return first, second
