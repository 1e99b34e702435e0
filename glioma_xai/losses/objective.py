"""The number that training minimises: classification, guidance and consistency, each normalised."""

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from glioma_xai.errors import ConfigError, ShapeError
from glioma_xai.losses.schedules import Schedule, constant
from glioma_xai.losses.weighting import balancing_factor

Weighting = Literal["fixed", "balanced", "uncertainty"]


@dataclass(frozen=True)
class ObjectiveParts:
    """The total and what it is made of.

    Args:
        total: Scalar to be minimised.
        classification: Mean cross entropy, scalar.
        guidance: Mean guidance loss of the guided samples, unweighted, scalar; 0 if not computed.
        consistency: The same for the consistency loss.
        guidance_weight: Factor that the guidance had at this step, balancing included.
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


def _mean(
    which: str,
    name: str,
    values: Tensor | None,
    counted: Tensor | None,
    count: Tensor | float | None,
    *,
    like: Tensor,
) -> Tensor:
    """Mean of a term over the samples that count; 0 if it was not computed."""
    if values is None:
        return like.new_zeros(())
    if counted is None:
        raise ConfigError(
            f"the objective needs {which}=guided_samples(lesion_mask) beside {name} values, got "
            "None. Pass it."
        )
    return mean_of_guided(values, counted, count=count)


def _check_weight(name: str, value: float, *, upper: float = math.inf) -> None:
    if not (0 <= value <= upper and value < math.inf):
        bound = "a finite number >= 0" if upper == math.inf else f"a share in [0, {upper:g}]"
        raise ConfigError(
            f"{name} must be {bound}, got {value}. Set it to 0 to switch the term off."
        )


def _check_modes(combine: str, weighting: str, balance_every: int) -> None:
    if combine not in ("sum", "convex"):
        raise ConfigError(f"loss.combine must be 'sum' or 'convex', got {combine!r}.")
    if weighting not in ("fixed", "balanced", "uncertainty"):
        raise ConfigError(
            f"loss.weighting must be 'fixed', 'balanced' or 'uncertainty', got {weighting!r}."
        )
    if combine == "convex" and weighting != "fixed":
        raise ConfigError(
            f"loss.combine=convex needs loss.weighting=fixed, got {weighting}. Use combine=sum."
        )
    if balance_every < 1:
        raise ConfigError(f"loss.balance_every must be at least 1, got {balance_every}.")


class Objective(nn.Module):
    r"""Weigh the parts against each other.

    .. math::
        L = L_{class} + w(t) L_{guidance} + w_c L_{consistency} \quad \text{("sum")}

        L = (1 - w(t)) L_{class} + w(t) L_{guidance} + w_c L_{consistency} \quad \text{("convex")}

    with w(t) the guidance weight times its schedule. "convex" is the ISNet's (1 - P) CE + P L.
    With ``weighting`` "balanced" w(t) is the norm of the guidance gradient as a multiple of the
    classification gradient's; with "uncertainty" each loss L becomes exp(-s) L + s / 2 with s
    learnt, which makes small losses count more. A step whose guidance was not computed, or has no
    guided sample in any process, is one of labels alone: the factors of "convex" and "uncertainty"
    do not touch it.

    Args:
        guidance_weight: Factor of the guidance loss, >= 0; in [0, 1] for "convex".
        consistency_weight: Factor of the consistency loss, >= 0.
        schedule: Factor over training, in [0, 1].
        combine: How classification and guidance share the total.
        weighting: ``fixed``, ``balanced`` or ``uncertainty``.
        balance_every: Number of calls between two measurements of the gradient norms, each of which
            costs two backward passes.
        class_weights: One factor a class, > 0; None weighs all the same. The weighted cross entropy
            is divided by the batch size, not by the sum of weights as in PyTorch: that is the same
            for one process and many. Let the weights have mean 1 over the training samples, see
            :func:`balanced_class_weights`.

    Raises:
        ConfigError: If a weight is negative, NaN or infinite, or settings exclude each other.

    Reference:
        Kendall, Gal and Cipolla (2018), CVPR ("uncertainty").
    """

    class_weights: Tensor | None
    balance: Tensor
    calls: Tensor

    def __init__(
        self,
        *,
        guidance_weight: float = 1.0,
        consistency_weight: float = 0.0,
        schedule: Schedule = constant,
        combine: Literal["sum", "convex"] = "sum",
        weighting: Weighting = "fixed",
        balance_every: int = 1,
        class_weights: Sequence[float] | Tensor | None = None,
    ) -> None:
        super().__init__()
        _check_modes(combine, weighting, balance_every)
        _check_weight(
            "loss.guidance_weight", guidance_weight, upper=1.0 if combine == "convex" else math.inf
        )
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
        self.weighting = weighting
        self.balance_every = balance_every
        if weighting == "uncertainty":
            self.log_variances = nn.Parameter(torch.zeros(2))  # classification, guidance
        if weighting == "balanced":
            self.register_buffer("balance", torch.tensor(0.0))
            self.register_buffer("calls", torch.tensor(0))
        self.register_buffer("class_weights", weights, persistent=False)

    def weight_at(self, step: int, total_steps: int) -> float:
        """Return w(t); where it is 0 the relevance need not be computed.

        Args:
            step: Number of optimizer steps done.
            total_steps: Number of steps in all.
        """
        return self.guidance_weight * self.schedule(step, total_steps)

    def weigh(self, classification: float, guidance: float) -> float:
        """Both losses of a whole split at their full weights, without schedule and balancing.

        A poor criterion for an epoch: a network that hides what it decides by has low values of
        both. It is here to be compared with.

        Args:
            classification: Mean cross entropy.
            guidance: Mean guidance loss.
        """
        share = 1 - self.guidance_weight if self.combine == "convex" else 1.0
        return share * classification + self.guidance_weight * guidance

    def forward(
        self,
        logits: Tensor,
        labels: Tensor,
        *,
        step: int,
        total_steps: int,
        guided: Tensor | None = None,
        guidance: Tensor | None = None,
        guided_count: Tensor | float | None = None,
        compared: Tensor | None = None,
        consistency: Tensor | None = None,
        compared_count: Tensor | float | None = None,
        sample_count: Tensor | float | None = None,
        parameters: Iterable[nn.Parameter] | None = None,
    ) -> ObjectiveParts:
        """Return the total and its parts.

        Args:
            logits: (B, K).
            labels: (B,) int64.
            step: Number of optimizer steps done.
            total_steps: Number of steps in all.
            guided: Samples whose guidance counts, (N,) bool, see
                :func:`glioma_xai.losses.guided_samples`; needed by ``guidance``.
            guidance: Guidance loss of each sample, (N,); None if it was not computed. The samples
                need not be those of the logits.
            guided_count: See :func:`mean_of_guided`.
            compared: The same as ``guided`` for the consistency, (M,) bool.
            consistency: Consistency loss of each sample, (M,); None if it was not computed.
            compared_count: See :func:`mean_of_guided`.
            sample_count: The same for the cross entropy; None takes the logits' number.
            parameters: Of the network; needed by "balanced" weighting.

        Raises:
            ConfigError: If guidance comes without ``guided`` or consistency without ``compared``,
                or a label has no class weight.
        """
        classification = self._classification(logits, labels, sample_count)
        parts = [
            _mean("guided", "guidance", guidance, guided, guided_count, like=classification),
            _mean(
                "compared",
                "consistency",
                consistency,
                compared,
                compared_count,
                like=classification,
            ),
        ]
        computed = guided_count is None or bool(torch.as_tensor(guided_count) > 0)
        computed = computed and guidance is not None
        weight = self.weight_at(step, total_steps) if computed else 0.0
        if self.weighting == "balanced" and weight > 0:
            weight *= self._balance(classification, parts[0], parameters)
        total = self._total(classification, parts[0], weight)
        if self.consistency_weight > 0:
            total = total + self.consistency_weight * parts[1]
        return ObjectiveParts(total, classification, parts[0], parts[1], weight)

    def _total(self, classification: Tensor, guidance: Tensor, weight: float) -> Tensor:
        """Combine the two; guidance of weight 0 is left out, since 0 * NaN is NaN."""
        if self.weighting == "uncertainty":
            first, second = self.log_variances
            classification = torch.exp(-first) * classification + first / 2
            guidance = torch.exp(-second) * guidance + second / 2
        if self.combine == "convex":
            classification = (1 - weight) * classification
        return classification + weight * guidance if weight > 0 else classification

    def _balance(
        self, classification: Tensor, guidance: Tensor, parameters: Iterable[nn.Parameter] | None
    ) -> float:
        """Return the balancing factor, measured anew every ``balance_every`` calls."""
        if parameters is None:
            raise ConfigError(
                "loss.weighting=balanced needs the network's parameters, got None. "
                "Pass parameters=model.parameters()."
            )
        if int(self.calls) % self.balance_every == 0:
            factor = balancing_factor(classification, guidance, parameters)
            if factor == 0:  # no guided sample in this batch: measure at the next one
                return 0.0
            self.balance = factor
        self.calls += 1
        return float(self.balance)

    def _classification(
        self, logits: Tensor, labels: Tensor, count: Tensor | float | None
    ) -> Tensor:
        """Mean cross entropy, scalar."""
        try:
            values = F.cross_entropy(logits, labels, reduction="none")  # B
        except IndexError as error:
            raise ShapeError(
                f"labels must lie in 0..{logits.shape[1] - 1}, got {int(labels.min())}.."
                f"{int(labels.max())}. Give the model as many outputs as data.classes has names."
            ) from error
        count = len(values) if count is None else count
        if self.class_weights is None:
            return values.sum() / count
        if len(self.class_weights) != logits.shape[1]:
            raise ConfigError(
                f"loss.class_weights needs one weight for each of {logits.shape[1]} classes, got "
                f"{len(self.class_weights)}. Check data.classes."
            )
        return (values * self.class_weights[labels]).sum() / count
