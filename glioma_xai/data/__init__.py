"""Cohorts to tensors: readers, splits, transforms, cache, phantom and the Lightning DataModule."""

from glioma_xai.data.datamodule import GliomaDataModule
from glioma_xai.data.inspection import inspect_cohort
from glioma_xai.data.subject_space import restore

__all__ = ["GliomaDataModule", "inspect_cohort", "restore"]
