"""The number that training minimises: classification, guidance and consistency, each normalised."""

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor, nn

from glioma_xai.errors import ConfigError
from glioma_xai.losses.schedules import Schedule, constant
from glioma_xai.losses.terms import Term, mean_cross_entropy
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
        guided_count: What the sum of the guidance losses was divided by; None if they were not
            computed, 0 if no sample is guided in any process.
    """

    total: Tensor
    classification: Tensor
    guidance: Tensor
    consistency: Tensor
    guidance_weight: float
    guided_count: float | None


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
            costs two backward passes. Above 1 the factor at most doubles from one to the next.
        class_weights: One factor a class, > 0, see :func:`mean_cross_entropy`; None weighs all the
            same.

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
                f"class weights must be finite and > 0, got {weights.tolist()}. Set "
                "class_weights=none, or give every class a training sample."
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

        Raises:
            ConfigError: If the schedule returns no factor.
        """
        factor = self.schedule(step, total_steps)
        if not 0 <= factor < math.inf:
            raise ConfigError(
                f"loss.schedule: expected a factor >= 0 at step {step} of {total_steps}, found "
                f"{factor}. Let it return a share in [0, 1]."
            )
        return self.guidance_weight * factor

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
        guidance: Term | None = None,
        consistency: Term | None = None,
        sample_count: Tensor | None = None,
        parameters: Iterable[nn.Parameter] | None = None,
    ) -> ObjectiveParts:
        """Return the total and its parts.

        Args:
            logits: (B, K).
            labels: (B,) int64.
            step: Number of optimizer steps done.
            total_steps: Number of steps in all.
            guidance: Guidance loss by sample; None if it was not computed.
            consistency: Consistency loss by sample; None if it was not computed.
            sample_count: What the sum of the cross entropies is divided by; None takes B.
            parameters: Of the network; needed by "balanced" weighting.

        Raises:
            ShapeError: If a label is none of the K classes.
            ConfigError: If there are not K class weights, or "balanced" lacks parameters.
        """
        classification = mean_cross_entropy(
            logits, labels, class_weights=self.class_weights, count=sample_count
        )
        nothing = classification.new_zeros(())
        guided = nothing if guidance is None else guidance.mean()
        compared = nothing if consistency is None else consistency.mean()
        count = None if guidance is None else float(guidance.divisor)
        weight = self.weight_at(step, total_steps) if count else 0.0
        if self.weighting == "balanced" and weight > 0:
            weight *= self._balance(classification, guided, parameters)
        total = self._total(classification, guided, weight)
        if self.consistency_weight > 0:
            total = total + self.consistency_weight * compared
        return ObjectiveParts(total, classification, guided, compared, weight, count)

    def _total(self, classification: Tensor, guidance: Tensor, weight: float) -> Tensor:
        """Combine the two; guidance of weight 0 is left out, since 0 * NaN is NaN."""
        if self.weighting == "uncertainty":
            if weight == 0:  # DDP wants every parameter used
                return classification + 0 * self.log_variances.sum()
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
            if self.balance_every > 1 and self.balance > 0:  # one vanishing gradient rules no ten
                factor = torch.minimum(factor, 2 * self.balance)
            self.balance = factor
        self.calls += 1
        return float(self.balance)
