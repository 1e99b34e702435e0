"""Overlap of a lesion with the hottest part of a relevance map."""

from collections.abc import Sequence

import torch
from torch import Tensor

from glioma_xai.errors import ConfigError
from glioma_xai.metrics.functional.regions import count_regions, mean_of_defined

CANDIDATES = (0.005, 0.01, 0.02, 0.03, 0.04, *(step / 20 for step in range(1, 20)))
"""Shares of the highest pixel; close together where one hot pixel leaves all others low."""


def intersection_over_union(
    relevance: Tensor,
    lesion_mask: Tensor,
    *,
    threshold: float,
    brain_mask: Tensor | None = None,
) -> Tensor:
    """Overlap of the lesion with the pixels above a share of the map's highest value.

    Args:
        relevance: Signed relevance, (B, C, H, W[, D]); cut after summing over channels.
        lesion_mask: 1 must carry relevance, 0 must not, NaN unknown, (B, 1, H, W[, D]).
        threshold: Share of the sample's highest pixel, in (0, 1); choose it on validation data
            with :func:`choose_iou_threshold`.
        brain_mask: Restricts the score to the brain, (B, 1, H, W[, D]).

    Returns:
        (B,) in [0, 1]; NaN where undefined, and where no pixel of the summed map is positive.

    Raises:
        ConfigError: If the threshold is not in (0, 1).
        ShapeError: If batch or spatial sizes differ, or a mask has more than one channel.
    """
    if not 0 < threshold < 1:
        raise ConfigError(
            f"threshold must be a share of the highest relevance: expected a number between 0 and "
            f"1, got {threshold}. Choose it on validation data with choose_iou_threshold."
        )
    regions = count_regions(relevance, lesion_mask, brain_mask=brain_mask)
    highest = regions.map.amax(dim=1, keepdim=True)  # B 1
    selected = (regions.map >= threshold * highest) & (highest > 0)
    union = (selected | regions.inside).sum(dim=1, dtype=torch.float64)
    overlap = (selected & regions.inside).sum(dim=1) / union
    defined = regions.defined & (highest[:, 0] > 0)
    return torch.where(defined, overlap, torch.nan).to(relevance.dtype)


def choose_iou_threshold(
    relevance: Tensor,
    lesion_mask: Tensor,
    *,
    candidates: Sequence[float] = CANDIDATES,
    brain_mask: Tensor | None = None,
) -> float:
    """Threshold with the highest mean overlap, for validation data.

    Args:
        relevance: Signed relevance, (B, C, H, W[, D]).
        lesion_mask: 1 must carry relevance, 0 must not, NaN unknown, (B, 1, H, W[, D]).
        candidates: Shares of the highest pixel to try, each in (0, 1).
        brain_mask: Restricts the score to the brain, (B, 1, H, W[, D]).

    Returns:
        One of the candidates, the lowest of equally good ones; NaN if no sample is defined.

    Raises:
        ConfigError: If a candidate is not in (0, 1).
        ShapeError: If batch or spatial sizes differ, or a mask has more than one channel.
    """
    means = {
        threshold: mean_of_defined(
            intersection_over_union(
                relevance, lesion_mask, threshold=threshold, brain_mask=brain_mask
            )
        )[0]
        for threshold in sorted(candidates)
    }
    if all(mean != mean for mean in means.values()):
        return float("nan")
    return max(means, key=lambda threshold: means[threshold])
