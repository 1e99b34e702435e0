"""Shares c * z / (d + epsilon sign d) in few passes over memory, with few tensors kept for later.

c is the coefficient of a layer's output z, and d the denominator of its rule. Under the epsilon
rule d is z itself and the share c * |z| / (|z| + epsilon). The functions keep c, z and d for their
backward and compute the share anew there, since it is as large as they are. Under
``torch.func.vmap`` the coefficients of K targets come as one batch of K * B.
"""

from dataclasses import dataclass
from typing import Any, cast

import torch
from torch import Tensor
from torch.autograd.function import FunctionCtx, once_differentiable

from glioma_xai.attribution.batches import Batchable, added, apart, together
from glioma_xai.attribution.layers import LinearMap
from glioma_xai.attribution.stabilizer import Sign

Gradients = tuple[Tensor | None, ...]


@dataclass(frozen=True)
class Division:
    """What coefficients are multiplied with.

    Args:
        carrier: What receives the gradient in z; its values are not looked at.
        output: z's values wherever the coefficient is not 0.
        denominator: d, in the shape of z; None for z itself.
        epsilon: One number, or (B, 1, ...).
        sign: That of every denominator, where it is known.
    """

    carrier: Tensor
    output: Tensor
    denominator: Tensor | None
    epsilon: Tensor | float
    sign: Sign = 0

    def scale(self, coefficient: Tensor) -> Tensor:
        """Return the shares."""
        return cast(Tensor, _Scale.apply(coefficient, *self._inputs()))

    def spread(
        self, coefficient: Tensor, weight: Tensor, like: Tensor, linear: LinearMap
    ) -> Tensor:
        """Return weight^T * shares in the shape of ``like``, for a convolution."""
        like = like.detach()  # only its shape and memory format are used
        inputs = (coefficient, *self._inputs(), weight, like, linear)
        return cast(Tensor, _Spread.apply(*inputs))

    def _inputs(self) -> tuple[Tensor | float | None, ...]:
        return self.carrier, self.output, self.denominator, self.epsilon, self.sign


class _Context(FunctionCtx):
    saved_tensors: tuple[Tensor, ...]
    linear: LinearMap
    epsilon: float
    sign: Sign


def _keep(ctx: _Context, inputs: tuple[Any, ...], *others: Tensor) -> None:
    coefficient, _, output, denominator, epsilon, ctx.sign = inputs[:6]
    tensor = epsilon if isinstance(epsilon, Tensor) else None
    ctx.epsilon = 0.0 if isinstance(epsilon, Tensor) else epsilon
    ctx.save_for_backward(coefficient, output, denominator, tensor, *others)  # type: ignore[arg-type]


def _distance(output: Tensor, epsilon: Tensor | float, sign: Sign) -> tuple[Tensor, Tensor]:
    """Return |z| and |z| + epsilon, which is never 0."""
    smallest = torch.finfo(output.dtype).tiny
    floor = epsilon.clamp(min=smallest) if isinstance(epsilon, Tensor) else max(epsilon, smallest)
    size = output if sign else output.abs()
    return size, size + floor


def _stabilized(denominator: Tensor, epsilon: Tensor | float, sign: Sign) -> Tensor:
    if sign:
        return denominator + sign * epsilon
    if isinstance(epsilon, Tensor):
        return torch.where(denominator < 0, denominator - epsilon, denominator + epsilon)
    stable = denominator.sign().mul_(2 * epsilon).add_(epsilon).clamp_(-epsilon, epsilon)
    return stable.add_(denominator)


def _shares(
    coefficient: Tensor,
    output: Tensor,
    denominator: Tensor | None,
    epsilon: Tensor | float,
    sign: Sign,
) -> Tensor:
    if denominator is None:
        size, ratio = _distance(output, epsilon, sign)
    else:
        size, ratio = output, _stabilized(denominator, epsilon, sign)
    torch.div(size, ratio, out=ratio)
    coefficient = apart(coefficient, output)
    if coefficient.shape == ratio.shape:
        return ratio.mul_(coefficient)
    return (coefficient * ratio).flatten(0, 1)


def _share_gradients(ctx: _Context, gradient: Tensor, *, own: bool) -> Gradients:
    """Gradients in coefficient, z, d and epsilon; None for what is not there.

    Args:
        gradient: In the shares.
        own: It may be overwritten.
    """
    coefficient, output, denominator, tensor, *_ = ctx.saved_tensors
    epsilon = ctx.epsilon if tensor is None else tensor
    flat, gradient = gradient, apart(gradient, output)
    size = output
    if denominator is None:
        size, stable = _distance(output, epsilon, ctx.sign)
    else:
        stable = _stabilized(denominator, epsilon, ctx.sign)
    ratio = size / stable
    to_coefficient = together(gradient * ratio, flat)
    coefficient = apart(coefficient, output)
    changed = gradient.mul_(coefficient) if own else gradient * coefficient
    to_output = added(changed.div_(stable), output)
    to_denominator = ratio.mul_(to_output).neg_()
    to_epsilon = None if tensor is None else to_denominator
    if denominator is not None:
        if to_epsilon is not None:
            to_epsilon = added(to_epsilon * stable.sign(), epsilon)
        return to_coefficient, to_output, to_denominator, to_epsilon
    if to_epsilon is not None:
        to_epsilon = added(to_epsilon, epsilon)
    slope = to_output.div_(stable).mul_(epsilon)
    return to_coefficient, slope if ctx.sign else slope.mul_(output.sign()), None, to_epsilon


