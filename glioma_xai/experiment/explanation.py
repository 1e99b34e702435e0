"""Relevance of one subject: a map on its own grid, pictures, and numbers."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import nibabel as nib
import numpy as np
import torch
from torch import Tensor
from torch.utils.data import default_collate

from glioma_xai.data import GliomaDataModule
from glioma_xai.experiment.cases import channel_names, draw_cases, save_figures, sides_known
from glioma_xai.experiment.drawing import file_name
from glioma_xai.experiment.evaluation import attribution_at_input
from glioma_xai.experiment.lifecycle import write_json
from glioma_xai.experiment.parts import native_labels, parts_of, score_parts, shares_of_parts
from glioma_xai.metrics.functional.localization import localization_scores
from glioma_xai.records import Batch
from glioma_xai.training.module import GuidedClassifier

_EVEN = (
    "the shares are equal: a flat first layer spreads relevance evenly over the channels and says "
    "nothing about them"
)


@dataclass(frozen=True)
class Explanation:
    """What was found for one scan.

    Args:
        subject: Its id.
        content: Of ``explanation.json``.
        relevance: Summed over channels, on the subject's own grid.
    """

    subject: str
    content: dict[str, object]
    relevance: nib.Nifti1Image


def explain_subject(
    module: GuidedClassifier, data: GliomaDataModule, subject: str, *, output: Path
) -> list[Explanation]:
    """Write ``relevance.nii.gz``, one PNG a slice, and ``explanation.json``.

    Args:
        module: In ``eval()`` mode.
        data: Set up.
        subject: Id of a subject; that of a patient with several scans writes a folder for each.
        output: Folder, made if it is missing.

    Returns:
        One for each scan.
    """
    samples = data.sample(subject)
    scans = list(dict.fromkeys(str(sample["subject_id"]) for sample in samples))
    found = []
    for scan in scans:
        batch: Batch = default_collate([s for s in samples if s["subject_id"] == scan])
        folder = output if len(scans) == 1 else output / file_name(scan)
        found.append(_explain_scan(module, data, batch, output=folder))
    return found


def _explain_scan(
    module: GuidedClassifier, data: GliomaDataModule, batch: Batch, *, output: Path
) -> Explanation:
    attribution = attribution_at_input(module)
    images, labels = batch["image"].to(module.device), batch["label"].to(module.device)
    logits, relevance = attribution.measure(module.model, images, labels)
    maps, probabilities = relevance.cpu(), logits.double().softmax(dim=1).cpu()
    subject = batch["subject_id"][0]
    slices = own_slices(data, batch)
    content = {
        "subject": subject,
        "patient": batch["patient_id"][0],
        "target": attribution.measured_target(batch["label"]),
        "composite": attribution.composite,
        **_numbers(data, batch, maps, probabilities),
        "region_shares": region_shares(data, subject, maps, slices),
        "orientation": "relevance.nii.gz lies on the subject's own grid, summed over channels",
    }
    explanation = Explanation(subject, content, data.restore(subject, maps.sum(dim=1), slices))
    output.mkdir(parents=True, exist_ok=True)
    write_json(output / "explanation.json", content)
    nib.save(explanation.relevance, output / "relevance.nii.gz")
    with torch.enable_grad():
        figures = draw_cases(
            module,
            batch,
            classes=data.classes,
            modalities=channel_names(data),
            sides=sides_known(data),
        )
    save_figures(figures, output)
    return explanation


def own_slices(data: GliomaDataModule, batch: Batch) -> list[int]:
    """Slice of each sample of a scan in its file; none for a file of one slice."""
    planar = data.cohort.entry(batch["subject_id"][0]).subject.slice_index is not None
    return [] if planar else batch["slice_index"].tolist()


def _numbers(
    data: GliomaDataModule, batch: Batch, maps: Tensor, probabilities: Tensor
) -> dict[str, object]:
    """Prediction of the scan and of each slice, scores of each slice, shares of the modalities."""
    scores = localization_scores(maps, batch["lesion_mask"], brain_mask=batch["brain_mask"])
    scores |= score_parts(data, batch, maps)
    mean, label = probabilities.mean(dim=0), int(batch["label"][0])
    modality = modality_shares(maps, channel_names(data))
    return {
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
            for i, level in enumerate(batch["slice_index"].tolist())
        ],
        "modality_shares": modality,
        "modality_note": _EVEN if np.ptp(list(modality.values())) < 1e-6 else "",
    }


def modality_shares(maps: Tensor, names: list[str]) -> dict[str, float]:
    """Share of absolute relevance on each channel, summing to 1.

    Args:
        maps: (B, C, *spatial).
        names: Of the channels.
    """
    mass = maps.abs().flatten(2).sum(dim=(0, 2))
    return dict(zip(names, (mass / mass.sum()).tolist(), strict=True))


def region_shares(
    data: GliomaDataModule, subject: str, maps: Tensor, slices: Sequence[int]
) -> dict[str, float] | None:
    """Share of absolute relevance on each part of the tumour and beside it, on the own grid.

    Args:
        data: Set up.
        subject: Id of the subject.
        maps: (B, C, *spatial), of the slices or of the volume.
        slices: Slice of each map.

    Returns:
        Part (necrosis, oedema, enhancing, ...) to share, and ``elsewhere``, summing to 1; one part,
        ``tumour``, where mask values are not told apart; None without a mask.
    """
    labels = native_labels(data, subject)
    if labels is None:
        return None
    mass = np.abs(data.restore(subject, maps.abs().sum(dim=1), slices).get_fdata())
    parts = parts_of(data)
    if not parts:
        labels, parts = (labels > 0).astype(np.float32), {"tumour": 1}
    return shares_of_parts(mass, labels, parts)
