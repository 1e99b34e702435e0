"""From images to logits and relevance, the one place that opens a composite's context."""

from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from zennit.core import Composite

from glioma_xai.attribution.guards import (
    as_pixels,
    check_device,
    check_logits,
    check_method,
    check_recording,
    refuse_infinite,
    statistics_at_rest,
    unwrapped,
)
from glioma_xai.attribution.live import LiveComposite
from glioma_xai.attribution.methods import Method, grad_cam, integrated_gradients, smooth_grad
from glioma_xai.attribution.targets import Target, target_coefficients
from glioma_xai.errors import CompatibilityError, ConfigError


def compute_relevance(
    model: nn.Module,
    images: Tensor,
    composite: Composite,
    *,
    labels: Tensor | None = None,
    target: Target | Tensor = "label",
    create_graph: bool = False,
    method: Method | None = None,
    steps: int = 16,
    noise: float = 0.15,
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
            advance once, as in a plain forward pass. One from ``torch.compile`` runs layer by layer
            here, and compiled again in the plain steps around.
        images: (B, C, H, W[, D]); half precision is raised to the model's own.
        composite: From ``build_composite``, or any Zennit composite.
        labels: (B,) int64; needed by targets that look at the label.
        target: See ``targets.target_coefficients``.
        create_graph: Relevance can be differentiated with respect to the model's parameters.
        method: ``integrated_gradients`` and ``smooth_grad`` average the composite's attribution
            over further passes, which move no statistics; ``grad_cam`` needs a composite that reads
            a layer. All take gradient composites; smooth_grad takes any. None: the composite alone.
        steps: Points or copies of integrated_gradients and smooth_grad, at least 1.
        noise: Standard deviation of smooth_grad, a share of each image's range, at least 0.
        generator: Draws random targets and smooth_grad's noise.
        update_statistics: False for an extra pass, a probe: BatchNorm in train() mode normalises by
            the batch, but its running statistics do not move.

    Returns:
        Logits (B, classes) and relevance (B, C, H, W[, D]); with ``target="all"`` (B, classes, C,
        H, W[, D]); for a composite that reads a layer, in that layer's shape; for grad_cam
        (B, 1, H, W[, D]). Without ``create_graph`` the relevance is detached; the logits are if
        gradients were off.

    Raises:
        ConfigError: ``create_graph`` where gradients are off; labels missing; an unknown method, or
            one that does not fit the composite; complex images, or another precision than the
            model's.
        ShapeError: Labels or coefficients do not fit.
        CompatibilityError: The relevance cannot reach the input.
        NumericsError: Names the first layer whose output is not finite.
    """
    recording = torch.is_grad_enabled() and not torch.is_inference_mode_enabled()
    check_recording(create_graph, recording)
    check_device(images, model)
    check_method(method, steps=steps, noise=noise)
    _check_fit(method, composite, target)
    with ExitStack() as stack:
        stack.enter_context(torch.inference_mode(False))
        stack.enter_context(torch.enable_grad())
        stack.enter_context(torch.autocast(images.device.type, enabled=False))
        stack.enter_context(torch.compiler.set_stance("force_eager"))  # its graphs have no layers
        pixels = as_pixels(images, model)
        explainer = _Explainer(
            model,
            composite,
            create_graph=create_graph,
            retain_graph=create_graph or recording,
            constant_pixels=not images.requires_grad,
        )
        first = explainer(
            pixels,
            lambda logits: target_coefficients(logits, target, labels=labels, generator=generator),
            update_statistics=update_statistics,
        )
        relevance = first.relevance
        if method == "grad_cam":
            relevance = grad_cam(first.reading, relevance, tuple(pixels.shape[2:]))
        elif method is not None:

            def again(copies: Tensor) -> Tensor:
                return explainer(
                    copies, lambda _: first.coefficients, update_statistics=False
                ).relevance

            relevance = (
                integrated_gradients(again, pixels, steps=steps)
                if method == "integrated_gradients"
                else smooth_grad(again, pixels, steps=steps, noise=noise, generator=generator)
            )
        if not bool(torch.isfinite(relevance.detach().sum() + first.logits.detach().sum())):
            refuse_infinite(model, images, relevance)
    logits = first.logits if recording else first.logits.detach()
    return logits, relevance if create_graph else relevance.detach()


def _check_fit(method: Method | None, composite: Composite, target: Target | Tensor) -> None:
    if method is None:
        return
    live = composite if isinstance(composite, LiveComposite) else None
    gradient = live is not None and live.explains_gradient and not live.multiplies_input
    reads_layer = live is not None and live.layer is not None
    if method in ("integrated_gradients", "grad_cam") and not gradient:
        raise ConfigError(
            f"method={method} averages gradients: expected the gradient composite, got "
            f"{live.name if live else type(composite).__name__}. Use attribution=gradient."
        )
    if reads_layer != (method == "grad_cam"):
        raise ConfigError(
            f"method={method} {'needs' if method == 'grad_cam' else 'reads the input, without'} a "
            f"layer: got layer={live.layer if live else None}. Build the composite accordingly, "
            f"for grad_cam with layer= the last convolution."
        )
    if isinstance(target, str) and target == "all":
        raise ConfigError(
            f"method={method} explains one target a pass: expected one, got target=all. Call it "
            f"once a class with a tensor of coefficients."
        )


@dataclass(frozen=True)
class _Explanation:
    logits: Tensor
    relevance: Tensor
    coefficients: Tensor
    reading: Tensor


@dataclass(frozen=True)
class _Explainer:
    """One forward and one relevance pass under a composite."""

    model: nn.Module
    composite: Composite
    create_graph: bool
    retain_graph: bool
    constant_pixels: bool

    def __call__(
        self,
        pixels: Tensor,
        coefficients_of: Callable[[Tensor], Tensor],
        *,
        update_statistics: bool,
    ) -> _Explanation:
        model, composite = self.model, self.composite
        live = composite if isinstance(composite, LiveComposite) else None
        with ExitStack() as stack:
            if not update_statistics:
                stack.enter_context(statistics_at_rest(model))
            if live is not None:
                stack.enter_context(
                    live.seeded_by_coefficients(constant_pixels=self.constant_pixels)
                )
            stack.enter_context(composite.context(unwrapped(model)))
            logits = model(pixels)
            check_logits(logits, pixels)
            coefficients = coefficients_of(logits)
            # Zennit's own rules look whether the seed requires a gradient to record theirs.
            seeds = coefficients if live is not None else coefficients * logits
            source = pixels if live is None or live.layer is None else _reading(live)
            several = seeds.ndim == 3
            if several and live is not None:
                relevance = self._batched_passes(logits, source, seeds)
            elif several:  # Zennit's own rules cannot be batched
                relevance = torch.stack([self._pass(logits, source, seed) for seed in seeds])
            else:
                relevance = self._pass(logits, source, seeds)
        if live is not None and live.layer is not None and live.multiplies_input:
            relevance = source * relevance
        relevance = relevance.movedim(0, 1) if several else relevance
        return _Explanation(logits, relevance, coefficients, source)

    def _batched_passes(self, logits: Tensor, source: Tensor, seeds: Tensor) -> Tensor:
        """Relevance of several targets, (targets, B, ...), in one pass with a larger batch."""
        batched = torch.func.vmap(lambda seed: self._pass(logits, source, seed))
        return batched(seeds)

    def _pass(self, logits: Tensor, source: Tensor, seed: Tensor) -> Tensor:
        (result,) = torch.autograd.grad(
            logits,
            source,
            seed,
            create_graph=self.create_graph,
            retain_graph=self.retain_graph,
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