class _Scale(Batchable):
    """The shares."""

    @staticmethod
    def forward(  # type: ignore[override]
        coefficient: Tensor,
        carrier: Tensor,
        output: Tensor,
        denominator: Tensor | None,
        epsilon: Tensor | float,
        sign: Sign,
    ) -> Tensor:
        """Return the result."""
        return _shares(coefficient, output, denominator, epsilon, sign)

    @staticmethod
    def setup_context(ctx: _Context, inputs: tuple[Any, ...], output: Tensor) -> None:  # type: ignore[override]
        """Keep what backward needs."""
        _keep(ctx, inputs)

    @staticmethod
    @once_differentiable
    def backward(ctx: _Context, gradient: Tensor) -> Gradients:  # type: ignore[override]
        """Return the gradients."""
        to_coefficient, to_output, *others = _share_gradients(ctx, gradient, own=False)
        return to_coefficient, to_output, None, *others, None


class _Spread(Batchable):
    """W^T times the shares."""

    @classmethod
    def several(cls, inputs: tuple[Any, ...], targets: int) -> Tensor:
        """Return the result for all targets; the first input holds them as one batch."""
        *others, like, linear = inputs
        like = like[:1].expand(targets * len(like), *like.shape[1:])
        return super().several((*others, like, linear), targets)

    @staticmethod
    def forward(  # type: ignore[override]
        coefficient: Tensor,
        carrier: Tensor,
        output: Tensor,
        denominator: Tensor | None,
        epsilon: Tensor | float,
        sign: Sign,
        weight: Tensor,
        like: Tensor,
        linear: LinearMap,
    ) -> Tensor:
        """Return the result."""
        shares = _shares(coefficient, output, denominator, epsilon, sign)
        return linear.convolution_backward(shares, like, weight, "input")

    @staticmethod
    def setup_context(ctx: _Context, inputs: tuple[Any, ...], output: Tensor) -> None:  # type: ignore[override]
        """Keep what backward needs."""
        *_, weight, _, ctx.linear = inputs
        _keep(ctx, inputs, weight)

    @staticmethod
    @once_differentiable
    def backward(ctx: _Context, gradient: Tensor) -> Gradients:  # type: ignore[override]
        """Return the gradients."""
        coefficient, output, denominator, tensor, weight = ctx.saved_tensors
        to_weight = None
        if ctx.needs_input_grad[6]:  # type: ignore[attr-defined]
            epsilon = ctx.epsilon if tensor is None else tensor
            shares = _shares(coefficient, output, denominator, epsilon, ctx.sign)
            to_weight = ctx.linear.convolution_backward(shares, gradient, weight, "weight")
            del shares
        to_shares = ctx.linear.apply(gradient, weight)  # B O ...
        to_coefficient, to_output, *others = _share_gradients(ctx, to_shares, own=True)
        return to_coefficient, to_output, None, *others, None, to_weight, None, None


class Contraction(Batchable):
    """c * z added up over the output channels of each group: (B, groups, ...)."""

    @staticmethod
    def forward(  # type: ignore[override]
        coefficient: Tensor, carrier: Tensor, output: Tensor, groups: int
    ) -> Tensor:
        """Return the result."""
        product = apart(coefficient, output) * output
        product = together(product, output)
        return product.view(len(product), groups, -1, *product.shape[2:]).sum(2)

    @staticmethod
    def setup_context(ctx: _Context, inputs: tuple[Any, ...], output: Tensor) -> None:  # type: ignore[override]
        """Keep what backward needs."""
        coefficient, _, values, _ = inputs
        ctx.save_for_backward(coefficient, values)

    @staticmethod
    @once_differentiable
    def backward(ctx: _Context, gradient: Tensor) -> Gradients:  # type: ignore[override]
        """Return the gradients."""
        coefficient, output = ctx.saved_tensors
        each = coefficient.shape[1] // gradient.shape[1]
        gradient = gradient.unsqueeze(2).expand(-1, -1, each, *gradient.shape[2:])
        gradient = gradient.reshape(coefficient.shape)
        gradient = apart(gradient, output)
        to_output = added(gradient * apart(coefficient, output), output)
        return together(gradient * output, coefficient), to_output, None, None
