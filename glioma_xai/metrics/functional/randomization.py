"""Sanity check: a map that stays the same when the weights are shuffled explains no weights."""

import copy
from collections.abc import Callable

import torch
from torch import Tensor, nn

from glioma_xai.metrics.functional.agreement import Similarity, rank_correlation

Explain = Callable[[nn.Module], Tensor]
"""A network to the relevance of a fixed batch, (B, C, H, W[, D])."""


def weight_randomization(
    model: nn.Module,
    explain: Explain,
    *,
    generator: torch.Generator,
    similarity: Similarity = rank_correlation,
    cascading: bool = True,
    most: int | None = None,
) -> dict[str, Tensor]:
    """Similarity of the relevance to that of networks with shuffled weights, layer by layer.

    The values of each parameter are permuted, so that a layer keeps the distribution of its weights
    and loses what it has learnt. The model itself is not touched.

    Args:
        model: The network, in ``eval()`` mode; its layers are the modules that hold parameters, in
            the order in which they were registered, which should be that from input to output.
        explain: Network to the relevance of the same batch, with the same composite and target.
        generator: Makes the permutations, on the parameters' device.
        similarity: Of two batches of relevance.
        cascading: Shuffle from the output down to the layer; else that layer alone.
        most: Compare at no more layers than this, evenly spread from the output to the input, each
            of a deep network's layers being shuffled all the same; None compares at all.

    Returns:
        Name of the layer to similarity (B,), from the output to the input. A faithful method falls
        towards 0.

    Reference:
        Adebayo et al. (2018), NeurIPS, "Sanity checks for saliency maps". Binder et al. (2023),
        CVPR, show that similarity stays high for trivial reasons too: compare methods, not levels.
    """
    original = explain(model).detach()
    shuffled = copy.deepcopy(model)
    layers = [name for name, module in model.named_modules() if any(True for _ in _own(module))]
    found = {}
    count = len(layers) if most is None else min(most, len(layers))
    compared = {layers[round(i * (len(layers) - 1) / max(1, count - 1))] for i in range(count)}
    for name in reversed(layers):
        if not cascading:
            shuffled = copy.deepcopy(model)
        for parameter in _own(shuffled.get_submodule(name)):
            order = torch.randperm(
                parameter.numel(), generator=generator, device=generator.device
            ).to(parameter.device)
            parameter.data.copy_(parameter.data.flatten()[order].reshape(parameter.shape))
        if name in compared:
            found[name] = similarity(original, explain(shuffled).detach())
    return found


def _own(module: nn.Module) -> list[nn.Parameter]:
    return list(module.parameters(recurse=False))
