"""Data that travels between the packages."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Literal, TypedDict

if TYPE_CHECKING:  # a process that only writes phantoms need not load torch
    from torch import Tensor

Modality = Literal["t1", "t1ce", "t2", "flair"]
MODALITIES: tuple[Modality, ...] = ("t1", "t1ce", "t2", "flair")

Split = Literal["train", "validation", "test"]
SPLITS: tuple[Split, ...] = ("train", "validation", "test")


@dataclass(frozen=True)
class Subject:
    """One scan of one patient (a volume), or one image of a 2-D cohort.

    Args:
        subject_id: Unique in the cohort; for a 2-D image the patient and the slice, joined by `_`.
        patient_id: Groups scans that must stay in one split.
        label: Class index into ``data.classes``; None if the grade is unknown.
        images: File of each modality; or one entry ``"image"`` for a file with all channels.
        channels: Modalities in the order they have in a multi-channel file; empty otherwise.
        lesion_mask: File of the segmentation; None if there is none.
        site: Where it was scanned; None if unknown.
        slice_index: Number of the slice for an image of a 2-D cohort; None for a volume.
        split: A split that the cohort itself prescribes; None if it is drawn here.
        fold: A cross-validation fold that the cohort itself prescribes; None if it is drawn here.
    """

    subject_id: str
    patient_id: str
    label: int | None
    images: Mapping[str, Path]
    channels: tuple[str, ...] = ()
    lesion_mask: Path | None = None
    site: str | None = None
    slice_index: int | None = None
    split: Split | None = None
    fold: int | None = None


@dataclass(frozen=True)
class Problem:
    """One thing wrong with a cohort, found by a check.

    Args:
        where: Subject, file or setting.
        expected: What should be there.
        found: What is there.
        fix: What the user can do.
        severity: ``error`` stops training, ``warning`` does not.
    """

    where: str
    expected: str
    found: str
    fix: str
    severity: Literal["error", "warning"] = "error"

    def __str__(self) -> str:
        return f"{self.where}: expected {self.expected}, found {self.found}. {self.fix}"


class Batch(TypedDict):
    """What every dataloader yields; B samples, C modalities, spatial shape H W [D]."""

    image: "Tensor"  # B C H W [D], float32, normalised in the brain, background 0
    lesion_mask: "Tensor"  # B 1 H W [D], float32: 1 must, 0 must not, NaN unknown (if no mask)
    brain_mask: "Tensor"  # B 1 H W [D], float32, 1 in the brain
    label: "Tensor"  # B, int64
    index: "Tensor"  # B, int64, position in the split's table; a sample's key for randomness
    slice_index: "Tensor"  # B, int64, slice of the subject's own grid; -1 for a volume
    patient_id: list[str]
    subject_id: list[str]
    site: list[str]  # "" if unknown


@dataclass(frozen=True)
class Prediction:
    """One row of ``predictions.csv``: a slice, or a patient's mean over slices."""

    level: Literal["slice", "patient"]
    patient_id: str
    subject_id: str
    slice_index: int
    split: str
    label: int
    probabilities: tuple[float, ...]
    prediction: int
    relevance_scores: Mapping[str, float] = field(default_factory=dict)
