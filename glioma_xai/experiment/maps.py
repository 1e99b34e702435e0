"""Relevance maps of the same patients for every run: in one file, and to choose a threshold by."""

import math
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from glioma_xai.data import GliomaDataModule
from glioma_xai.experiment.cases import collect, one_of_each_patient
from glioma_xai.experiment.evaluation import attribution_at_input
from glioma_xai.metrics.functional.overlap import choose_iou_threshold
from glioma_xai.records import Batch, Split
from glioma_xai.training.module import GuidedClassifier

MOST_MAPS = 64


def choose_overlap(module: GuidedClassifier, data: GliomaDataModule) -> float:
    """Share of a map's highest pixel at which maps overlap best with tumours, on validation.

    One sample of at most 64 validation patients; NaN without masks.
    """
    found = list(_relevance(module, data, "validation"))
    if not found:
        return math.nan
    maps = torch.cat([relevance for _, relevance in found])
    return choose_iou_threshold(maps, torch.cat([batch["lesion_mask"] for batch, _ in found]))


def save_maps(
    module: GuidedClassifier, data: GliomaDataModule, *, split: Split, path: Path
) -> None:
    """Write a compressed archive: one map a patient, summed over channels, by subject and slice.

    Maps are scaled to a largest absolute value of 1, which half precision holds, so an archive
    serves to compare where relevance lies and not how much there is. Runs whose splits differ store
    the same sample of each patient.

    Args:
        module: In ``eval()`` mode.
        data: Set up.
        split: Whose patients, at most 64.
        path: The ``.npz`` file; its folder is made.
    """
    maps: dict[str, np.ndarray[tuple[int, ...], np.dtype[np.float16]]] = {}
    for batch, relevance in _relevance(module, data, split):
        scale = relevance.flatten(1).abs().amax(dim=1).clamp(min=1e-30)
        scaled = (relevance / scale.view(-1, *[1] * (relevance.ndim - 1)))[:, 0]
        for subject, level, values in zip(
            batch["subject_id"], batch["slice_index"].tolist(), scaled.half().numpy(), strict=True
        ):
            maps[f"{subject}_{level}"] = values
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_suffix(".part.npz")
    np.savez_compressed(part, allow_pickle=False, **maps)
    part.replace(path)


def _relevance(
    module: GuidedClassifier, data: GliomaDataModule, split: Split
) -> Iterator[tuple[Batch, Tensor]]:
    """Batches and their relevance summed over channels, (B, 1, *spatial), on the CPU."""
    attribution = attribution_at_input(module)
    positions = one_of_each_patient(data, split, most=MOST_MAPS)
    for start in range(0, len(positions), data.batch_size):
        batch = collect(data, split, positions[start : start + data.batch_size])
        images, labels = batch["image"].to(module.device), batch["label"].to(module.device)
        maps = attribution.measure(module.model, images, labels)[1]
        yield batch, maps.sum(dim=1, keepdim=True).cpu()
