"""From images to logits and relevance, the one place that opens a composite's context."""

from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager

import torch
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel
from zennit.core import Composite

from glioma_xai.attribution.batchnorm import BATCH_NORMS
from glioma_xai.attribution.composites import LiveComposite
from glioma_xai.attribution.targets import Target, target_coefficients
from glioma_xai.errors import CompatibilityError, ConfigError, NumericsError


def compute_relevance(
    model: nn.Module,
    images: Tensor,
    composite: Composite,
    *,
    labels: Tensor | None = None,
    target: Target | Tensor = "label",
    create_graph: bool = False,
    generator: torch.Generator | None = None,
    update_statistics: bool = True,
) -> tuple[Tensor, Tensor]:
    """Return the logits and the relevance of the images for a target, from one forward pass.

    The relevance that enters at the output is the target's coefficient times the logit, so the map
    sums to the explained quantity, up to what biases and stabilizers absorb; gradient composites
    start from the coefficient alone.

    The logits serve a classification loss as those of a plain forward pass do. Under autocast the
    whole pass runs in float32 with autocast off, logits included: relevance from a bfloat16 pass
    is several per cent off.

    Args:
        model: In train() or eval() mode; comes back as it was. In train() mode BatchNorm statistics
            advance once, as in a plain forward pass.
        images: (B, C, H, W[, D]); half precision is raised to the model's own.
        composite: From ``build_composite``, or any Zennit composite.
        labels: (B,) int64; needed by targets that look at the label.
        target: See ``targets.target_coefficients``.
        create_graph: Relevance can be differentiated with respect to the model's parameters.
        generator: Draws random targets.
        update_statistics: False for an extra pass, a probe: BatchNorm in train() mode normalises by
            the batch, but its running statistics do not move.

    Returns:
        Logits (B, classes) and relevance (B, C, H, W[, D]); with ``target="all"`` (B, classes, C,
        H, W[, D]); for a composite that reads a layer, in that layer's shape. Without
        ``create_graph`` the relevance is detached; the logits are if gradients were off.

    Raises:
        ConfigError: ``create_graph`` where gradients are off; labels missing.
        ShapeError: Labels or coefficients do not fit.
        CompatibilityError: The relevance cannot reach the input.
        NumericsError: Names the first layer whose output is not finite.
    """
    recording = torch.is_grad_enabled() and not torch.is_inference_mode_enabled()
    if create_graph and not recording:
        _refuse_graph()
    with ExitStack() as stack:
        stack.enter_context(torch.inference_mode(False))
        stack.enter_context(torch.enable_grad())
        stack.enter_context(torch.autocast(images.device.type, enabled=False))
        if not update_statistics:
            stack.enter_context(_statistics_at_rest(model))
        pixels = _as_pixels(images, model)
        logits, relevance = _explain(
            model,
            pixels,
            composite,
            lambda logits: target_coefficients(logits, target, labels=labels, generator=generator),
            create_graph=create_graph,
            retain_graph=create_graph or recording,
        )
        if not bool(torch.isfinite(relevance.detach().sum() + logits.detach().sum())):
            _refuse_infinite(model, images, relevance)
    if not recording:
        logits = logits.detach()
    return logits, relevance if create_graph else relevance.detach()


def _explain(
    model: nn.Module,
    pixels: Tensor,
    composite: Composite,
    coefficients_of: Callable[[Tensor], Tensor],
    *,
    create_graph: bool,
    retain_graph: bool,
) -> tuple[Tensor, Tensor]:
    """Return logits and relevance; gradients are on and the context is closed again after it."""
    plain = model.module if isinstance(model, DistributedDataParallel) else model
    live = composite if isinstance(composite, LiveComposite) else None
    with ExitStack() as stack:
        if live is not None:
            stack.enter_context(live.seeded_by_coefficients())
        stack.enter_context(composite.context(plain))
        logits = model(pixels)
        _check_logits(logits, pixels)
        coefficients = coefficients_of(logits)
        # Zennit's own rules look whether the seed requires a gradient to record theirs.
        seeds = coefficients if live is not None else coefficients * logits
        source = pixels if live is None or live.layer is None else _reading(live)
        passes = [
            _backward(logits, source, seed, create_graph, retain_graph)
            for seed in (seeds if seeds.ndim == 3 else [seeds])
        ]
    if live is not None and live.layer is not None and live.multiplies_input:
        passes = [source * coefficient for coefficient in passes]
    return logits, torch.stack(passes, dim=1) if seeds.ndim == 3 else passes[0]


def _backward(
    logits: Tensor, source: Tensor, seed: Tensor, create_graph: bool, retain_graph: bool
) -> Tensor:
    (result,) = torch.autograd.grad(
        logits,
        source,
        seed,
        create_graph=create_graph,
        retain_graph=retain_graph or seed.ndim == 3,
        allow_unused=True,
    )
    if result is None:
        raise CompatibilityError(
            "relevance must reach what it is read at: expected a differentiable path from the "
            "logits, got none. Take detach() and no_grad() out of the model's forward pass."
        )
    return result


def _reading(composite: LiveComposite) -> Tensor:
    reading = composite.tape.reading
    if reading is None:
        raise CompatibilityError(
            f"layer {composite.layer} must be called in the forward pass: expected one call, got "
            f"none. Choose a layer that the model uses."
        )
    return reading


def _as_pixels(images: Tensor, model: nn.Module) -> Tensor:
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


def _check_logits(logits: object, pixels: Tensor) -> None:
    if isinstance(logits, Tensor) and logits.ndim == 2 and logits.shape[0] == pixels.shape[0]:
        return
    got = tuple(logits.shape) if isinstance(logits, Tensor) else type(logits).__name__
    raise CompatibilityError(
        f"the model must return logits: expected ({pixels.shape[0]}, classes), got {got}. Return "
        f"one tensor of logits."
    )


def _refuse_graph() -> None:
    where = "torch.inference_mode" if torch.is_inference_mode_enabled() else "torch.no_grad"
    raise ConfigError(
        f"create_graph=True needs gradients: expected them on, got a call under {where}. Set "
        f"trainer.inference_mode=false, or use create_graph=False."
    )


@contextmanager
def _statistics_at_rest(model: nn.Module) -> Iterator[None]:
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


def _refuse_infinite(model: nn.Module, images: Tensor, relevance: Tensor) -> None:
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
        with torch.no_grad(), torch.random.fork_rng(), _statistics_at_rest(model):
            model(images.to(relevance.dtype))
    finally:
        for handle in handles:
            handle.remove()
    where = found[0] if found else "the relevance alone; all layers' outputs are finite"
    raise NumericsError(
        f"relevance must be finite: expected finite numbers, got NaN or infinity, first in "
        f"{where}. Lower the learning rate, clip gradients, or raise attribution.epsilon."
    )
