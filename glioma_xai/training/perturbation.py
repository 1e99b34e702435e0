"""A small change of the inputs at which relevance is guided: drawn at random, or the worst one."""

from collections.abc import Callable, Sequence
from typing import Literal

import numpy as np
import torch
from torch import Tensor

from glioma_xai.losses.backgrounds import Stream, sample_generators

Perturbation = Literal["none", "random", "worst"]


def perturbed(
    images: Tensor,
    loss_of: Callable[[Tensor], Tensor],
    *,
    perturbation: Perturbation,
    radius: float,
    index: Tensor,
    key: Sequence[int],
) -> Tensor:
    r"""Inputs no pixel of which is further than ``radius`` from what it was.

    .. math:: x' = x + r u, \quad u \sim U[-1, 1] \quad \text{("random")}

        x' = x + r \, \text{sign}(\partial L / \partial x) \quad \text{("worst")}

    "worst" is the largest guidance loss within the radius to first order. It costs a relevance pass
    and its second backward pass more, and leaves no gradient in the network.

    Args:
        images: (B, C, H, W[, D]).
        loss_of: Guidance loss of images, differentiable, (B,).
        perturbation: ``none`` returns the images.
        radius: In units of the normalised image, >= 0.
        index: Each sample's key for randomness, (B,) int64.
        key: Seed, epoch and the like.

    Returns:
        (B, C, H, W[, D]), without a graph.

    Reference:
        Goodfellow, Shlens and Szegedy (2015), ICLR (the sign of the gradient); Wicker, Heo,
        Costabello and Weller (2023), ICLR (explanations that hold around an input).
    """
    if perturbation == "none":
        return images
    if perturbation == "random":
        shape = tuple(images.shape[1:])
        drawn = [
            torch.from_numpy(generator.uniform(-1, 1, shape).astype(np.float32))
            for generator in sample_generators(index, key, Stream.CHANGE)
        ]
        return images + radius * torch.stack(drawn).to(images)
    start = images.detach().requires_grad_()
    with torch.enable_grad():
        loss = loss_of(start).sum()
    with torch.autocast(images.device.type, enabled=False):  # relevance's own backward heeds it
        (slope,) = torch.autograd.grad(loss, start)
    return images + radius * slope.sign()
