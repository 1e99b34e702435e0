"""What autograd's graph proves about a tensor: its sign, and who reads it."""

from collections.abc import Iterator
from typing import cast

import torch
from torch import Tensor

# Nodes of autograd's graph that keep a non-negative tensor non-negative.
_SIGN_KEEPING = (
    "AdaptiveAvgPool",
    "AdaptiveMaxPool",
    "AsStrided",
    "AvgPool",
    "Cat",
    "Clone",
    "Contiguous",
    "Expand",
    "MaxPool",
    "Mean",
    "MkldnnAdaptiveAvgPool",
    "Permute",
    "Relay",
    "ReshapeAlias",
    "Slice",
    "Squeeze",
    "Sum",
    "Transpose",
    "Unsqueeze",
    "UnsafeView",
    "View",
)
NONNEGATIVE_FACTOR = "glioma_xai.nonnegative_factor"


def is_nonnegative(tensor: Tensor) -> bool:
    """Return whether autograd's graph proves that no value of ``tensor`` is negative.

    True for what ReLU put out, module or function, and for what pools, views, dropout, sums and
    concatenation made of it. No value is looked at, so nothing waits for the device. False means
    unknown, and a rule then uses its two-sided form, which is right for either sign.
    """
    return _node_is_nonnegative(tensor.grad_fn)


def _node_is_nonnegative(node: torch.autograd.graph.Node | None) -> bool:
    if node is None:
        return False
    name = node.name().removeprefix("torch::autograd::").lstrip("_")
    if name.startswith("Relu"):
        return True
    parents = [parent for parent, _ in node.next_functions]
    if name.startswith("Relay"):  # its first parent made the values, its second gets relevance
        return _node_is_nonnegative(parents[0])
    if name.startswith("AddBackward"):
        return node._saved_alpha >= 0 and all(map(_node_is_nonnegative, parents))  # type: ignore[attr-defined]
    if NONNEGATIVE_FACTOR in cast(dict[str, bool], node.metadata):
        return _node_is_nonnegative(parents[0])
    return name.startswith(_SIGN_KEEPING) and all(map(_node_is_nonnegative, parents))


def read_by_relu_alone(root: Tensor) -> Iterator[tuple[torch.autograd.graph.Node, Tensor]]:
    """Yield each relay whose output only a ReLU reads, and what that ReLU put out.

    Such an output has a coefficient only where ReLU let it pass; there both hold the same values,
    so the relay need not keep its own.

    Args:
        root: The model's output.
    """
    readers: dict[torch.autograd.graph.Node, list[torch.autograd.graph.Node]] = {}
    stack, seen = [root.grad_fn], {root.grad_fn}
    while stack:
        node = stack.pop()
        for parent, _ in node.next_functions if node is not None else ():
            if parent is None:
                continue
            if hasattr(parent, "propagation"):
                readers.setdefault(parent, []).append(cast(torch.autograd.graph.Node, node))
            if parent not in seen:
                seen.add(parent)
                stack.append(parent)
    for relay, found in readers.items():
        if len(found) == 1 and found[0].name().startswith("ReluBackward"):
            yield relay, cast(Tensor, found[0]._saved_result)  # type: ignore[attr-defined]
