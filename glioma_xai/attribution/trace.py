"""In which order a model calls its layers, and which of them read the image."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from glioma_xai.attribution.batchnorm import BATCH_NORMS
from glioma_xai.attribution.coverage import VIEWS
from glioma_xai.attribution.layers import WEIGHT_LAYERS
from glioma_xai.errors import CompatibilityError


@dataclass(frozen=True)
class Trace:
    """One forward pass in eval mode.

    Args:
        order: Weight layers in the order of their first call.
        first: Those that read the image, directly or behind views and a BatchNorm.
        classes: Length of the output.
    """

    order: tuple[str, ...]
    first: frozenset[str]
    classes: int


def trace(model: nn.Module, input_shape: tuple[int, ...]) -> Trace:
    """Run the model on one image of zeros; nothing of it changes.

    Args:
        model: Returns logits, (B, classes).
        input_shape: Channels and spatial size, without the batch.

    Raises:
        CompatibilityError: If the model cannot run on this shape, or does not return logits.
    """
    order: dict[str, bool] = {}
    pixels: dict[int, Tensor] = {}  # keeps them alive, so that ids stay unique

    def note(name: str, module: nn.Module, inputs: tuple[object, ...], output: object) -> None:
        values = inputs[0] if inputs else None
        reads_image = id(values) in pixels
        if isinstance(module, WEIGHT_LAYERS):
            order[name] = order.get(name, False) or reads_image
        elif not reads_image or not isinstance(output, Tensor):
            return
        elif isinstance(module, (*VIEWS, *BATCH_NORMS)):
            pixels[id(output)] = output

    image = _blank(model, input_shape)
    pixels[id(image)] = image
    handles = [
        module.register_forward_hook(
            lambda module, inputs, output, name=name: note(name, module, inputs, output)
        )
        for name, module in model.named_modules()
    ]
    try:
        with _evaluation(model), torch.no_grad(), torch.random.fork_rng(devices=[]):
            logits = model(image)
    except RuntimeError as error:
        raise CompatibilityError(
            f"the model must run on input_shape: expected one that it accepts, got "
            f"{tuple(input_shape)} ({error}). Set input_shape to channels and spatial size."
        ) from error
    finally:
        for handle in handles:
            handle.remove()
    if not isinstance(logits, Tensor) or logits.ndim != 2:
        got = tuple(logits.shape) if isinstance(logits, Tensor) else type(logits).__name__
        raise CompatibilityError(
            f"the model must return logits: expected (B, classes), got {got}. Return one tensor of "
            f"logits."
        )
    first = frozenset(name for name, reads_image in order.items() if reads_image)
    return Trace(tuple(order), first, logits.shape[1])


def _blank(model: nn.Module, input_shape: tuple[int, ...]) -> Tensor:
    like = next(model.parameters(), torch.empty(()))
    return like.detach().new_zeros((1, *input_shape))


@contextmanager
def _evaluation(model: nn.Module) -> Iterator[None]:
    modes = [(module, module.training) for module in model.modules()]
    try:
        model.eval()
        yield
    finally:
        for module, training in modes:
            module.training = training
