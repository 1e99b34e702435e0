"""Layer rules whose relevance can be differentiated with respect to the weights.

Each rule spreads the relevance of a layer's outputs over the values that the layer read, by live
weights: R_j = a_j * sum_k rho(w_jk) * R_k / stabilised(sum_i a_i rho(w_ik) + rho(b_k)).
"""

from collections.abc import Sequence
from typing import Self

import torch
from torch import Tensor

from glioma_xai.attribution.calls import LayerCall
from glioma_xai.attribution.hooks import WeightRule
from glioma_xai.attribution.stabilizer import Stabilizer
from glioma_xai.errors import ConfigError

Bound = float | Sequence[float] | Tensor


class Epsilon(WeightRule):
    r"""Epsilon rule.

    .. math:: R_j = a_j \sum_k w_{jk} \frac{R_k}{z_k + \epsilon \operatorname{sign}(z_k)}

    Reference:
        Bach et al. (2015), PLoS ONE 10(7) e0130140.
    """

    def distribute(self, call: LayerCall, gradient: Tensor) -> Tensor:
        """Return the coefficient of the layer's values."""
        return call.spread(call.shares(gradient, call.output), call.weight())


class ZPlus(WeightRule):
    r"""z+ rule: only what raises the output gets relevance.

    .. math:: R_j = \sum_k \frac{(a_j w_{jk})^+}{\sum_i (a_i w_{ik})^+ + b_k^+} R_k

    Reference:
        Montavon et al. (2017), Pattern Recognition 65:211-222; for signed values the alpha1-beta0
        rule of Bach et al. (2015), PLoS ONE 10(7) e0130140.
    """

    def distribute(self, call: LayerCall, gradient: Tensor) -> Tensor:
        """Return the coefficient of the layer's values."""
        weight, bias = call.weight(), call.bias()
        sides = weight.clamp(min=0), weight.clamp(max=0)
        response = respond(call, *sides, None if bias is None else bias.clamp(min=0))
        return spread(call, call.shares(gradient, response), *sides)


class AlphaBeta(WeightRule):
    r"""Alpha-beta rule: raising and lowering contributions apart, alpha - beta = 1.

    .. math:: R_j = \sum_k \Bigl(\alpha \frac{(a_j w_{jk})^+}{\sum_i (a_i w_{ik})^+ + b_k^+}
        - \beta \frac{(a_j w_{jk})^-}{\sum_i (a_i w_{ik})^- + b_k^-}\Bigr) R_k

    A neuron that nothing lowers passes on alpha times its relevance, one that nothing raises
    -beta times: the sum is conserved only where both signs occur.

    Args:
        stabilizer: Guards both divisions.
        alpha: At least 1; beta is alpha - 1.

    Reference:
        Bach et al. (2015), PLoS ONE 10(7) e0130140.
    """

    def __init__(self, stabilizer: Stabilizer | None = None, *, alpha: float = 2.0) -> None:
        super().__init__(stabilizer)
        if alpha < 1:
            raise ConfigError(
                f"alpha - beta = 1 with beta >= 0: expected alpha >= 1, got {alpha}. Use 2, or 1 "
                f"for the z+ rule."
            )
        self.alpha = alpha

    def copy(self) -> Self:
        """Return a fresh rule with the same alpha."""
        return type(self)(self.stabilizer, alpha=self.alpha)

    def distribute(self, call: LayerCall, gradient: Tensor) -> Tensor:
        """Return the coefficient of the layer's values."""
        weight, bias = call.weight(), call.bias()
        above, below = weight.clamp(min=0), weight.clamp(max=0)
        raising = respond(call, above, below, None if bias is None else bias.clamp(min=0))
        raised = spread(call, call.shares(self.alpha * gradient, raising), above, below)
        if self.alpha == 1:
            return raised
        lowering = respond(call, below, above, None if bias is None else bias.clamp(max=0))
        shares = call.shares((1 - self.alpha) * gradient, lowering)
        return raised + spread(call, shares, below, above)


class Gamma(WeightRule):
    r"""Gamma rule: contributions of the output's own sign count 1 + gamma times.

    .. math:: R_j = \sum_k \frac{a_j w_{jk} + \gamma (a_j w_{jk})^{\pm}}
        {\sum_i a_i w_{ik} + \gamma (a_i w_{ik})^{\pm} + b_k + \gamma b_k^{\pm}} R_k

    with + where the output is positive and - where it is negative.

    Args:
        stabilizer: Guards the division.
        gamma: 0 is the epsilon rule, infinity the z+ rule.

    Reference:
        Montavon et al. (2019), Explainable AI, LNCS 11700:193-209; for signed values Andéol et al.
        (2021), "Learning domain invariant representations by joint Wasserstein distance".
    """

    def __init__(self, stabilizer: Stabilizer | None = None, *, gamma: float = 0.25) -> None:
        super().__init__(stabilizer)
        if gamma < 0:
            raise ConfigError(f"gamma must be at least 0, got {gamma}. Use 0.25.")
        self.gamma = gamma

    def copy(self) -> Self:
        """Return a fresh rule with the same gamma."""
        return type(self)(self.stabilizer, gamma=self.gamma)

    def distribute(self, call: LayerCall, gradient: Tensor) -> Tensor:
        """Return the coefficient of the layer's values."""
        weight, bias, positive = call.weight(), call.bias(), call.output > 0
        raised = weight + self.gamma * weight.clamp(min=0)
        lowered = weight + self.gamma * weight.clamp(max=0)
        raised_bias = None if bias is None else bias + self.gamma * bias.clamp(min=0)
        own = gradient * positive
        shares = call.shares(own, respond(call, raised, lowered, raised_bias))
        result = spread(call, shares, raised, lowered)
        other = gradient * (call.output < 0)
        if not bool(other.detach().any()):  # behind ReLU, no negative output has a coefficient
            return result
        lowered_bias = None if bias is None else bias + self.gamma * bias.clamp(max=0)
        shares = call.shares(other, respond(call, lowered, raised, lowered_bias))
        return result + spread(call, shares, lowered, raised)


