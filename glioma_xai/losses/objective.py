"""The number that training minimises: classification, guidance and consistency, each normalised."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from glioma_xai.errors import ConfigError
from glioma_xai.losses.schedules import Schedule, constant


@dataclass(frozen=True)
class ObjectiveParts:
    """The total and what it is made of.

    Args:
        total: Scalar to be minimised.
        classification: Mean cross entropy, scalar.
        guidance: Mean guidance loss of the guided samples, unweighted, scalar; 0 if not computed.
        consistency: The same for the consistency loss.
        guidance_weight: Factor that the guidance had at this step.
    """

    total: Tensor
    classification: Tensor
    guidance: Tensor
    consistency: Tensor
    guidance_weight: float


def mean_of_guided(
    values: Tensor, guided: Tensor, *, count: Tensor | float | None = None
) -> Tensor:
    """Mean over the guided samples; 0 with zero gradient if there are none.

    Args:
        values: (B,), 0 for samples that are not guided.
        guided: (B,) bool.
        count: What to divide by; None takes this batch's guided samples. Under DDP, which averages
            gradients over processes, give the global count divided by the number of processes; with
            gradient accumulation likewise the count of the whole step divided by its batches. Then
            the gradient is that of the joined batch.

    Returns:
        Scalar.
    """
    total = torch.where(guided, values, 0).sum()
    divisor = guided.sum() if count is None else torch.as_tensor(count, device=values.device)
    return total / torch.where(divisor > 0, divisor, 1).to(values.dtype)


def balanced_class_weights(labels: Tensor, *, classes: int) -> Tensor:
    """Weights that give every class the same total: N / (classes * count), with mean 1 over labels.

    Args:
        labels: Of the training samples, (N,) int64.
        classes: Number of classes.

    Returns:
        (classes,) float32.

    Raises:
        ConfigError: If a class has no sample.
    """
    counts = torch.bincount(labels, minlength=classes)
    if len(counts) != classes or bool((counts == 0).any()):
        raise ConfigError(
            f"balanced class weights need samples of all {classes} classes, got counts "
            f"{counts.tolist()}. Check data.classes and the split."
        )
    return (labels.numel() / (classes * counts)).float()


def _check_weight(name: str, value: float, *, upper: float = float("inf")) -> None:
    if not (0 <= value <= upper and value < float("inf")):
        bound = "a finite number >= 0" if upper == float("inf") else f"a share in [0, {upper:g}]"
        raise ConfigError(
            f"{name} must be {bound}, got {value}. Set it to 0 to switch the term off."
        )


class Objective(nn.Module):
    r"""Weigh the parts against each other.

    .. math::
        L = L_{class} + w(t) L_{guidance} + w_c L_{consistency} \quad \text{("sum")}

        L = (1 - w(t)) L_{class} + w(t) L_{guidance} + w_c L_{consistency} \quad \text{("convex")}

    with w(t) the guidance weight times its schedule. "convex" is the ISNet's (1 - P) CE + P L.

    Args:
        guidance_weight: Factor of the guidance loss, >= 0; in [0, 1] for "convex".
        consistency_weight: Factor of the consistency loss, >= 0.
        schedule: Factor over training, in [0, 1].
        combine: How classification and guidance share the total.
        class_weights: One factor a class, > 0; None weighs all the same. The weighted cross entropy
            is divided by the batch size, not by the sum of weights as in PyTorch: that is the same
            for one process and many. Let the weights have mean 1 over the training samples, see
            :func:`balanced_class_weights`.

    Raises:
        ConfigError: If a weight is negative, NaN or infinite.
    """

    class_weights: Tensor | None

    def __init__(
        self,
        *,
        guidance_weight: float = 1.0,
        consistency_weight: float = 0.0,
        schedule: Schedule = constant,
        combine: Literal["sum", "convex"] = "sum",
        class_weights: Sequence[float] | Tensor | None = None,
    ) -> None:
        super().__init__()
        if combine not in ("sum", "convex"):
            raise ConfigError(f"loss.combine must be 'sum' or 'convex', got {combine!r}.")
        upper = 1.0 if combine == "convex" else float("inf")
        _check_weight("loss.guidance_weight", guidance_weight, upper=upper)
        _check_weight("loss.consistency_weight", consistency_weight)
        weights = None if class_weights is None else torch.as_tensor(class_weights).float()
        if weights is not None and not bool((torch.isfinite(weights) & (weights > 0)).all()):
            raise ConfigError(
                f"loss.class_weights must be finite and > 0, got {weights.tolist()}. "
                "Use balanced_class_weights."
            )
        self.guidance_weight = guidance_weight
        self.consistency_weight = consistency_weight
        self.schedule = schedule
        self.combine = combine
        self.register_buffer("class_weights", weights, persistent=False)

    def weight_at(self, step: int, total_steps: int) -> float:
        """Return w(t); where it is 0 the relevance need not be computed.

        Args:
            step: Number of optimizer steps done.
            total_steps: Number of steps in all.
        """
        return self.guidance_weight * self.schedule(step, total_steps)

    def forward(
        self,
        logits: Tensor,
        labels: Tensor,
        *,
        step: int,
        total_steps: int,
        guided: Tensor | None = None,
        guidance: Tensor | None = None,
        consistency: Tensor | None = None,
        guided_count: Tensor | float | None = None,
    ) -> ObjectiveParts:
        """Return the total and its parts.

        Args:
            logits: (B, K).
            labels: (B,) int64.
            step: Number of optimizer steps done.
            total_steps: Number of steps in all.
            guided: (B,) bool, see :func:`glioma_xai.losses.guided_samples`; needed by the next two.
            guidance: Guidance loss of each sample, (B,); None if it was not computed.
            consistency: Consistency loss of each sample, (B,); None if it was not computed.
            guided_count: See :func:`mean_of_guided`.

        Raises:
            ConfigError: If guidance or consistency comes without ``guided``, or a label has no
                class weight.
        """
        classification = self._classification(logits, labels)
        nothing = classification.new_zeros(())
        parts = [nothing, nothing]
        for position, values in enumerate((guidance, consistency)):
            if values is None:
                continue
            if guided is None:
                raise ConfigError(
                    "the objective needs guided=guided_samples(lesion_mask) beside guidance or "
                    "consistency values, got None. Pass it."
                )
            parts[position] = mean_of_guided(values, guided, count=guided_count)
        weight = self.weight_at(step, total_steps)
        total = classification * (1 - weight) if self.combine == "convex" else classification
        if weight > 0:  # 0 * NaN is NaN
            total = total + weight * parts[0]
        if self.consistency_weight > 0:
            total = total + self.consistency_weight * parts[1]
        return ObjectiveParts(total, classification, parts[0], parts[1], weight)

    def _classification(self, logits: Tensor, labels: Tensor) -> Tensor:
        """Mean cross entropy, scalar."""
        values = F.cross_entropy(logits, labels, reduction="none")  # B
        if self.class_weights is None:
            return values.mean()
        if len(self.class_weights) != logits.shape[1]:
            raise ConfigError(
                f"loss.class_weights needs one weight for each of {logits.shape[1]} classes, got "
                f"{len(self.class_weights)}. Check data.classes."
            )
        return (values * self.class_weights[labels]).mean()
