"""Localization of relevance, gathered over the batches and processes of a validation epoch."""

import torch
from torch import Tensor
from torchmetrics import Metric
from torchmetrics.utilities import dim_zero_cat

from glioma_xai.metrics.classification import first_of_each
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
    "relevance_magnitude",
)


class RelevanceScores(Metric):
    """Mean of every localization score over the samples that define it.

    ``compute`` returns each score by name, and ``<score>_undefined``, the samples left out of its
    mean. A score that no sample defines is NaN. Each sample counts once, whatever a distributed
    sampler repeats to fill the last batch, so that one process and many agree.
    ``relevance_magnitude`` is the sum of |relevance|, in units of the explained logit.

    Example:
        >>> import torch
        >>> metric = RelevanceScores()
        >>> lesion_mask = torch.zeros(1, 1, 2, 2)
        >>> lesion_mask[..., 0, 0] = 1
        >>> relevance = torch.tensor([[[[3.0, 1.0], [0.0, 0.0]]]])
        >>> metric.update(relevance, lesion_mask, index=torch.tensor([0]))
        >>> float(metric.compute()["relevance_mass_accuracy"])
        0.75
    """

    full_state_update = False
    is_differentiable = False
    higher_is_better = None  # negative_share and outside_brain have no better side in common

    values: list[Tensor]
    indices: list[Tensor]

    def __init__(self) -> None:
        super().__init__()
        for name in ("values", "indices"):
            self.add_state(name, [], dist_reduce_fx="cat")

    def update(
        self,
        relevance: Tensor,
        lesion_mask: Tensor,
        brain_mask: Tensor | None = None,
        *,
        index: Tensor,
    ) -> None:
        """Add a batch.

        Args:
            relevance: Signed relevance, (B, C, H, W[, D]), in units of the explained logit.
            lesion_mask: 1 must carry relevance, 0 must not, NaN unknown, (B, 1, H, W[, D]).
            brain_mask: The brain, (B, 1, H, W[, D]); without it ``outside_brain`` is undefined.
            index: Position in the split's table, (B,), int64.
        """
        scores = localization_scores(relevance, lesion_mask, brain_mask=brain_mask)
        scores["relevance_magnitude"] = relevance.abs().flatten(1).sum(dim=1)
        undefined = relevance.new_full((len(relevance),), torch.nan, dtype=torch.float64)
        columns = [scores.get(name, undefined).detach().to(undefined) for name in SCORES]
        self.values.append(torch.stack(columns, dim=1))  # B scores
        self.indices.append(index)

    def compute(self) -> dict[str, Tensor]:
        """Mean of each score over its defined samples, and the number of the others."""
        values = dim_zero_cat(self.values).cpu()[first_of_each(dim_zero_cat(self.indices).cpu())]
        defined = (~values.isnan()).sum(dim=0)
        means = values.nansum(dim=0) / defined  # 0/0 = NaN: no sample defines the score
        results = dict(zip(SCORES, means, strict=True))
        missing = (len(values) - defined).double()
        results |= {f"{name}_undefined": missing[i] for i, name in enumerate(SCORES)}
        return results


class SampleMean(Metric):
    """Mean of one value a sample, each sample once; NaN leaves it out.

    Example:
        >>> import torch
        >>> metric = SampleMean()
        >>> metric.update(torch.tensor([1.0, 3.0, 3.0]), index=torch.tensor([0, 1, 1]))
        >>> float(metric.compute())
        2.0
    """

    full_state_update = False
    is_differentiable = False
    higher_is_better = None

    values: list[Tensor]
    indices: list[Tensor]

    def __init__(self) -> None:
        super().__init__()
        for name in ("values", "indices"):
            self.add_state(name, [], dist_reduce_fx="cat")

    def update(self, values: Tensor, *, index: Tensor) -> None:
        """Add a batch.

        Args:
            values: (B,).
            index: Position in the split's table, (B,), int64.
        """
        self.values.append(values.detach().double())
        self.indices.append(index)

    def compute(self) -> Tensor:
        """Mean, scalar; NaN if there is no sample."""
        if len(self.indices) == 0:
            return torch.tensor(torch.nan)
        first = first_of_each(dim_zero_cat(self.indices).cpu())
        return dim_zero_cat(self.values).cpu()[first].nanmean()
