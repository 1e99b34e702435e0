"""One call of a convolution or linear layer, with its live weights and the BatchNorms around it."""

from typing import Protocol, cast

import torch
from torch import Tensor, nn

from glioma_xai.attribution.batchnorm import Affine
from glioma_xai.attribution.calls import Call, Rule, as_channels, kept
from glioma_xai.attribution.layers import LinearMap
from glioma_xai.attribution.provenance import is_nonnegative
from glioma_xai.attribution.stabilizer import Sign
from glioma_xai.attribution.tape import FoldedNorm


class WeightRule(Rule, Protocol):
    """The rule of a convolution or linear layer."""

    def distribute(self, call: "LayerCall", gradient: Tensor) -> Tensor:
        """Return the coefficient of the call's values, or their relevance."""


class LayerCall(Call):
    """One call of a convolution or linear layer, with the BatchNorms that fold into it.

    With a BatchNorm in front and one behind, the call stands for the three together: its weight is
    W * scale_in * scale_out, its values are what the first BatchNorm read (after dropout's mask),
    its output is what the second put out.

    Args:
        rule: Distributes the relevance.
        module: The weight layer.
        values: What the layer read.
        output: What the layer put out.
        norm: BatchNorm in front, whose shift counts as bias; None without.
        pixels: The model's input if the layer reads it; None if it does not.
        attached: ``values`` before they were cut off from autograd's graph, if they were.
    """

    rule: WeightRule

    def __init__(
        self,
        rule: WeightRule,
        module: nn.Module,
        *,
        values: Tensor,
        output: Tensor,
        norm: FoldedNorm | None = None,
        pixels: Tensor | None = None,
        attached: Tensor | None = None,
    ) -> None:
        super().__init__(rule, values=values if norm is None else norm.value, output=output)
        self.linear = LinearMap(module)
        self.pixels = pixels
        self._attached = attached
        self._module = module
        self._read: Tensor | None = values
        self._norm = norm
        self._outer: Affine | None = None
        self._nonnegative: bool | None = None

    def normalized(self, outer: Affine, output: Tensor) -> "LayerCall":
        """Return this call together with the BatchNorm that read its output."""
        call = LayerCall(
            self.rule,
            self._module,
            values=kept(self._read),
            output=output,
            norm=self._norm,
            pixels=self.pixels,
            attached=self._attached,
        )
        call._outer = outer
        return call

    @property
    def source(self) -> Tensor:
        """The tensor that receives the coefficients, or the relevance."""
        if self.rule.emits_relevance and self.rule.coefficients and self.pixels is not None:
            return self.pixels
        return self.values if self._attached is None else self._attached

    @property
    def nonnegative(self) -> bool:
        """True if no value can be negative; False if that is not known."""
        if self._nonnegative is None:
            self._nonnegative = is_nonnegative(self.values)
        return self._nonnegative

    def _parameters(self) -> tuple[Tensor, Tensor | None]:
        return cast(Tensor, self._module.weight), cast("Tensor | None", self._module.bias)

    def _respond_again(self) -> Tensor:
        if self._outer is not None:
            return self._outer.apply()
        return self.linear.apply(kept(self._read), *self._parameters())

    def weight(self) -> Tensor:
        """Return the weight with the BatchNorms' scales in it."""
        weight, _ = self._parameters()
        if self._norm is not None:
            scale, _ = self._norm.affine.scale_and_shift()
            weight = self.linear.scale_inputs(weight, scale)
        if self._outer is not None:
            scale, _ = self._outer.scale_and_shift()
            weight = self.linear.scale_outputs(weight, scale)
        return weight

    def bias(self) -> Tensor | None:
        """Return what is added to W a: (O,); or (1 or B, O, ...) where a folded shift met a border.

        The shift of a BatchNorm in front passes dropout's mask and the layer's zero padding, so
        near the border and under dropout it adds less than inside.
        """
        weight, bias = self._parameters()
        if self._norm is not None:
            _, shift = self._norm.affine.scale_and_shift()
            shifted = self.linear.scale_inputs(weight, shift)
            bias = self.linear.apply(self._norm.passed(), shifted, bias)
        if self._outer is None:
            return bias
        scale, shift = self._outer.scale_and_shift()
        if bias is None:
            return shift
        if bias.ndim > 1:
            scale, shift = as_channels(scale, bias.ndim), as_channels(shift, bias.ndim)
        return bias * scale + shift

    def respond(self, values: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        """Return weight * values + bias, for modified weights, values and bias."""
        if bias is None or bias.ndim == 1:
            return self.linear.apply(values, weight, bias)
        return self.linear.apply(values, weight) + bias

    def release(self) -> None:
        """Let go of all tensors: the relevance pass is over."""
        super().release()
        self._read = self._attached = self._norm = self._outer = self.pixels = None

    def hand_on(
        self,
        gradient: Tensor,
        weight: Tensor,
        response: Tensor | None = None,
        *,
        sign: Sign = 0,
        values: Tensor | None = None,
    ) -> Tensor:
        """Return weight^T * shares, in the shape of the values.

        Args:
            gradient: What the backward pass carries.
            weight: Modified weight, or several side by side.
            response: The shares' denominator; None for the output itself.
            sign: Of every response, where it is known.
            values: What several weights side by side have read, in their place.
        """
        like = self.values if values is None else values
        division = self.division(response, sign=sign) if self.linear.is_convolution else None
        if division is not None:
            return division.spread(gradient, weight, like, self.linear)
        return self.linear.transpose(self.shares(gradient, response, sign=sign), weight, like)

    def propagate(self, gradient: Tensor) -> Tensor:
        """Return the source's coefficient, or its relevance where the rule emits that."""
        result = self.rule.distribute(self, gradient)
        if self.rule.emits_relevance:
            return result.reshape(self.source.shape)
        return result if self.rule.coefficients else self.values * result


class SignedValues:
    """A layer's positive and its negative values, which meet weights of their own.

    Both go through one convolution with twice the channels; where no value can be negative, the
    values go through alone.

    Args:
        call: Of the layer.
    """

    def __init__(self, call: LayerCall) -> None:
        self._call = call
        self._groups = call.linear.groups
        self._axis = 2 if call.linear.is_convolution else -1
        self._values = call.values
        if not call.nonnegative:
            values = self._split(call.values)
            both = torch.cat([values.clamp(min=0), values.clamp(max=0)], self._axis)
            self._values = self._join(both)

    def _split(self, values: Tensor) -> Tensor:
        return torch.unflatten(values, 1, (self._groups, -1)) if self._axis == 2 else values

    def _join(self, values: Tensor) -> Tensor:
        return values.flatten(1, 2) if self._axis == 2 else values

    def weight(self, above: Tensor, below: Tensor) -> Tensor:
        """Return the weights that positive and negative values meet, side by side."""
        return above if self._call.nonnegative else torch.cat([above, below], 1)

    def respond(self, weight: Tensor, bias: Tensor | None) -> Tensor:
        """Return the response of both."""
        return self._call.respond(self._values, weight, bias)

    def hand_on(
        self, gradient: Tensor, weight: Tensor, response: Tensor, *, sign: Sign = 0
    ) -> Tensor:
        """Return each value's coefficient, by the weights that it met."""
        call = self._call
        result = call.hand_on(gradient, weight, response, sign=sign, values=self._values)
        if call.nonnegative:
            return result
        above, below = self._split(result).chunk(2, self._axis)
        return self._join(torch.where(self._split(call.values) > 0, above, below))
