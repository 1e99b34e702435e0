"""What layers a network has, and how to replace those that rules of relevance cannot treat."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from glioma_xai.errors import ConfigError

SMOOTH_ACTIVATIONS = ("SiLU", "GELU", "Swish", "MemoryEfficientSwish", "Mish", "Hardswish")


@dataclass(frozen=True)
class Layer:
    """One row of the layer table.

    Args:
        name: Path in the network, as in ``model.named_modules()``.
        kind: Name of the class.
        output_shape: Of one image, without the batch; empty if the layer was not called.
        parameters: Number of parameters.
        trainable: Whether any of them is trained; False for a layer without parameters.
        calls: How often one forward pass calls it.
    """

    name: str
    kind: str
    output_shape: tuple[int, ...]
    parameters: int
    trainable: bool
    calls: int


def layer_table(model: nn.Module, input_shape: Sequence[int]) -> list[Layer]:
    """List the network's layers (modules without children) in the order they are called.

    One image of zeros goes through the network in evaluation mode; mode, BatchNorm statistics and
    hooks are afterwards as before.

    Args:
        model: Any network of one input.
        input_shape: Channels and spatial size, (C, H, W[, D]).

    Returns:
        One row a layer; those that were not called come last.

    Raises:
        ConfigError: If the network cannot take the input.
    """
    leaves = {name: module for name, module in model.named_modules() if not [*module.children()]}
    shapes: dict[str, tuple[int, ...]] = {}
    calls = dict.fromkeys(leaves, 0)

    def record(name: str, output: object) -> None:
        calls[name] += 1
        if isinstance(output, Tensor):
            shapes.setdefault(name, tuple(output.shape[1:]))

    handles = [
        module.register_forward_hook(lambda _, __, output, name=name: record(name, output))
        for name, module in leaves.items()
    ]
    modes = {module: module.training for module in model.modules()}
    reference = next(iter(model.parameters()), torch.empty(0))
    try:
        model.eval()
        with torch.no_grad():
            model(reference.new_zeros(1, *input_shape))
    except (RuntimeError, ValueError) as error:
        raise ConfigError(
            f"the network must take an input of {tuple(input_shape)}, got: {error}. "
            "Check model.input_shape and data.modalities."
        ) from error
    finally:
        for handle in handles:
            handle.remove()
        for module, mode in modes.items():
            module.training = mode
    called = [*shapes, *(name for name in leaves if name not in shapes)]
    return [_row(name, leaves[name], shapes.get(name, ()), calls[name]) for name in called]


def _row(name: str, module: nn.Module, shape: tuple[int, ...], calls: int) -> Layer:
    parameters = [*module.parameters()]
    return Layer(
        name=name,
        kind=type(module).__name__,
        output_shape=shape,
        parameters=sum(parameter.numel() for parameter in parameters),
        trainable=any(parameter.requires_grad for parameter in parameters),
        calls=calls,
    )


def replace_activations(
    model: nn.Module, *, kinds: Sequence[str] = SMOOTH_ACTIVATIONS
) -> dict[str, str]:
    """Put a ReLU in the place of smooth activations, in the network itself.

    The network computes something else afterwards: train it again, or fine-tune it, before use.
    This is never done without being asked for.

    Args:
        model: Changed in place; it must have the activations as modules.
        kinds: Class names to replace.

    Returns:
        Path to the class name of each activation that was replaced; empty if there was none.

    Raises:
        ConfigError: If the network itself is such an activation.
    """
    if type(model).__name__ in kinds:
        raise ConfigError(
            f"replace_activations needs a network, got the activation {type(model).__name__} "
            "itself. Put it into a Sequential."
        )
    replaced = {}
    for path, module in [*model.named_modules()]:
        for name, child in [*module._modules.items()]:  # named_children hides repeated modules
            if child is not None and type(child).__name__ in kinds:
                relu = nn.ReLU()
                relu.training = child.training
                setattr(module, name, relu)
                replaced[f"{path}.{name}".lstrip(".")] = type(child).__name__
    return replaced
