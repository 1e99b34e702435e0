"""Functions in a model's forward pass that no module shows, found in autograd's graph."""

from collections.abc import Iterator

from torch import Tensor
from torch.autograd.function import BackwardCFunction
from torch.autograd.graph import Node

from glioma_xai.records import Problem

# Functions that are not homogeneous of degree one in what they read.
# fmt: off
_NOT_HOMOGENEOUS = frozenset({
    "Bmm", "Celu", "Clamp", "Cos", "Div", "Elu", "Exp", "Gelu", "Hardsigmoid", "Hardswish",
    "Hardtanh", "LinalgVectorNorm", "Log", "LogSigmoid", "LogSoftmax", "Mish", "Mul",
    "NativeGroupNorm", "NativeLayerNorm", "Norm", "Pow", "Reciprocal", "Rsqrt", "Sigmoid",
    "Silu", "Sin", "Softmax", "Softplus", "Sqrt", "Std", "Tanh", "Var",
})
# fmt: on
_OF_TWO = frozenset({"Bmm", "Div", "Mul"})  # so they are if only one factor depends on the image
_WEIGHTED = frozenset({"Addmm", "Convolution", "CudnnBatchNorm", "Mm", "NativeBatchNorm"})


class Graph:
    """Autograd's graph of one forward pass.

    Args:
        image: What the model reads; requires a gradient.
    """

    def __init__(self, image: Tensor) -> None:
        self._image = image
        self._accepted: list[Node] = []
        self._constant: set[Node] = set()
        self._depends: dict[Node, bool] = {}

    def accept(self, output: Tensor, *, gate: bool = False) -> None:
        """Note that a module with a rule of its own made this tensor.

        Args:
            output: Of the module.
            gate: Relevance takes it for a constant.
        """
        if gate and output.grad_fn is not None:
            self._constant.add(output.grad_fn)
        node = output.grad_fn
        while node is not None and _name(node).startswith(("View", "UnsafeView", "Squeeze")):
            self._accepted.append(node)
            node = node.next_functions[0][0]
        if node is not None:
            self._accepted.append(node)

    def problems(self, logits: Tensor) -> Iterator[Problem]:
        """Yield each function between image and logits that relevance cannot pass."""
        accepted, told = set(self._accepted), set()
        for node in self._ordered(logits.grad_fn):
            name = _name(node)
            readers = [p for p, _ in node.next_functions if p is not None and self._depends[p]]
            if not readers or node in accepted or name in told:
                continue
            if name in _WEIGHTED:
                told.add(name)
                yield _problem(name, "has weights but is no layer", "Make it a layer of the model")
            elif isinstance(node, BackwardCFunction):
                told.add(name)
                fix = "Replace it by ReLU (replace_activations=true) if it is an activation"
                yield _problem(name, "has a backward of its own", fix)
            elif name.startswith("ScaledDotProduct") or (
                name in _NOT_HOMOGENEOUS
                and (len(readers) > 1 or name not in _OF_TWO or self._divides(node))
            ):
                told.add(name)
                fix = "Use ReLU, sums and concatenation between layers"
                yield _problem(name, "is not piecewise linear", fix)

    def _divides(self, node: Node) -> bool:
        if len(node.next_functions) < 2:
            return False
        divisor = node.next_functions[-1][0]
        return _name(node) == "Div" and divisor is not None and self._depends[divisor]

    def _ordered(self, root: Node | None) -> list[Node]:
        """All nodes, those nearest to the image first; notes which depend on the image."""
        order: list[Node] = []
        stack = [(root, False)] if root is not None else []
        while stack:
            node, done = stack.pop()
            parents = [parent for parent, _ in node.next_functions if parent is not None]
            if done:
                self._depends[node] = node not in self._constant and (
                    getattr(node, "variable", None) is self._image
                    or any(self._depends[parent] for parent in parents)
                )
                order.append(node)
            elif node not in self._depends:
                self._depends[node] = False
                stack.append((node, True))
                stack += [(parent, False) for parent in parents if parent not in self._depends]
        return order


def _name(node: Node) -> str:
    return node.name().removeprefix("torch::autograd::").split("Backward")[0]


def _problem(name: str, why: str, fix: str) -> Problem:
    return Problem(
        where=f"function {name.lower()} in the model's forward pass",
        expected="functions that relevance can pass",
        found=f"one that {why}",
        fix=f"{fix}, or choose attribution=gradient.",
    )
