"""BatchNorm as a live affine map whose statistics the relevance pass holds fixed."""

from typing import cast

import torch
from torch import Tensor, distributed, nn

BATCH_NORMS = (nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d, nn.SyncBatchNorm)
BatchNorm = nn.BatchNorm1d | nn.BatchNorm2d | nn.BatchNorm3d | nn.SyncBatchNorm


def uses_batch_statistics(module: BatchNorm) -> bool:
    """Return whether a forward pass normalises by the batch, not by running statistics."""
    return module.training or module.running_mean is None


class Affine:
    """Scale and shift of one call of a BatchNorm: output = scale * input + shift.

    The relevance pass treats both as constants, as a network in use would. They stay functions of
    the weights, batch statistics included, so a loss on relevance is differentiated through them.

    Args:
        module: The BatchNorm.
        values: Its input, (B, C, ...).
    """

    def __init__(self, module: BatchNorm, values: Tensor) -> None:
        self._module = module
        self._values = values
        self._batch = uses_batch_statistics(module)
        self._known: dict[bool, tuple[Tensor, Tensor]] = {}

    def scale_and_shift(self) -> tuple[Tensor, Tensor]:
        """Return scale and shift, (C,) each, in the graph if gradients are recorded now."""
        recording = torch.is_grad_enabled()
        if recording not in self._known:
            self._known[recording] = self._compute()
        return self._known[recording]

    def _compute(self) -> tuple[Tensor, Tensor]:
        module = self._module
        if self._batch:
            variance, mean = _batch_statistics(module, self._values)
        else:
            variance = cast(Tensor, module.running_var)
            mean = cast(Tensor, module.running_mean)
        scale = torch.rsqrt(variance + module.eps)
        if not module.affine:
            return scale, -mean * scale
        scale = module.weight * scale
        return scale, module.bias - mean * scale

    def ones(self) -> Tensor:
        """Return ones in the shape of one sample of the output, (1, C, ...)."""
        return torch.ones_like(self._values[:1], requires_grad=False)

    def apply(self) -> Tensor:
        """Return the BatchNorm's output, computed anew."""
        scale, shift = self.scale_and_shift()
        axes = [1] * (self._values.ndim - 2)
        return self._values * scale.view(1, -1, *axes) + shift.view(1, -1, *axes)


def _batch_statistics(module: BatchNorm, values: Tensor) -> tuple[Tensor, Tensor]:
    """Return variance and mean, (C,) each, over all processes for a SyncBatchNorm."""
    axes = [0, *range(2, values.ndim)]
    variance, mean = torch.var_mean(values, axes, correction=0)
    if not isinstance(module, nn.SyncBatchNorm) or not distributed.is_initialized():
        return variance, mean
    from torch.distributed.nn.functional import all_reduce  # differentiable, unlike the plain one

    group = module.process_group or distributed.group.WORLD
    count = mean.new_full((1,), values.numel() / values.shape[1])
    sums = all_reduce(torch.cat([mean * count, count]), group=group)  # type: ignore[no-untyped-call]
    joint = sums[:-1] / sums[-1]
    squares = (variance + (mean - joint).square()) * count
    total = all_reduce(squares, group=group)  # type: ignore[no-untyped-call]
    return total / sums[-1], joint
