"""Directional derivatives by finite differences, with kinks told apart from mistakes."""

import statistics
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor, nn

STEPS = (2e-6, 1e-6, 5e-7)
CHANGES = (4e-7, 2e-7, 1e-7)  # of the loss of a large network, whose slope may be anything
SMOOTH = 1e-6  # without a kink between, slopes from 2e-6, 1e-6 and from 1e-6, 5e-7 agree to this


@dataclass(frozen=True)
class Comparison:
    """Errors of the smooth directions, and how many directions crossed a kink.

    Args:
        errors: |numeric - analytic| relative to the numeric derivative, smooth directions only.
        kinks: Share of directions for which two step sizes disagree.
    """

    errors: list[float]
    kinks: float

    @property
    def directions(self) -> int:
        return round(len(self.errors) / (1 - self.kinks)) if self.errors else 0

    @property
    def worst(self) -> float:
        return max(self.errors, default=float("nan"))

    @property
    def typical(self) -> float:
        return statistics.median(self.errors) if self.errors else float("nan")


def compare(
    model: nn.Module,
    loss: Callable[[bool], Tensor],
    *,
    directions: int = 20,
    own_directions: bool = True,
    seed: int = 7,
) -> Comparison:
    """Compare autograd's derivative of ``loss`` with differences along random directions.

    Besides ``directions`` random ones there is one direction within each parameter tensor (unless
    ``own_directions`` is off). Errors are relative to the derivative, or to a thousandth of the
    typical derivative where a tensor's own is smaller (a bias in front of a BatchNorm has none).
    With more than 20,000 parameters a random direction of unit length is added to the gradient's:
    a longer one crosses kinks, and a random one alone has next to no slope. Steps are then so long
    that the loss changes by ``CHANGES``.

    Args:
        model: Its parameters are varied.
        loss: Called with whether it must be differentiable.
    """
    parameters = [p for p in model.parameters() if p.requires_grad]
    gradients = torch.autograd.grad(loss(True), parameters, allow_unused=True)
    known = [
        torch.zeros_like(p) if g is None else g for p, g in zip(parameters, gradients, strict=True)
    ]
    size = sum(float(g.square().sum()) for g in known) ** 0.5
    large = sum(p.numel() for p in parameters) > 20_000

    def direction(number: int) -> list[Tensor]:
        generator = torch.Generator().manual_seed(seed + number)
        steps = [torch.randn(p.shape, generator=generator, dtype=p.dtype) for p in parameters]
        own = number - directions
        if large:
            norm = sum(float(s.square().sum()) for s in steps) ** 0.5
            return [s / norm + g / size for s, g in zip(steps, known, strict=True)]
        return [s if own in (k, -1) or own < 0 else 0 * s for k, s in enumerate(steps)]

    def move(steps: list[Tensor], size: float) -> None:
        with torch.no_grad():
            for parameter, step in zip(parameters, steps, strict=True):
                parameter.add_(step, alpha=size)

    start = loss(False).item()

    def slopes(steps: list[Tensor], step: float) -> tuple[float, float]:
        """Central slope, and the difference of the slopes ahead and behind."""
        values = []
        for sign in (1, -1):
            move(steps, sign * step)
            values.append(loss(False).item())
            move(steps, -sign * step)
        ahead, behind = values
        return (ahead - behind) / (2 * step), (ahead - 2 * start + behind) / step

    numbers = range(directions + own_directions * len(parameters))
    sizes = [change / size for change in CHANGES] if large else STEPS
    found = [[slopes(steps, step) for step in sizes] for steps in map(direction, numbers)]
    products = [
        sum(float((g * s).sum()) for g, s in zip(gradients, steps, strict=True) if g is not None)
        for steps in map(direction, numbers)
    ]
    typical = float(torch.tensor([f[1][0] for f in found[:directions]]).abs().median())
    errors, kinks = [], 0
    for number, analytic, slope in zip(numbers, products, found, strict=True):
        for factor in (1, 5) if large else (1,):  # rounding may hide what a longer step shows
            (far, _), (middle, wide), (close, near) = (
                slope if factor == 1 else [slopes(direction(number), factor * s) for s in sizes]
            )
            coarse, fine = extrapolate(far, middle), extrapolate(middle, close)
            scale = max(abs(fine), 1e-3 * typical)
            bend = 2 * near - wide  # what does not vanish with the step: a kink at the start itself
            if max(abs(coarse - fine), abs(bend)) / scale <= SMOOTH:
                errors.append(abs(fine - analytic) / scale)
                break
        else:
            kinks += 1
    return Comparison(errors, kinks / len(numbers))


def extrapolate(large: float, small: float) -> float:
    """Remove what grows with the square of the step, from slopes at a step and at its half."""
    return small + (small - large) / 3


def rough_error(
    model: nn.Module, loss: Callable[[bool], Tensor], *, directions: int, seed: int = 7
) -> float:
    """Median error of autograd's slope along random unit directions, to a few per cent.

    The central difference, not autograd, is what the error is relative to. Each direction leans on
    the gradient that autograd claims, so that the slope is not small by chance.
    """
    parameters = [p for p in model.parameters() if p.requires_grad]
    found = torch.autograd.grad(loss(True), parameters, allow_unused=True)
    known = [
        torch.zeros_like(p) if g is None else g for p, g in zip(parameters, found, strict=True)
    ]
    size = sum(float(g.square().sum()) for g in known) ** 0.5
    generator = torch.Generator().manual_seed(seed)
    errors = []
    for _ in range(directions):
        steps = [torch.randn(p.shape, generator=generator, dtype=p.dtype) for p in parameters]
        norm = sum(float(s.square().sum()) for s in steps) ** 0.5
        steps = [s / norm + g / size for s, g in zip(steps, known, strict=True)]
        values = []
        for shift in (1e-6, -2e-6):
            with torch.no_grad():
                for parameter, step in zip(parameters, steps, strict=True):
                    parameter.add_(step, alpha=shift)
            values.append(loss(False).item())
        with torch.no_grad():
            for parameter, step in zip(parameters, steps, strict=True):
                parameter.add_(step, alpha=1e-6)
        slope = (values[0] - values[1]) / 2e-6
        claimed = sum(float((g * s).sum()) for g, s in zip(known, steps, strict=True))
        errors.append(abs(claimed - slope) / abs(slope))
    return statistics.median(errors)
