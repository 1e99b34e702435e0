"""What can go wrong around a relevance pass, and the state that it must not change."""

import math
from collections.abc import Iterator
from contextlib import contextmanager
from difflib import get_close_matches
from typing import get_args

import torch
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from glioma_xai.attribution.batchnorm import BATCH_NORMS
from glioma_xai.attribution.composites import RULES, check_finite
from glioma_xai.attribution.coverage import AVERAGE_POOLS, COVERED, DROPOUTS, VIEWS
from glioma_xai.attribution.hooks import LiveHook, WeightRule
from glioma_xai.attribution.layers import WEIGHT_LAYERS
from glioma_xai.attribution.methods import Method
from glioma_xai.attribution.steps import (
    AveragePool,
    DropoutMask,
    Gate,
    GuidedReLU,
    Normalization,
    Pass,
    View,
)
from glioma_xai.errors import CompatibilityError, ConfigError, NumericsError

# What each kind of rule can treat; a gate any layer that has no rule of its own.
_TREATS: tuple[tuple[type[LiveHook] | tuple[type[LiveHook], ...], tuple[type[nn.Module], ...]], ...]
_TREATS = (
    (WeightRule, WEIGHT_LAYERS),
    ((Normalization, Pass), BATCH_NORMS),
    (AveragePool, AVERAGE_POOLS),
    (DropoutMask, DROPOUTS),
    (View, VIEWS),
    (GuidedReLU, (nn.ReLU,)),
)
_WEIGHT_RULES = "epsilon, zplus, alphabeta or gamma (flat, wsquare or zbox if it reads the image)"


def unwrapped(model: nn.Module) -> nn.Module:
    """Return the user's own module behind ``torch.compile`` and DistributedDataParallel."""
    while True:
        inner = model.module if isinstance(model, DistributedDataParallel) else model
        inner = getattr(inner, "_orig_mod", inner)
        if inner is model:
            return model
        model = inner


def as_pixels(images: Tensor, model: nn.Module) -> Tensor:
    """Return images that require a gradient, in the precision that relevance needs.

    Args:
        images: Half precision and integers are raised to the model's own precision.
        model: Its first floating-point parameter tells the precision.

    Raises:
        NumericsError: The model is in half precision.
        ConfigError: Complex images, or float32 beside float64.
    """
    if images.is_complex():
        raise ConfigError(
            f"images must be real: expected float32 or float64, got {_kind(images.dtype)}. Pass "
            f"images.abs(), or real and imaginary part as two channels."
        )
    weights = next((p for p in model.parameters() if p.is_floating_point()), None)
    wanted = images.dtype if weights is None else weights.dtype
    if wanted in (torch.float16, torch.bfloat16):
        raise NumericsError(
            f"relevance needs single precision: expected float32 or float64 weights, got "
            f"{_kind(wanted)}. Call model.float(); autocast may stay on."
        )
    if images.is_inference():
        images = images.clone()
    if not images.is_floating_point() or images.dtype in (torch.float16, torch.bfloat16):
        images = images.to(wanted)
    if images.dtype != wanted:
        raise ConfigError(
            f"images must have the model's precision: expected {_kind(wanted)}, got "
            f"{_kind(images.dtype)}. Call images.to(torch.{_kind(wanted)}), or model.to("
            f"torch.{_kind(images.dtype)})."
        )
    return images if images.requires_grad else images.detach().requires_grad_()


def _kind(dtype: torch.dtype) -> str:
    return str(dtype).removeprefix("torch.")


def check_rule(rule: object, kind: type[nn.Module], *, key: str, name: str) -> None:
    """Raise unless a rule can treat a kind of layer.

    Args:
        rule: As the user set it, or made from the name.
        kind: Class of the layer.
        key: What it was set for: a layer's name or a kind of layers.
        name: What the rule is called in the message.

    Raises:
        ConfigError: Names the rules that can, or the number of the rule that is not finite.
    """
    if not isinstance(rule, LiveHook):
        raise ConfigError(
            f"rules.{key} must be a rule: expected one of {', '.join(RULES)}, or an instance from "
            f"glioma_xai.attribution.rules, got {rule!r}. Give its name."
        )
    check_finite(f"epsilon of rules.{key}", rule.stabilizer.epsilon)
    for number in ("gamma", "alpha", "low", "high"):
        check_finite(f"{number} of rules.{key}", getattr(rule, number, 0))
    fits = not issubclass(kind, COVERED) if isinstance(rule, Gate) else True
    for rules, kinds in _TREATS:
        fits = fits and (not isinstance(rule, rules) or issubclass(kind, kinds))
    if not fits:
        raise ConfigError(
            f"rules.{key} must fit {kind.__name__}: expected {_fitting(kind)}, got {name}. Choose "
            f"another rule, or leave {key} out."
        )


def _fitting(kind: type[nn.Module]) -> str:
    if issubclass(kind, WEIGHT_LAYERS):
        return _WEIGHT_RULES
    if issubclass(kind, BATCH_NORMS):
        return "norm or pass"
    return "no rule" if issubclass(kind, COVERED) else "gate"


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


def check_method(method: str | None, *, steps: int, noise: float) -> None:
    """Raise unless the method is known and its numbers are in range; None takes none.

    Raises:
        ConfigError: Names the nearest method, or the number.
    """
    known = get_args(Method)
    if method is None:
        return
    if method not in known:
        near = get_close_matches(str(method), known, n=1)
        hint = f"Did you mean {near[0]}?" if near else "Choose one of these, or None."
        raise ConfigError(f"method must be one of {', '.join(known)} or None, got {method}. {hint}")
    if method != "grad_cam" and (not isinstance(steps, int) or steps < 1):
        raise ConfigError(
            f"method={method} averages over steps: expected a whole number of at least 1, got "
            f"steps={steps}. Use 16."
        )
    if method == "smooth_grad" and not 0 <= noise < math.inf:
        raise ConfigError(
            f"method=smooth_grad adds noise: expected a finite share of the range, at least 0, got "
            f"noise={noise}. Use 0.15."
        )


@contextmanager
def _alone(model: nn.Module) -> Iterator[None]:
    """Ask no other process for its statistics: one that looks for its NaN would wait for ever."""
    shared = [m for m in model.modules() if isinstance(m, nn.SyncBatchNorm) and m.training]
    try:
        for module in shared:
            module.training = False
        yield
    finally:
        for module in shared:
            module.training = True


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
        with torch.no_grad(), torch.random.fork_rng(), _alone(model), statistics_at_rest(model):
            model(images.to(relevance.dtype))
    finally:
        for handle in handles:
            handle.remove()
    where = found[0] if found else "the relevance alone; all layers' outputs are finite"
    raise NumericsError(
        f"relevance must be finite: expected finite numbers, got NaN or infinity, first in "
        f"{where}. Lower the learning rate, clip gradients, or raise attribution.epsilon."
    )
