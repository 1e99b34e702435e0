"""Localization of relevance, gathered over the batches and processes of a validation epoch."""

import torch
from torch import Tensor
from torchmetrics import Metric

from glioma_xai.metrics.functional.localization import localization_scores

SCORES = (
    "relevance_mass_accuracy",
    "absolute_relevance_mass",
    "relevance_rank_accuracy",
    "pointing_game",
    "focus_score",
    "negative_share",
    "lesion_share",
    "outside_brain",
)


class RelevanceScores(Metric):
    """Mean of every localization score over the samples that define it.

    ``compute`` returns each score by name, and ``<score>_undefined``, the samples left out of its
    mean. A score that no sample defines is NaN. Sums are added across processes, so that one
    process and many agree; a distributed sampler that repeats samples to fill the last batch
    counts them twice.

    Example:
        >>> import torch
        >>> metric = RelevanceScores()
        >>> lesion_mask = torch.zeros(1, 1, 2, 2)
        >>> lesion_mask[..., 0, 0] = 1
        >>> metric.update(torch.tensor([[[[3.0, 1.0], [0.0, 0.0]]]]), lesion_mask)
        >>> float(metric.compute()["relevance_mass_accuracy"])
        0.75
    """

    full_state_update = False
    is_differentiable = False
    higher_is_better = None  # negative_share and outside_brain have no better side in common

    sums: Tensor
    defined: Tensor
    samples: Tensor

    def __init__(self) -> None:
        super().__init__()
        zeros = torch.zeros(len(SCORES), dtype=torch.float64)
        self.add_state("sums", zeros.clone(), dist_reduce_fx="sum")
        self.add_state("defined", zeros.clone(), dist_reduce_fx="sum")
        self.add_state("samples", torch.zeros((), dtype=torch.float64), dist_reduce_fx="sum")

    def update(
        self, relevance: Tensor, lesion_mask: Tensor, brain_mask: Tensor | None = None
    ) -> None:
        """Add a batch.

        Args:
            relevance: Signed relevance, (B, C, H, W[, D]), in units of the explained logit.
            lesion_mask: 1 must carry relevance, 0 must not, NaN unknown, (B, 1, H, W[, D]).
            brain_mask: The brain, (B, 1, H, W[, D]); without it ``outside_brain`` is undefined.
        """
        scores = localization_scores(relevance, lesion_mask, brain_mask=brain_mask)
        for position, name in enumerate(SCORES):
            values = scores.get(name)
            if values is not None:
                self.sums[position] += values.nansum().to(self.sums)
                self.defined[position] += (~values.isnan()).sum()
        self.samples += len(relevance)

    def compute(self) -> dict[str, Tensor]:
        """Mean of each score over its defined samples, and the number of the others."""
        means = self.sums / self.defined  # 0/0 = NaN: no sample defines the score
        results = dict(zip(SCORES, means, strict=True))
        missing = self.samples - self.defined
        results |= {f"{name}_undefined": missing[i] for i, name in enumerate(SCORES)}
        return results
