"""What can go wrong around a relevance pass, and the state that it must not change."""

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from glioma_xai.attribution.batchnorm import BATCH_NORMS
from glioma_xai.errors import CompatibilityError, ConfigError, NumericsError


def unwrapped(model: nn.Module) -> nn.Module:
    """Return the user's own module behind ``torch.compile`` and DistributedDataParallel."""
    while True:
        inner = model.module if isinstance(model, DistributedDataParallel) else model
        inner = getattr(inner, "_orig_mod", inner)
        if inner is model:
            return model
        model = inner


def as_pixels(images: Tensor, model: nn.Module) -> Tensor:
    """Return images that require a gradient, in the precision that relevance needs."""
    weights = next((p for p in model.parameters() if p.is_floating_point()), None)
    wanted = images.dtype if weights is None else weights.dtype
    if wanted in (torch.float16, torch.bfloat16):
        raise NumericsError(
            f"relevance needs single precision: expected float32 or float64 weights, got "
            f"{str(wanted).removeprefix('torch.')}. Call model.float(); autocast may stay on."
        )
    if images.is_inference():
        images = images.clone()
    if not images.is_floating_point() or images.dtype in (torch.float16, torch.bfloat16):
        images = images.to(wanted)
    return images if images.requires_grad else images.detach().requires_grad_()


def check_device(images: Tensor, model: nn.Module) -> None:
    """Raise unless the images are where the model is."""
    weights = next(model.parameters(), images)
    if weights.device != images.device:
        raise CompatibilityError(
            f"images must be where the model is: expected {weights.device}, got {images.device}. "
            f"Call images.to({str(weights.device)!r}), or model.to({str(images.device)!r})."
        )


def check_logits(logits: object, pixels: Tensor) -> None:
    """Raise unless the model has returned one row of logits a sample."""
    if isinstance(logits, Tensor) and logits.ndim == 2 and logits.shape[0] == pixels.shape[0]:
        return
    got = tuple(logits.shape) if isinstance(logits, Tensor) else type(logits).__name__
    raise CompatibilityError(
        f"the model must return logits: expected ({pixels.shape[0]}, classes), got {got}. Return "
        f"one tensor of logits."
    )


def check_recording(create_graph: bool, recording: bool) -> None:
    """Raise if a graph is wanted where gradients are off."""
    if not create_graph or recording:
        return
    where = "torch.inference_mode" if torch.is_inference_mode_enabled() else "torch.no_grad"
    raise ConfigError(
        f"create_graph=True needs gradients: expected them on, got a call under {where}. Set "
        f"trainer.inference_mode=false, or use create_graph=False."
    )


@contextmanager
def statistics_at_rest(model: nn.Module) -> Iterator[None]:
    """Keep running statistics from moving; the forward pass is the same."""
    norms = [
        module
        for module in model.modules()
        if isinstance(module, BATCH_NORMS) and module.training and module.track_running_stats
    ]
    try:
        for module in norms:
            module.track_running_stats = False
        yield
    finally:
        for module in norms:
            module.track_running_stats = True


def refuse_infinite(model: nn.Module, images: Tensor, relevance: Tensor) -> None:
    """Raise, naming the first layer whose output is not finite."""
    found: list[str] = []

    def look(name: str, module: nn.Module, output: object) -> None:
        if isinstance(output, Tensor) and not found and not bool(torch.isfinite(output).all()):
            found.append(f"the output of {type(module).__name__} at {name or 'the model'}")

    if not bool(torch.isfinite(images).all()):
        found.append("the image itself")
    handles = [
        module.register_forward_hook(
            lambda module, _, output, name=name: look(name, module, output)
        )
        for name, module in model.named_modules()
        if not list(module.children())
    ]
    try:
        with torch.no_grad(), torch.random.fork_rng(), statistics_at_rest(model):
            model(images.to(relevance.dtype))
    finally:
        for handle in handles:
            handle.remove()
    where = found[0] if found else "the relevance alone; all layers' outputs are finite"
    raise NumericsError(
        f"relevance must be finite: expected finite numbers, got NaN or infinity, first in "
        f"{where}. Lower the learning rate, clip gradients, or raise attribution.epsilon."
    )
