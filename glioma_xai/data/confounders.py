"""What gives the class away besides the tumour, seen in files and headers."""

from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import nibabel as nib
import numpy as np
import pandas as pd
from numpy.typing import NDArray
from scipy import stats

from glioma_xai.data.intensities import find_foreground
from glioma_xai.data.layout import nifti_stem
from glioma_xai.data.volumes import LoadedSubject
from glioma_xai.records import Problem, Subject

SIGNIFICANCE = 0.01
"""Largest p-value at which a trait counts as tied to the class."""
ASSOCIATION = 0.3
"""Smallest Cramér's V, or distance of the AUC from .5 times two, that is worth a warning."""

PERCENTILES = (1, 50, 90, 99)
BRIGHT = PERCENTILES.index(90)


@dataclass(frozen=True)
class Traits:
    """What can be seen of a subject without looking at the tumour.

    Args:
        subject_id: Of the subject.
        patient_id: Of its patient.
        label: Class index.
        categories: Name of a trait to its value: site, file type, orientation, size, spacing.
        levels: 1st, 50th, 90th and 99th percentile of each modality in the brain beside the tumour.
        identical: Modalities that hold the same values, as in ``t1 = flair``; empty if none do.
        mask_outside: Share of the mask that lies outside of the brain; 0 without a mask.
    """

    subject_id: str
    patient_id: str
    label: int
    categories: Mapping[str, str]
    levels: Mapping[str, tuple[float, ...]]
    identical: tuple[str, ...]
    mask_outside: float = 0.0


def traits_of(subject: Subject, loaded: LoadedSubject, modalities: Sequence[str]) -> Traits:
    """Return the traits of a subject that has been read."""
    first = next(iter(subject.images.values()))
    is_nifti = nifti_stem(first) is not None
    spacing = np.linalg.norm(loaded.affine[:3, :3], axis=0)
    categories = {
        "site": subject.site or "",
        "file type": "NIfTI" if is_nifti else first.suffix.lower(),
        "orientation": "".join(nib.aff2axcodes(loaded.affine)),
        "size": " x ".join(str(length) for length in loaded.image.shape[1:]),
        "spacing in mm": " x ".join(f"{step:.2g}" for step in spacing) if is_nifti else "",
    }
    pairs = [(i, j) for i in range(len(modalities)) for j in range(i + 1, len(modalities))]
    identical = tuple(
        f"{modalities[i]} = {modalities[j]}"
        for i, j in pairs
        if np.array_equal(loaded.image[i], loaded.image[j])
    )
    brain = find_foreground(loaded.image).brain
    masked = np.zeros_like(brain) if loaded.labels is None else loaded.labels != 0
    return Traits(
        subject.subject_id,
        subject.patient_id,
        -1 if subject.label is None else subject.label,
        categories,
        dict(zip(modalities, _levels(loaded.image, brain, masked), strict=True)),
        identical,
        float((masked & ~brain).sum() / max(int(masked.sum()), 1)),
    )


def _levels(
    image: NDArray[np.float32], brain: NDArray[np.bool_], masked: NDArray[np.bool_]
) -> list[tuple[float, ...]]:
    """Return percentiles of each modality in the brain beside the tumour."""
    healthy = brain & ~masked
    inside = image[:, healthy if healthy.any() else brain]  # C voxels
    return [tuple(np.percentile(channel, PERCENTILES).tolist()) for channel in inside]


def visible_shortcuts(traits: Sequence[Traits], classes: Sequence[str]) -> list[Problem]:
    """Return a warning for every trait that is tied to the class, counted by patient.

    Categories are judged by the chi-square test and Cramér's V, numbers by the rank-sum test of
    the two most frequent classes and its AUC.
    """
    by_patient: defaultdict[str, list[Traits]] = defaultdict(list)
    for one in traits:
        by_patient[one.patient_id].append(one)
    patients = [group for _, group in sorted(by_patient.items())]
    problems = _identical_modalities(patients, classes)
    if not patients:
        return problems
    labels = np.array([max(one.label for one in group) for group in patients])
    for name in patients[0][0].categories:
        values = [" and ".join(sorted({t.categories[name] for t in group})) for group in patients]
        problems += _tied_category(name, values, labels, classes)
    for name in patients[0][0].levels:
        bright = np.array([np.mean([t.levels[name][BRIGHT] for t in group]) for group in patients])
        problems += _tied_number(f"brightness of {name}", bright, labels, classes)
    return problems


def _identical_modalities(
    patients: Sequence[Sequence[Traits]], classes: Sequence[str]
) -> list[Problem]:
    affected = [group for group in patients if any(one.identical for one in group)]
    if not affected:
        return []
    counts = Counter(max(one.label for one in group) for group in affected)
    totals = Counter(max(one.label for one in group) for group in patients)
    shares = ", ".join(f"{counts[i]} of {totals[i]} {name}" for i, name in enumerate(classes))
    pairs = sorted({pair for group in affected for one in group for pair in one.identical})
    ids = ", ".join(group[0].patient_id for group in affected[:6])
    return [
        Problem(
            "missing sequences",
            "modalities that differ",
            f"the same values in {', '.join(pairs)} for {len(affected)} patients ({shares}): {ids}",
            "A network can tell the class by that: add them to data.exclude, or report without.",
            "warning",
        )
    ]


def _tied_category(
    name: str, values: Sequence[str], labels: NDArray[np.int64], classes: Sequence[str]
) -> list[Problem]:
    table = pd.crosstab(np.array(values), labels)
    if min(table.shape) < 2:
        return []
    chi2, p_value, _, _ = stats.chi2_contingency(table, correction=False)
    strength = float(np.sqrt(chi2 / (len(labels) * (min(table.shape) - 1))))
    if p_value > SIGNIFICANCE or strength < ASSOCIATION:
        return []
    names = [classes[int(label)] for label in table.columns.to_numpy()]
    rows = [
        f"{kind or 'unknown'}: "
        + ", ".join(f"{count} {name}" for count, name in zip(row, names, strict=True))
        for kind, row in zip(table.index, table.to_numpy().tolist(), strict=True)
    ]
    found = f"they are tied (Cramér's V {strength:.2f}, p {p_value:.1g}): {'; '.join(rows[:8])}"
    fix = "Report results by it, or set data.test_sites." if name == "site" else "Report by it."
    return [Problem(f"{name} and class", "no relation", found, fix, "warning")]


def _tied_number(
    name: str, numbers: NDArray[np.float64], labels: NDArray[np.int64], classes: Sequence[str]
) -> list[Problem]:
    groups = [label for label, _ in Counter(labels.tolist()).most_common(2)]
    if len(groups) < 2:
        return []
    first, second = (numbers[labels == label] for label in sorted(groups))
    result = stats.mannwhitneyu(first, second)
    auc = float(result.statistic) / (len(first) * len(second))
    if result.pvalue > SIGNIFICANCE or abs(2 * auc - 1) < ASSOCIATION:
        return []
    names = [classes[label] for label in sorted(groups)]
    medians = f"median {np.median(first):.4g} in {names[0]}, {np.median(second):.4g} in {names[1]}"
    found = f"they are tied (AUC {max(auc, 1 - auc):.2f}, p {result.pvalue:.1g}): {medians}"
    fix = "Keep data.normalisation on; look for scanners that saw one class only."
    return [Problem(f"{name} and class", "no relation", found, fix, "warning")]
