"""Which layers relevance can pass, and what to do about the others."""

from collections.abc import Collection, Iterable, Iterator
from contextlib import contextmanager

import torch
from torch import nn

from glioma_xai.attribution.batchnorm import BATCH_NORMS
from glioma_xai.attribution.layers import CONVOLUTIONS, WEIGHT_LAYERS
from glioma_xai.errors import CompatibilityError
from glioma_xai.records import Problem

AVERAGE_POOLS = (
    nn.AvgPool1d,
    nn.AvgPool2d,
    nn.AvgPool3d,
    nn.AdaptiveAvgPool1d,
    nn.AdaptiveAvgPool2d,
    nn.AdaptiveAvgPool3d,
)
DROPOUTS = (nn.Dropout, nn.Dropout1d, nn.Dropout2d, nn.Dropout3d)
GATES = (nn.Sigmoid, nn.Hardsigmoid)
VIEWS = (nn.Flatten, nn.Identity)
# Positively homogeneous of degree one: their natural gradient hands coefficients on exactly.
NATURAL = (
    nn.ReLU,
    nn.LeakyReLU,
    nn.PReLU,
    nn.MaxPool1d,
    nn.MaxPool2d,
    nn.MaxPool3d,
    nn.AdaptiveMaxPool1d,
    nn.AdaptiveMaxPool2d,
    nn.AdaptiveMaxPool3d,
    nn.Unflatten,
    nn.ZeroPad1d,
    nn.ZeroPad2d,
    nn.ZeroPad3d,
    nn.ReflectionPad1d,
    nn.ReflectionPad2d,
    nn.ReflectionPad3d,
    nn.ReplicationPad1d,
    nn.ReplicationPad2d,
    nn.ReplicationPad3d,
    nn.Upsample,
    nn.PixelShuffle,
)
COVERED = (*WEIGHT_LAYERS, *BATCH_NORMS, *AVERAGE_POOLS, *DROPOUTS, *VIEWS, *NATURAL)

_ACTIVATION = "is no piecewise-linear activation"
_NORMALIZATION = "normalises by statistics of each sample, through which relevance is not defined"
_REASONS: tuple[tuple[tuple[type[nn.Module], ...], str, str], ...] = (
    (
        (nn.ReLU6, nn.Hardtanh, nn.Threshold, nn.RReLU),
        "is not homogeneous: where it saturates, relevance would vanish",
        "replace it by ReLU or LeakyReLU",
    ),
    (
        GATES,
        _ACTIVATION,
        "replace it by ReLU, or take one that multiplies a signal for a constant with the rule "
        "gate (rules={sigmoid: gate})",
    ),
    (
        (nn.GroupNorm, nn.LayerNorm, nn.modules.instancenorm._InstanceNorm, nn.LocalResponseNorm),
        _NORMALIZATION,
        "replace it by BatchNorm",
    ),
    (
        (nn.modules.conv._ConvTransposeNd,),
        "is a transposed convolution, for which no rule is implemented",
        "replace it by Upsample and a convolution",
    ),
    (
        (nn.RNNBase, nn.RNNCellBase, nn.MultiheadAttention),
        "multiplies activations with each other",
        "use a convolutional network",
    ),
    (
        (nn.Softmax, nn.LogSoftmax, nn.Softmin),
        "turns logits into probabilities",
        "let the model return logits",
    ),
)
_SMOOTH = ("Swish", "MemoryEfficientSwish", "Mish")  # MONAI's own
_ACTIVATION_MODULE = "torch.nn.modules.activation"


def uncovered_modules(model: nn.Module, gates: Collection[str] = ()) -> Iterator[Problem]:
    """Yield each layer of ``model`` that no rule of layer-wise relevance propagation covers.

    Args:
        model: Not run.
        gates: Names of layers whose output multiplies a signal, by the user's word.
    """
    for name, module in model.named_modules():
        path = name or "the model"
        if name in gates:
            continue
        whole = isinstance(module, (*COVERED, nn.MultiheadAttention))  # also with parts of its own
        if whole or not list(module.children()):
            problem = _problem(path, module)
            if problem is not None:
                yield problem


