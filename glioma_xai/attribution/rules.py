"""Layer rules whose relevance can be differentiated with respect to the weights.

Each rule spreads the relevance of a layer's outputs over the values that the layer read, by live
weights: R_j = a_j * sum_k rho(w_jk) * R_k / stabilised(sum_i a_i rho(w_ik) + rho(b_k)).
"""

from collections.abc import Sequence
from typing import Self

import torch
from torch import Tensor

from glioma_xai.attribution.hooks import WeightRule
from glioma_xai.attribution.layer_call import LayerCall, SignedValues
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
        return call.hand_on(gradient, call.weight())


class ZPlus(WeightRule):
    r"""z+ rule: only what raises the output gets relevance.

    .. math:: R_j = \sum_k \frac{(a_j w_{jk})^+}{\sum_i (a_i w_{ik})^+ + b_k^+} R_k

    Reference:
        Montavon et al. (2017), Pattern Recognition 65:211-222; for signed values the alpha1-beta0
        rule of Bach et al. (2015), PLoS ONE 10(7) e0130140.
    """

    def distribute(self, call: LayerCall, gradient: Tensor) -> Tensor:
        """Return the coefficient of the layer's values."""
        weight, bias, signed = call.weight(), call.bias(), SignedValues(call)
        raising = signed.weight(weight.clamp(min=0), weight.clamp(max=0))
        response = signed.respond(raising, None if bias is None else bias.clamp(min=0))
        return signed.hand_on(gradient, raising, response, sign=1)


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
        weight, bias, signed = call.weight(), call.bias(), SignedValues(call)
        above, below = weight.clamp(min=0), weight.clamp(max=0)
        raising = signed.weight(above, below)
        response = signed.respond(raising, None if bias is None else bias.clamp(min=0))
        raised = signed.hand_on(gradient, self.alpha * raising, response, sign=1)
        if self.alpha == 1:
            return raised
        lowering = signed.weight(below, above)
        response = signed.respond(lowering, None if bias is None else bias.clamp(max=0))
        return raised + signed.hand_on(gradient, (1 - self.alpha) * lowering, response, sign=-1)


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
        if call.rectified is not None:  # only positive outputs have a coefficient
            return self._part(call, gradient, max_side=True)
        output = call.output
        own = self._part(call, gradient * (output > 0), max_side=True)
        return own + self._part(call, gradient * (output < 0), max_side=False)

    def _part(self, call: LayerCall, gradient: Tensor, *, max_side: bool) -> Tensor:
        """Coefficients from the outputs of one sign."""
        weight, bias, signed = call.weight(), call.bias(), SignedValues(call)
        raised = weight + self.gamma * weight.clamp(min=0)
        lowered = weight + self.gamma * weight.clamp(max=0)
        sides = (raised, lowered) if max_side else (lowered, raised)
        chosen = signed.weight(*sides)
        if bias is not None:
            part = bias.clamp(min=0) if max_side else bias.clamp(max=0)
            bias = bias + self.gamma * part
        return signed.hand_on(gradient, chosen, signed.respond(chosen, bias))


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
        return call.hand_on(gradient, weight, response)


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
        to_above = (values - low) * call.hand_on(gradient, above, response)
        return to_above + (values - high) * call.hand_on(gradient, below, response)


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
        if not call.linear.is_convolution:
            return call.hand_on(gradient, weight, weight[:, :1].T * weight.shape[1])
        return self._by_windows(call, gradient, weight)

    def _by_windows(self, call: LayerCall, gradient: Tensor, weight: Tensor) -> Tensor:
        """Add up the output channels first: they all share with the same window."""
        groups, values, each = call.linear.groups, call.values, weight.shape[1]
        window = weight[:groups, :1].contiguous()  # G 1 h w
        ones = torch.ones_like(values[:1, :groups])
        count = each * call.linear.apply(ones, window)  # 1 G h w
        shares = self.stabilizer.divide(call.total(gradient, groups), count)
        spread = call.linear.transpose(shares, window, values[:, :groups])
        return spread.repeat_interleave(each, 1)
