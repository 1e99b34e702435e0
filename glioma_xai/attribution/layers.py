"""Weight layers as linear maps of live tensors: W a + b, and its transpose W^T q."""

from typing import Any, cast

import torch
from torch import Tensor, nn
from torch.autograd.function import FunctionCtx
from torch.nn import functional

from glioma_xai.attribution.batches import Batchable
from glioma_xai.errors import CompatibilityError

Convolution = nn.Conv1d | nn.Conv2d | nn.Conv3d
CONVOLUTIONS = (nn.Conv1d, nn.Conv2d, nn.Conv3d)
WEIGHT_LAYERS = (*CONVOLUTIONS, nn.Linear)

_CONVOLVE = {1: functional.conv1d, 2: functional.conv2d, 3: functional.conv3d}


class _TransposeContext(FunctionCtx):
    """What the transposed convolution keeps for its own backward."""

    saved_tensors: tuple[Tensor, ...]
    linear: "LinearMap"


class _TransposedConvolution(Batchable):
    """W^T q with the kernels of a convolution's input gradient, and their kernels backward.

    Differentiating ``aten::convolution_backward`` itself costs 2.5 times as much: its double
    backward rebuilds the weight gradient as a convolution with an image-sized kernel.
    """

    @staticmethod
    def forward(  # type: ignore[override]
        shares: Tensor, weight: Tensor, like: Tensor, linear: "LinearMap"
    ) -> Tensor:
        """Return the result."""
        return linear.convolution_backward(shares, like, weight, "input")

    @staticmethod
    def setup_context(  # type: ignore[override]
        ctx: _TransposeContext, inputs: tuple[Any, ...], output: Tensor
    ) -> None:
        """Keep what backward needs."""
        shares, weight, _, ctx.linear = inputs
        ctx.save_for_backward(shares, weight)

    @staticmethod
    def backward(  # type: ignore[override]
        ctx: _TransposeContext, gradient: Tensor
    ) -> tuple[Tensor | None, Tensor | None, None, None]:
        """Return the gradients."""
        shares, weight = ctx.saved_tensors
        needs_shares, needs_weight = ctx.needs_input_grad[:2]  # type: ignore[attr-defined]
        linear = ctx.linear
        to_shares = linear.apply(gradient, weight) if needs_shares else None
        to_weight = (
            linear.convolution_backward(shares, gradient, weight, "weight")
            if needs_weight
            else None
        )
        return to_shares, to_weight, None, None

    @classmethod
    def several(cls, inputs: tuple[Any, ...], targets: int) -> Tensor:
        """Return the result for all targets; the first input holds them as one batch."""
        shares, weight, like, linear = inputs
        like = like[:1].expand(len(shares), *like.shape[1:])
        return super().several((shares, weight, like, linear), targets)


class LinearMap:
    """The geometry of a convolution or linear layer, applied to any weight and input.

    Args:
        module: Conv1d, Conv2d, Conv3d or Linear; its weight is not looked at.
    """

    def __init__(self, module: nn.Module) -> None:
        self.is_convolution = isinstance(module, CONVOLUTIONS)
        self.groups = 1
        if isinstance(module, CONVOLUTIONS):
            self.groups = module.groups
            self.dims = len(module.kernel_size)
            self.stride = module.stride
            self.dilation = module.dilation
            self.padding = _padding(module)

    def apply(self, values: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
        """Return W a + b."""
        if not self.is_convolution:
            return functional.linear(values, weight, bias)
        return _CONVOLVE[self.dims](
            values, weight, bias, self.stride, self.padding, self.dilation, self.groups
        )

    def transpose(self, shares: Tensor, weight: Tensor, like: Tensor) -> Tensor:
        """Return W^T q in the shape of ``like``, differentiable in q and W."""
        if not self.is_convolution:
            return shares @ weight
        like = like.detach()  # only its shape and memory format are used
        return cast(Tensor, _TransposedConvolution.apply(shares, weight, like, self))

    def convolution_backward(
        self, shares: Tensor, values: Tensor, weight: Tensor, wanted: str
    ) -> Tensor:
        """Return the gradient of a convolution for its ``"input"`` or its ``"weight"``."""
        to_input, to_weight, _ = torch.ops.aten.convolution_backward(
            shares,
            values,
            weight,
            None,
            self.stride,
            self.padding,
            self.dilation,
            False,
            [0] * self.dims,
            self.groups,
            [wanted == "input", wanted == "weight", False],
        )
        result: Tensor = to_input if wanted == "input" else to_weight
        return result

    def scale_inputs(self, weight: Tensor, scale: Tensor) -> Tensor:
        """Multiply the weights that read input channel j by ``scale[j]``.

        A scale of one value a channel in front of a linear layer that reads flattened feature maps
        is repeated for every position.
        """
        readers = weight.shape[1] * self.groups
        scale = scale.repeat_interleave(readers // scale.numel())
        if self.groups > 1:
            per_group = scale.view(self.groups, 1, -1)
            scale = per_group.expand(-1, weight.shape[0] // self.groups, -1).flatten(0, 1)  # O I/g
        else:
            scale = scale.view(1, -1)
        return weight * scale.view(*scale.shape, *[1] * (weight.ndim - 2))

    def scale_outputs(self, weight: Tensor, scale: Tensor) -> Tensor:
        """Multiply the weights of output channel k by ``scale[k]``."""
        return weight * scale.view(-1, *[1] * (weight.ndim - 1))


def _padding(module: Convolution) -> tuple[int, ...]:
    """Return the zeros added on each side of each axis."""
    if not isinstance(module.padding, str):
        return module.padding
    if module.padding == "valid":
        return (0,) * len(module.kernel_size)
    extent = [d * (k - 1) for d, k in zip(module.dilation, module.kernel_size, strict=True)]
    if any(size % 2 for size in extent):
        raise CompatibilityError(
            f"padding='same' must be the same on both sides: expected an odd kernel_size, got "
            f"{module.kernel_size} with dilation {module.dilation}. Pad with nn.ZeroPad2d first."
        )
    return tuple(size // 2 for size in extent)
