"""Means of the parts of the objective: over the samples that count, in one process or many."""

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F

from glioma_xai.errors import ConfigError, ShapeError

_NOTHING = -(2**31)  # no label means "leave this sample out"


@dataclass(frozen=True)
class Term:
    """A loss by sample, added to the classification loss.

    Args:
        values: (N,); the samples need not be those that are classified.
        counted: Samples that the mean is over, (N,) bool, see
            :func:`glioma_xai.losses.guided_samples`.
        count: What the sum is divided by; None takes the number that is counted. Under DDP, which
            averages gradients over processes, give the global number divided by the number of
            processes; with gradient accumulation likewise that of the whole step divided by its
            batches. Then the gradient is that of the joined batch.
    """

    values: Tensor
    counted: Tensor
    count: Tensor | None = None

    @property
    def divisor(self) -> Tensor:
        """What the sum is divided by, scalar; 0 if no sample counts in any process."""
        return self.counted.sum() if self.count is None else self.count

    def mean(self) -> Tensor:
        """Mean over the samples that count, scalar; 0 with zero gradient if there are none."""
        total = torch.where(self.counted, self.values, 0).sum()
        divisor = self.divisor
        return total / torch.where(divisor > 0, divisor, 1).to(self.values.dtype)


def loss_of_guessing(counts: Tensor, *, class_weights: Tensor | None = None) -> Tensor:
    """The lowest mean cross entropy of a network that says the same of every image, scalar.

    For K classes of equal size it is ln K; where one is rare it is less.

    Args:
        counts: Samples of each class, (K,), float.
        class_weights: As of :func:`mean_cross_entropy`.
    """
    weights = torch.ones_like(counts) if class_weights is None else class_weights.to(counts)
    parts = weights * counts / counts.sum()
    loss: Tensor = -torch.special.xlogy(parts, parts / parts.sum()).sum()
    return loss


def mean_cross_entropy(
    logits: Tensor,
    labels: Tensor,
    *,
    class_weights: Tensor | None = None,
    count: Tensor | None = None,
) -> Tensor:
    """Mean cross entropy, scalar.

    It is divided by the number of samples, not by the sum of their weights as in PyTorch: that is
    the same for one process and many. Let the weights have mean 1 over the training samples.

    Args:
        logits: (B, K).
        labels: (B,) int64.
        class_weights: One factor a class, (K,); None weighs all the same.
        count: What the sum is divided by, see :class:`Term`; None takes B.

    Raises:
        ShapeError: If a label is none of the K classes.
        ConfigError: If there are not K weights.
    """
    try:
        values = F.cross_entropy(logits, labels, reduction="none", ignore_index=_NOTHING)  # B
    except IndexError as error:
        raise ShapeError(
            f"labels must lie in 0..{logits.shape[1] - 1}, got {int(labels.min())}.."
            f"{int(labels.max())}. Give the model as many outputs as data.classes has names."
        ) from error
    if class_weights is not None:
        if len(class_weights) != logits.shape[1]:
            raise ConfigError(
                f"class weights: expected one for each of {logits.shape[1]} classes, found "
                f"{len(class_weights)}. Check data.classes."
            )
        values = values * class_weights[labels]
    return values.sum() / (len(values) if count is None else count)
