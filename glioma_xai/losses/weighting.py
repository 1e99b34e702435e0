"""A guidance weight found from the gradients instead of being set by hand."""

from collections.abc import Iterable

import torch
from torch import Tensor, nn


def gradient_norm(loss: Tensor, parameters: Iterable[nn.Parameter]) -> Tensor:
    """Euclidean norm of a loss's gradient over all parameters; the graph is kept.

    Args:
        loss: Scalar.
        parameters: Those that do not take part, or are frozen, count as 0.

    Returns:
        Scalar, detached; 0 if the loss depends on none of them.
    """
    trained = [parameter for parameter in parameters if parameter.requires_grad]
    if not loss.requires_grad or not trained:
        return loss.new_zeros(())
    with torch.autocast(loss.device.type, enabled=False):  # relevance's own backward heeds it
        gradients = torch.autograd.grad(loss, trained, retain_graph=True, allow_unused=True)
    present = [gradient.flatten() for gradient in gradients if gradient is not None]
    return torch.cat(present).norm() if present else loss.new_zeros(())


def balancing_factor(
    classification: Tensor, guidance: Tensor, parameters: Iterable[nn.Parameter]
) -> Tensor:
    r"""Factor that gives the guidance gradient the norm of the classification gradient.

    .. math:: \| \nabla L_{class} \| / \| \nabla L_{guidance} \|

    It costs one more backward pass of each loss. Under DDP each process sees its own batch, so the
    norms are summed over processes and the factor is the same on all of them.

    Args:
        classification: Scalar.
        guidance: Scalar.
        parameters: Of the network.

    Returns:
        Scalar >= 0, detached; 0 where the guidance has no gradient.
    """
    parameters = list(parameters)
    norms = torch.stack([gradient_norm(loss, parameters) for loss in (classification, guidance)])
    if torch.distributed.is_available() and torch.distributed.is_initialized():
        torch.distributed.all_reduce(norms)
    return torch.where(norms[1] > 0, norms[0] / torch.where(norms[1] > 0, norms[1], 1), 0)
