"""Guidance losses on relevance, consistency, probes, schedules and the objective."""

from glioma_xai.losses.consistency import consistency
from glioma_xai.losses.guidance import GuidanceLoss, energy, focus, l1, ppce, rrr, weighted_sum
from glioma_xai.losses.natural import ISNet, natural_range
from glioma_xai.losses.ranked import isnet
from glioma_xai.losses.regions import guided_samples, mask_on_grid, within_brain
from glioma_xai.losses.terms import Term

__all__ = [
    "GuidanceLoss",
    "ISNet",
    "Term",
    "consistency",
    "energy",
    "focus",
    "guided_samples",
    "isnet",
    "l1",
    "mask_on_grid",
    "natural_range",
    "ppce",
    "rrr",
    "weighted_sum",
    "within_brain",
]
