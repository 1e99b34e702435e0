"""A slice as separate layers, for viewers in which each can be switched on and off."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from glioma_xai.visualization.panels import background, grey_window, to_display

SIDE = 320
"""Pixels of the longer side at the least, so that a viewer does not blur small slices."""
STRONG = 0.2
"""Share of the largest |R| from which on a pixel counts as relevant."""
Bytes = NDArray[np.uint8]


@dataclass(frozen=True)
class Layers:
    """Anatomy and masks of one size, as a radiologist looks at slices.

    Args:
        anatomy: Grey values, (rows, columns).
        masks: Name of a mask to its numbers, (rows, columns); 0 is no mask.
        words: Name of a mask to the meaning of its numbers.
    """

    anatomy: Bytes
    masks: Mapping[str, Bytes]
    words: Mapping[str, Mapping[int, str]]


def to_layers(
    image: Tensor, relevance: Tensor, lesion_mask: Tensor | None, *, modalities: Sequence[str]
) -> Layers:
    """Anatomy, tumour, and where relevance is strong, as layers.

    Args:
        image: Slice, (C, H, W), axes as in :func:`~glioma_xai.visualization.overlays`.
        relevance: Signed, (C, H, W); NaN counts as none.
        lesion_mask: 1 in the tumour, (1, H, W), NaN where unknown; None leaves that mask out.
        modalities: Name of each channel; FLAIR is the anatomy if there is one.
    """
    picture = to_display(image[background(modalities)].detach().cpu().float().numpy())
    low, high, shown = grey_window(picture)
    grey = np.clip((shown - low) / (high - low), 0, 1) * 255
    total = to_display(relevance.detach().sum(dim=0).cpu().float().nan_to_num(0.0).numpy())
    limit = STRONG * np.abs(total).max()
    strong = (np.abs(total) >= limit) & (total != 0)
    masks = {"relevance": np.where(strong, np.where(total > 0, 1, 2), 0)}
    if lesion_mask is not None:
        lesion = to_display(lesion_mask[0].detach().cpu().float().nan_to_num(0.0).numpy())
        masks["tumour"] = np.where(lesion > 0.5, 1, 0)
    share = f"{100 * STRONG:.0f} % of the largest"
    words = {
        "relevance": {1: f"for, above {share}", 2: f"against, above {share}"},
        "tumour": {1: "tumour"},
    }
    return Layers(
        _enlarge(grey.round()),
        {name: _enlarge(mask) for name, mask in masks.items()},
        {name: words[name] for name in masks},
    )


def _enlarge(values: NDArray[np.generic]) -> Bytes:
    """Every pixel as a square of pixels."""
    factor = -(-SIDE // max(values.shape))
    return np.asarray(values, dtype=np.uint8).repeat(factor, axis=0).repeat(factor, axis=1)