def _problem(path: str, module: nn.Module) -> Problem | None:
    kind = next((kind for kind in type(module).__mro__ if kind in COVERED), None)
    if kind is not None and _computes_otherwise(module, kind):
        return _describe(
            path,
            module,
            f"is a {kind.__name__} with a forward of its own, which no rule knows",
            f"use {kind.__name__} itself, with torch.nn.utils.parametrize for a change of weights",
        )
    if isinstance(module, CONVOLUTIONS) and module.padding_mode != "zeros":
        return _describe(
            path,
            module,
            f"pads with padding_mode={module.padding_mode!r}",
            "use padding_mode='zeros', or a padding layer in front",
        )
    if isinstance(module, nn.MaxPool1d | nn.MaxPool2d | nn.MaxPool3d) and module.return_indices:
        return _describe(path, module, "returns indices", "use return_indices=False")
    if isinstance(module, COVERED):
        return None
    if type(module).forward is nn.Module.forward:
        return None  # a container without children, never called
    for kinds, why, fix in _REASONS:
        if isinstance(module, kinds):
            return _describe(path, module, why, fix)
    if type(module).__module__ == _ACTIVATION_MODULE or type(module).__name__ in _SMOOTH:
        return _describe(path, module, _ACTIVATION, "replace it by ReLU (replace_activations=true)")
    if list(module.parameters(recurse=False)) or type(module).__module__.startswith("torch.nn."):
        why = "is a kind of layer that no rule is implemented for"
        return _describe(path, module, why, "build it from convolutions, linear layers and ReLU")
    return None


def _computes_otherwise(module: nn.Module, kind: type[nn.Module]) -> bool:
    """Return whether the module does something else than the covered class it is made from."""
    return "forward" in vars(module) or any(
        getattr(type(module), name, None) is not getattr(kind, name, None)
        for name in ("forward", "_conv_forward")  # what a convolution's forward calls
    )


def _describe(path: str, module: nn.Module, why: str, fix: str) -> Problem:
    return Problem(
        where=f"{type(module).__name__} at {path}",
        expected="a layer that relevance can pass",
        found=f"one that {why}",
        fix=f"{fix[0].upper()}{fix[1:]}, or choose attribution=gradient.",
    )


def refuse(problems: Iterable[Problem]) -> None:
    """Raise if there is a problem.

    Raises:
        CompatibilityError: Names every problem, one a line.
    """
    found = list(problems)
    if not found:
        return
    lines = [
        f"{problem.where}: {problem.fix[0].lower()}{problem.fix[1:]} Expected {problem.expected}, "
        f"got {problem.found}."
        for problem in found
    ]
    head = [] if len(lines) == 1 else [f"relevance cannot pass {len(lines)} layers:"]
    raise CompatibilityError("\n".join([*head, *lines]))


@contextmanager
def called_by_position(model: nn.Module) -> Iterator[None]:
    """Raise where a covered layer is called with keywords only: hooks would not see what it reads.

    Raises:
        CompatibilityError: Names the layer.
    """

    def look(
        name: str, module: nn.Module, inputs: tuple[object, ...], named: dict[str, object]
    ) -> None:
        if inputs:
            return
        raise CompatibilityError(
            f"{type(module).__name__} at {name or 'the model'} must be called by position: "
            f"expected layer(x), got layer({', '.join(f'{key}=x' for key in named)}). Leave the "
            f"keyword out."
        )

    handles = [
        module.register_forward_pre_hook(
            lambda module, inputs, named, name=name: look(name, module, inputs, named),
            with_kwargs=True,
        )
        for name, module in model.named_modules()
        if isinstance(module, COVERED)
    ]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


def has_inplace(module: nn.Module) -> bool:
    """Return whether the module overwrites what it reads."""
    flag = getattr(module, "inplace", False)
    return isinstance(flag, bool) and flag and not isinstance(module, torch.jit.ScriptModule)
