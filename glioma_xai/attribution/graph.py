"""Functions in a model's forward pass that no module shows, found in autograd's graph."""

from collections.abc import Iterator

from torch import Tensor
from torch.autograd.function import BackwardCFunction
from torch.autograd.graph import Node

from glioma_xai.records import Problem

# Positively homogeneous of degree one and piecewise linear: their natural gradient hands
# coefficients on so that the sum of relevance stays. Every other function is refused.
# fmt: off
_PASSED = frozenset({
    # views, copies, and what picks or rearranges values
    "Alias", "AsStrided", "Cat", "ChannelShuffle", "Clone", "Copy", "Diagonal",
    "Expand", "Flip", "Gather", "Index", "IndexSelect", "MaskedSelect", "Permute", "PixelShuffle",
    "PixelUnshuffle", "Repeat", "ReshapeAlias", "Roll", "Rot90", "Select", "Slice", "Split",
    "SplitWithSizes", "Squeeze", "Stack", "T", "Take", "ToCopy", "Transpose", "Tril", "Triu",
    "Unbind", "Unfold", "UnsafeSplit", "UnsafeSplitWithSizes", "UnsafeView", "Unsqueeze", "View",
    # sums and differences, also with a constant, which absorbs its share as a bias does
    "Add", "Col2Im", "ConstantPadNd", "Cumsum", "Im2Col", "IndexAdd", "Mean", "Neg",
    "ReflectionPad1D", "ReflectionPad2D", "ReflectionPad3D", "ReplicationPad1D",
    "ReplicationPad2D", "ReplicationPad3D", "Rsub", "ScatterAdd", "Sub", "Sum",
    # average pools and interpolation
    "AdaptiveAvgPool2D", "AdaptiveAvgPool3D", "AvgPool2D", "AvgPool3D",
    "MkldnnAdaptiveAvgPool2D", "UpsampleBicubic2D", "UpsampleBicubic2DAa", "UpsampleBilinear2D",
    "UpsampleBilinear2DAa", "UpsampleLinear1D", "UpsampleNearest1D", "UpsampleNearest2D",
    "UpsampleNearest3D", "UpsampleNearestExact1D", "UpsampleNearestExact2D",
    "UpsampleNearestExact3D", "UpsampleTrilinear3D",
    # piecewise linear: activations and what picks by size
    "Abs", "AdaptiveMaxPool2D", "AdaptiveMaxPool3D", "Amax", "Amin", "Aminmax", "Cummax", "Cummin",
    "FractionalMaxPool2D", "FractionalMaxPool3D", "Kthvalue", "LeakyRelu", "Max",
    "MaxPool2DWithIndices", "MaxPool3DWithIndices", "Median", "Min", "NativeDropout",
    "PreluKernel", "Relu", "Sort", "Topk",
})
# Linear in one input as long as the others are constants: where each reads the signal.
_LINEAR_IN = {
    "Bmm": (0, 1), "Div": (0,), "GridSampler2D": (0,), "GridSampler3D": (0,), "Mul": (0, 1),
}
# Only if both inputs depend on the image: a constant is a threshold, or fills in what it likes.
_OF_TWO = frozenset({"Fmax", "Fmin", "IndexPut", "Maximum", "Minimum", "Scatter", "Where"})
_CLAMPS = frozenset({"Clamp", "ClampMax", "ClampMin"})  # at 0 they are ReLU
_WEIGHTED = frozenset({
    "Addmm", "Convolution", "CudnnBatchNorm", "Linear", "MiopenBatchNorm", "Mm", "NativeBatchNorm",
})
# fmt: on


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
        while node is not None and _name(node) in ("Add", "View", "UnsafeView", "Squeeze"):
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
            elif name == "CopySlices":
                told.add(name)
                fix = "Write it out of place, for example with torch.cat"
                yield _problem(name, "changes part of a tensor in place, whatever by", fix)
            elif not self._passes(node):
                told.add(name)
                fix = "Use ReLU, sums and concatenation between layers"
                yield _problem(name, "is not known to be homogeneous and piecewise linear", fix)

    def _passes(self, node: Node) -> bool:
        """True if the function hands all relevance on by its natural gradient."""
        name = _name(node)
        parents = [parent for parent, _ in node.next_functions]
        reads = [at for at, p in enumerate(parents) if p is not None and self._depends[p]]
        if name in _CLAMPS:
            bounds = [getattr(node, f"_saved_{end}", None) for end in ("min", "max")]
            return all(bound is None or _is_zero(bound) for bound in bounds)
        if name in _OF_TWO:
            return len(reads) == 2
        if name in _LINEAR_IN:
            rounds = getattr(node, "_saved_rounding_mode", None) is not None
            return len(reads) == 1 and reads[0] in _LINEAR_IN[name] and not rounds
        return name in _PASSED

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
    return node.name().removeprefix("torch::autograd::").lstrip("_").split("Backward")[0]


def _is_zero(bound: object) -> bool:
    return isinstance(bound, int | float) and bound == 0


def _problem(name: str, why: str, fix: str) -> Problem:
    return Problem(
        where=f"function {name.lower()} in the model's forward pass",
        expected="functions that relevance can pass",
        found=f"one that {why}",
        fix=f"{fix}, or choose attribution=gradient.",
    )
