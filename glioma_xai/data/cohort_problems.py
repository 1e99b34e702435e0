"""What is wrong with a cohort as a whole, once its subjects have been read."""

from collections import defaultdict
from collections.abc import Mapping, Sequence

from glioma_xai.data.layout import Listing, repeated_ids
from glioma_xai.data.preparing import Entry
from glioma_xai.errors import CohortError
from glioma_xai.records import SPLITS, Problem, Split, Subject

MOST_OUTSIDE = 0.2
"""Largest share of a mask that may lie outside of the brain without a warning."""


def usable_subjects(listing: Listing, *, graded: bool) -> list[Subject]:
    """Return the subjects that may be used: graded where that matters, and not refused."""
    refused = listing.refused | repeated_ids(listing.subjects)
    return [
        subject
        for subject in listing.subjects
        if subject.subject_id not in refused and (subject.label is not None or not graded)
    ]


def require_no_errors(problems: Sequence[Problem], what: str, *, most: int = 50) -> None:
    """Raise a CohortError that lists every error, one line each."""
    errors = [problem for problem in problems if problem.severity == "error"]
    if not errors:
        return
    lines = [f"  {problem}" for problem in errors[:most]]
    if len(errors) > most:
        lines.append(f"  and {len(errors) - most} more; glioma-xai-check lists all")
    raise CohortError(
        f"{what} must be free of errors, found {len(errors)}. Repair them, add the ids to "
        "data.exclude, or leave them out with data.on_error=skip:\n" + "\n".join(lines)
    )


def duplicate_problems(
    entries: Sequence[Entry], classes: Sequence[str], splits: Mapping[str, Split] | None = None
) -> list[Problem]:
    """Report subjects with the same images: one may test what another has trained.

    Args:
        entries: Prepared subjects.
        classes: Class names.
        splits: Split of each patient, if they have been drawn.
    """
    by_content: defaultdict[str, list[Subject]] = defaultdict(list)
    for entry in entries:
        by_content[entry.geometry["digest"]].append(entry.subject)
    return [
        Problem(
            ", ".join(subject.subject_id for subject in same[:6]),
            "different images",
            f"the same content in {len(same)} subjects of {_whose(same, classes, splits)}",
            "Keep one and add the others to data.exclude.",
        )
        for same in by_content.values()
        if len(same) > 1
    ]


def _whose(
    same: Sequence[Subject], classes: Sequence[str], splits: Mapping[str, Split] | None
) -> str:
    """Say whose images are alike: number of patients, their classes and splits."""
    patients = dict.fromkeys(subject.patient_id for subject in same)
    labels = sorted({subject.label for subject in same if subject.label is not None})
    words = [" and ".join(classes[label] for label in labels)] if labels else []
    if splits is not None:
        words.append(" and ".join(s for s in SPLITS if s in {splits.get(p) for p in patients}))
    count = f"{len(patients)} patient{'s' if len(patients) > 1 else ''}"
    return f"{count} ({', '.join(word for word in words if word)})" if any(words) else count


def class_problems(subjects: Sequence[Subject], classes: Sequence[str]) -> list[Problem]:
    """Warn of patients whose scans are of several classes."""
    labels: defaultdict[str, set[int]] = defaultdict(set)
    for subject in subjects:
        if subject.label is not None:
            labels[subject.patient_id].add(subject.label)
    fix = "Correct the grade, unless the tumour changed; splits go by the highest."
    return [
        Problem(
            patient, "one class", " and ".join(classes[i] for i in sorted(found)), fix, "warning"
        )
        for patient, found in labels.items()
        if len(found) > 1
    ]


def empty_masks(entries: Sequence[Entry]) -> list[Problem]:
    """Warn of masks that mark nothing."""
    fix = "The subject is used for classification only."
    return [
        Problem(str(entry.subject.lesion_mask), "a tumour", "an empty mask", fix, "warning")
        for entry in entries
        if entry.geometry["empty_mask"]
    ]


def misplaced_masks(outside: Mapping[str, float]) -> list[Problem]:
    """Warn of masks that do not lie on the brain.

    Args:
        outside: Share of each subject's mask that lies outside of the brain.
    """
    fix = "Look at it: it may be turned, shifted, or another subject's."
    return [
        Problem(subject_id, "a mask on the brain", f"{share:.0%} of it outside", fix, "warning")
        for subject_id, share in outside.items()
        if share > MOST_OUTSIDE
    ]


def window_problems(entries: Sequence[Entry]) -> list[Problem]:
    """Warn if the window cuts into the brain of some subjects."""
    cut = [entry.subject.subject_id for entry in entries if not entry.geometry["brain_fits"]]
    if not cut:
        return []
    found = f"{len(cut)} of {len(entries)} cut off at the window's edge, such as {cut[0]}"
    fix = "Raise data.spatial_size or data.spacing_mm if that matters."
    return [Problem("data.spatial_size", "the whole brain inside", found, fix, "warning")]
