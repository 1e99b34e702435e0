"""Relevance of one subject: a map on its own grid, pictures, and numbers."""

from collections.abc import Mapping
from pathlib import Path

import nibabel as nib
import numpy as np
import torch
from torch import Tensor
from torch.utils.data import default_collate

from glioma_xai.data import GliomaDataModule
from glioma_xai.data.files import read_volume
from glioma_xai.experiment.cases import (
    channel_names,
    draw_cases,
    save_figures,
    sides_known,
)
from glioma_xai.experiment.drawing import file_name
from glioma_xai.experiment.evaluation import attribution_at_input
from glioma_xai.experiment.lifecycle import write_json
from glioma_xai.metrics.functional.localization import localization_scores
from glioma_xai.records import Batch
from glioma_xai.training.module import GuidedClassifier

_EVEN = (
    "the shares are equal: a flat first layer spreads relevance evenly over the channels and says "
    "nothing about them"
)


def explain_subject(
    module: GuidedClassifier, data: GliomaDataModule, subject: str, *, output: Path
) -> None:
    """Write ``relevance.nii.gz``, one PNG a slice, and ``explanation.json``.

    Args:
        module: In ``eval()`` mode.
        data: Set up.
        subject: Id of a subject; that of a patient with several scans writes a folder for each.
        output: Folder, made if it is missing.
    """
    samples = data.sample(subject)
    scans = list(dict.fromkeys(str(sample["subject_id"]) for sample in samples))
    for scan in scans:
        batch: Batch = default_collate([s for s in samples if s["subject_id"] == scan])
        folder = output if len(scans) == 1 else output / file_name(scan)
        _explain_scan(module, data, batch, output=folder)


def _explain_scan(
    module: GuidedClassifier, data: GliomaDataModule, batch: Batch, *, output: Path
) -> None:
    attribution = attribution_at_input(module)
    logits, maps = attribution.measure(module.model, batch["image"], batch["label"])
    probabilities = logits.double().softmax(dim=1)
    mean, label = probabilities.mean(dim=0), int(batch["label"][0])
    scores = localization_scores(maps, batch["lesion_mask"], brain_mask=batch["brain_mask"])
    subject, slices = batch["subject_id"][0], batch["slice_index"].tolist()
    planar = data.cohort.entry(subject).subject.slice_index is not None  # a file of one slice
    in_file = [] if planar else slices
    modality = modality_shares(maps, channel_names(data))
    output.mkdir(parents=True, exist_ok=True)
    write_json(
        output / "explanation.json",
        {
            "subject": subject,
            "patient": batch["patient_id"][0],
            "target": attribution.measured_target(batch["label"]),
            "composite": attribution.composite,
            "classes": list(data.classes),
            "probabilities": dict(zip(data.classes, mean.tolist(), strict=True)),
            "prediction": data.classes[int(mean.argmax())],
            "label": data.classes[label] if label >= 0 else None,
            "slices": [
                {
                    "slice": level,
                    "probabilities": probabilities[i].tolist(),
                    **{name: float(values[i]) for name, values in scores.items()},
                }
                for i, level in enumerate(slices)
            ],
            "modality_shares": modality,
            "modality_note": _EVEN if np.ptp(list(modality.values())) < 1e-6 else "",
            "region_shares": region_shares(data, subject, maps, in_file),
            "orientation": "relevance.nii.gz lies on the subject's own grid, summed over channels",
        },
    )
    nib.save(data.restore(subject, maps.sum(dim=1), in_file), output / "relevance.nii.gz")
    with torch.enable_grad():
        figures = draw_cases(
            module,
            batch,
            classes=data.classes,
            modalities=channel_names(data),
            sides=sides_known(data),
        )
    save_figures(figures, output)


def modality_shares(maps: Tensor, names: list[str]) -> dict[str, float]:
    """Share of absolute relevance on each channel, summing to 1.

    Args:
        maps: (B, C, *spatial).
        names: Of the channels.
    """
    mass = maps.abs().flatten(2).sum(dim=(0, 2))
    return dict(zip(names, (mass / mass.sum()).tolist(), strict=True))


def region_shares(
    data: GliomaDataModule, subject: str, maps: Tensor, slices: list[int]
) -> dict[str, float] | None:
    """Share of absolute relevance on each part of the tumour and beside it, on the own grid.

    Args:
        data: Set up.
        subject: Id of the subject.
        maps: (B, C, *spatial), of the slices or of the volume.
        slices: Slice of each map.

    Returns:
        Part (necrosis, oedema, enhancing, ...) to share, and ``elsewhere``, summing to 1; None
        without a segmentation, or if its values are not told apart.
    """
    path = data.cohort.entry(subject).subject.lesion_mask
    values = data.cohort.preparation.label_values
    if path is None or values is None:
        return None
    labels = read_volume(path)[0][0]  # X Y Z
    mass = np.abs(data.restore(subject, maps.abs().sum(dim=1), slices).get_fdata())
    return shares_of_parts(mass, labels, values)


def shares_of_parts(
    mass: np.ndarray[tuple[int, ...], np.dtype[np.float64]],
    labels: np.ndarray[tuple[int, ...], np.dtype[np.float32]],
    values: Mapping[str, int],
) -> dict[str, float]:
    """Share of a mass on each part of a segmentation, and ``elsewhere``, summing to 1.

    Args:
        mass: Not negative, (X, Y, Z).
        labels: Mask values, (X, Y, Z).
        values: Part to its mask value.

    Returns:
        NaN shares if there is no mass.
    """
    total = mass.sum()
    shares = {part: mass[labels == value].sum() for part, value in values.items()}
    shares["elsewhere"] = total - sum(shares.values())
    return {part: float(share / total) if total else np.nan for part, share in shares.items()}
