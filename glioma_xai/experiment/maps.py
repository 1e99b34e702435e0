"""Relevance maps of fixed test patients in one small file, to compare runs by."""

from pathlib import Path

import numpy as np

from glioma_xai.data import GliomaDataModule
from glioma_xai.experiment.cases import collect, one_of_each_patient
from glioma_xai.experiment.evaluation import attribution_at_input
from glioma_xai.records import Split
from glioma_xai.training.module import GuidedClassifier

MOST_MAPS = 64


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
    attribution = attribution_at_input(module)
    positions = one_of_each_patient(data, split, most=MOST_MAPS)
    for start in range(0, len(positions), data.batch_size):
        batch = collect(data, split, positions[start : start + data.batch_size])
        images, labels = batch["image"].to(module.device), batch["label"].to(module.device)
        relevance = attribution.measure(module.model, images, labels)[1].sum(dim=1).cpu()
        scale = relevance.flatten(1).abs().amax(dim=1).clamp(min=1e-30)
        scaled = relevance / scale.view(-1, *[1] * (relevance.ndim - 1))
        for subject, level, values in zip(
            batch["subject_id"], batch["slice_index"].tolist(), scaled.half().numpy(), strict=True
        ):
            maps[f"{subject}_{level}"] = values
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_suffix(".part.npz")
    np.savez_compressed(part, allow_pickle=False, **maps)
    part.replace(path)
