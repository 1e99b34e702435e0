"""Guidance losses a second time, pixel by pixel in plain Python, from the papers' formulas."""

import math
from collections.abc import Iterator

import numpy as np
import torch
from torch import Tensor


def _pixels(relevance: Tensor, mask: Tensor) -> Iterator[tuple[list[float], float]]:
    """Yield (relevance of each channel, mask) of each known pixel of one sample."""
    for position in np.ndindex(*relevance.shape[1:]):
        value = float(mask[(0, *position)])
        if not math.isnan(value):
            channels = range(relevance.shape[0])
            yield [float(relevance[(c, *position)]) for c in channels], value


def _guided(mask: Tensor) -> bool:
    return any(float(v) > 0 for v in mask.flatten().tolist())


def energy(relevance: Tensor, mask: Tensor, sign: str = "absolute") -> float:
    inside = total = 0.0
    for values, m in _pixels(relevance, mask):
        a = sum(abs(v) if sign == "absolute" else max(v, 0.0) for v in values)
        inside += a * m
        total += a
    return 1 - inside / total if _guided(mask) else 0.0


def focus(relevance: Tensor, mask: Tensor) -> float:
    sums, counts = [0.0, 0.0], [0.0, 0.0]
    for values, m in _pixels(relevance, mask):
        a = sum(max(v, 0.0) for v in values)
        for region, weight in enumerate((m, 1 - m)):
            sums[region] += weight * a
            counts[region] += weight
    lesion, rest = (s / c if c else 0.0 for s, c in zip(sums, counts, strict=True))
    return 1 - lesion / (lesion + rest) if _guided(mask) else 0.0


def rrr(relevance: Tensor, mask: Tensor) -> float:
    total = count = 0.0
    for values, m in _pixels(relevance, mask):
        for v in values:
            total += (1 - m) * v * v
            count += 1 - m
    return total / count if _guided(mask) and count else 0.0


def l1(relevance: Tensor, mask: Tensor) -> float:
    pixels = [(sum(max(v, 0.0) for v in values), m) for values, m in _pixels(relevance, mask)]
    peak = max(a for a, _ in pixels) if pixels else 0.0
    if not _guided(mask):
        return 0.0
    return sum(abs(a / peak - m) for a, m in pixels) / len(pixels)


def ppce(relevance: Tensor, mask: Tensor, floor: float = 1e-6) -> float:
    pixels = [(sum(max(v, 0.0) for v in values), m) for values, m in _pixels(relevance, mask)]
    if not _guided(mask):
        return 0.0
    peak = max(a for a, _ in pixels)
    total = sum(-m * math.log((a / peak + floor) / (1 + floor)) for a, m in pixels)
    return total / sum(m for _, m in pixels)


def rank_pooling(values: list[float], decay: float) -> float:
    ranked = sorted(values, reverse=True)
    weights = [decay**rank for rank in range(len(ranked))]
    return sum(w * v for w, v in zip(weights, ranked, strict=True)) / sum(weights)


def isnet(
    relevance: Tensor,
    mask: Tensor,
    low: float,
    high: float,
    decay: float = 0.996,
    weights: tuple[float, float] = (1.0, 3.0),
) -> float:
    if not _guided(mask):
        return 0.0
    channels, size = relevance.shape[0], mask.numel()
    pixels = list(_pixels(relevance, mask))
    lesion = sum(m * sum(abs(v) for v in values) for values, m in pixels)
    unit = lesion / (channels * sum(m for _, m in pixels))
    unit += 1e-6 * sum(abs(v) for values, _ in pixels for v in values) / (channels * size)
    background = 0.0
    for channel in range(channels):
        outside = [abs(values[channel]) * (1 - m) / unit for values, m in pixels]
        outside += [0.0] * (size - len(outside))
        background += math.log(1 + rank_pooling(outside, decay)) / channels
    if lesion < low:
        foreground = (1 - lesion / low) ** 2
    elif lesion <= high:
        foreground = 0.0
    elif lesion <= high + low:
        foreground = ((lesion - high) / low) ** 2
    else:
        foreground = 1 + lesion - high - low
    return weights[0] * background + weights[1] * foreground


def over_batch(loss, relevance: Tensor, mask: Tensor, **options) -> Tensor:
    values = [loss(r, m, **options) for r, m in zip(relevance, mask, strict=True)]
    return torch.tensor(values, dtype=torch.float64)


def pasted(image: Tensor, mask: Tensor, donor: Tensor, donor_mask: Tensor) -> Tensor:
    """Background of one sample, pixel by pixel."""
    result = image.clone()
    for position in np.ndindex(*image.shape[1:]):
        own, other = float(mask[(0, *position)]), float(donor_mask[(0, *position)])
        if _guided(mask) and own == 0.0 and other == 0.0:
            for channel in range(image.shape[0]):
                result[(channel, *position)] = donor[(channel, *position)]
    return result