class WSquare(WeightRule):
    r"""w-square rule: shares by the squared weight alone.

    .. math:: R_j = \sum_k \frac{w_{jk}^2}{\sum_i w_{ik}^2 + b_k^2} R_k

    Reference:
        Montavon et al. (2017), Pattern Recognition 65:211-222.
    """

    emits_relevance = True

    def distribute(self, call: LayerCall, gradient: Tensor) -> Tensor:
        """Return the relevance of the layer's values."""
        weight, bias = call.weight().square(), call.bias()
        ones = torch.ones_like(call.values[:1])
        response = call.respond(ones, weight, None if bias is None else bias.square())
        return call.spread(call.shares(gradient, response), weight)


class ZBox(WeightRule):
    r"""z-box rule, for values known to lie in a box.

    .. math:: R_j = \sum_k \frac{x_j w_{jk} - l_j w_{jk}^+ - h_j w_{jk}^-}
        {\sum_i x_i w_{ik} - l_i w_{ik}^+ - h_i w_{ik}^-} R_k

    Args:
        stabilizer: Guards the division.
        low: Smallest possible value, or one a channel.
        high: Largest possible value, or one a channel.

    Reference:
        Montavon et al. (2017), Pattern Recognition 65:211-222.
    """

    emits_relevance = True

    def __init__(
        self, stabilizer: Stabilizer | None = None, *, low: Bound = -4.0, high: Bound = 6.0
    ) -> None:
        super().__init__(stabilizer)
        self.low, self.high = torch.as_tensor(low), torch.as_tensor(high)
        if not bool((self.low < self.high).all()):
            raise ConfigError(
                f"low must lie below high: expected low < high in each channel, got low={low}, "
                f"high={high}. Set both to the input's range after normalisation."
            )

    def copy(self) -> Self:
        """Return a fresh rule with the same box."""
        return type(self)(self.stabilizer, low=self.low, high=self.high)

    def distribute(self, call: LayerCall, gradient: Tensor) -> Tensor:
        """Return the relevance of the layer's values."""
        values, weight = call.values, call.weight()
        above, below = weight.clamp(min=0), weight.clamp(max=0)
        low, high = (_bound(bound, values) for bound in (self.low, self.high))
        floor = call.respond(low, above, None) + call.respond(high, below, None)
        response = call.respond(values, weight, None) - floor
        shares = call.shares(gradient, response)
        return (
            values * call.spread(shares, weight)
            - low * call.spread(shares, above)
            - high * call.spread(shares, below)
        )


def _bound(bound: Tensor, values: Tensor) -> Tensor:
    """One sample of the shape of ``values`` that holds the bound everywhere, or a channel's own."""
    bound = bound.to(values)
    if bound.ndim == 1:
        bound = bound.view(1, -1, *[1] * (values.ndim - 2))
    try:
        return bound.expand_as(values[:1])
    except RuntimeError as error:
        raise ConfigError(
            f"low and high hold one value, or one a channel: expected 1 or {values.shape[1]} "
            f"values, got {bound.numel()}. Give one number for all channels."
        ) from error


class Flat(WeightRule):
    r"""Flat rule: every value that a neuron reads gets the same share.

    .. math:: R_j = \sum_k \frac{R_k}{n_k}

    where n_k is the number of values that neuron k reads; padding does not count.

    Reference:
        Lapuschkin et al. (2019), Nature Communications 10:1096.
    """

    emits_relevance = True

    def distribute(self, call: LayerCall, gradient: Tensor) -> Tensor:
        """Return the relevance of the layer's values."""
        weight = torch.ones_like(call.weight())
        count = call.linear.apply(torch.ones_like(call.values[:1]), weight)
        return call.spread(call.shares(gradient, count), weight)


def respond(call: LayerCall, above: Tensor, below: Tensor, bias: Tensor | None) -> Tensor:
    """Return the response to positive values through one weight, to negative through another."""
    if call.nonnegative:
        return call.respond(call.values, above, bias)
    positive, negative = call.values.clamp(min=0), call.values.clamp(max=0)
    return call.respond(positive, above, bias) + call.respond(negative, below, None)


def spread(call: LayerCall, shares: Tensor, above: Tensor, below: Tensor) -> Tensor:
    """Return coefficients of positive values through one weight, of negative through another."""
    if call.nonnegative:
        return call.spread(shares, above)
    positive = call.values > 0
    return torch.where(positive, call.spread(shares, above), call.spread(shares, below))
