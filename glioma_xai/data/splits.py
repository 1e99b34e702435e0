"""Which patient is trained on, which selects the epoch, which is tested."""

import hashlib
from collections import Counter, defaultdict
from collections.abc import Collection, Iterable, Mapping, Sequence

from glioma_xai.data.split_files import unique_splits
from glioma_xai.data.split_settings import SplitSettings
from glioma_xai.errors import CohortError
from glioma_xai.records import Split, Subject


def split_patients(
    subjects: Sequence[Subject], classes: Sequence[str], settings: SplitSettings
) -> dict[str, Split]:
    """Return the split of every patient, balanced by class and, where known, by site.

    Splits and folds that the cohort prescribes are kept; the other patients of each class are
    ordered by site and then by a hash of seed and id, and taken at equal distances.

    Raises:
        CohortError: If there is one class only, a class is too small to be in every split, or the
            cohort puts a patient into two splits.
    """
    classes_of, sites = _patients(subjects)
    if settings.test_share == 1:
        return dict.fromkeys(sorted(classes_of), "test")
    prescribed = prescribed_splits(subjects)
    if settings.test_sites:
        _require_untested(prescribed, "data.test_sites tests the patients of these sites alone")
        prescribed |= _tested_by_site(sites, settings.test_sites)
    folds = _prescribed_folds(subjects)
    _require_known_fold({p: fold for p, fold in folds.items() if p not in prescribed}, settings)
    tests_folds = settings.fold_split == "test"
    if tests_folds:
        _require_foldable(prescribed, folds, settings)
    assignment: dict[str, Split] = dict(prescribed)
    for label, name in enumerate(classes):
        patients = [p for p in classes_of if classes_of[p] == label and p not in assignment]
        patients.sort(key=lambda p: (sites[p], _hash(settings.seed, p)))
        tested: set[str] = set()
        if tests_folds:
            tested = _held_out(name, patients, folds, settings)
        elif "test" not in prescribed.values():
            tested = {patients[i] for i in _spread(len(patients), settings.test_share)}
        rest = [p for p in patients if p not in tested]
        if not tests_folds and (settings.folds is not None or any(p in folds for p in rest)):
            validation = _held_out(name, rest, folds, settings)
        else:
            validation = _drawn(rest, len(patients), prescribed, settings)
        for patient in patients:
            held: Split = "validation" if patient in validation else "train"
            assignment[patient] = "test" if patient in tested else held
        _require_enough(name, label, classes_of, assignment, settings)
    _require_two_classes(classes_of, classes)
    return {patient: assignment[patient] for patient in sorted(assignment)}


def _drawn(
    rest: Sequence[str], count: int, prescribed: Mapping[str, Split], settings: SplitSettings
) -> set[str]:
    """Patients for validation, out of those that are not tested."""
    if "validation" in prescribed.values():
        return set()
    share = settings.validation_share
    if settings.fold_split == "test":  # a share of all patients, not of the rest
        share *= count / max(1, len(rest))
    elif "test" not in prescribed.values():
        share /= 1 - settings.test_share
    return {rest[i] for i in _spread(len(rest), share)}


def _held_out(
    name: str, patients: Sequence[str], folds: Mapping[str, int], settings: SplitSettings
) -> set[str]:
    """The patients of a class that are in the fold, by the cohort's own folds if it has some."""
    if any(patient in folds for patient in patients):
        return {patient for patient in patients if folds.get(patient) == settings.fold}
    if settings.folds is not None and 0 < len(patients) < settings.folds:
        raise CohortError(
            f"class {name} must have a patient in each of {settings.folds} folds, found "
            f"{len(patients)}. Add patients of this class, or set "
            f"data.folds={max(len(patients), 2)}."
        )
    return set(patients[settings.fold :: settings.folds])


def _require_foldable(
    prescribed: Mapping[str, Split], folds: Mapping[str, int], settings: SplitSettings
) -> None:
    _require_untested(prescribed, "data.fold_split=test tests every patient in one fold")
    if settings.folds is None and not folds:
        raise CohortError(
            "data.fold_split=test needs folds: expected data.folds, found null. Set data.folds=5."
        )


def _require_untested(prescribed: Mapping[str, Split], why: str) -> None:
    if "test" in prescribed.values():
        raise CohortError(
            f"{why}: expected no other test patients, found some. Leave out one of "
            "data.test_sites, data.fold_split=test and the cohort's split column."
        )


def _require_known_fold(folds: Mapping[str, int], settings: SplitSettings) -> None:
    """Refuse a fold that no patient is in, or that there are no folds for."""
    known = sorted(set(folds.values())) or list(range(settings.folds or 1))
    if settings.fold not in known:
        listed = ", ".join(str(fold) for fold in known)
        raise CohortError(
            f"data.fold must be one of {listed}, found {settings.fold}. Set it to one of them"
            f"{'' if folds or settings.folds else ', or set data.folds'}."
        )


def prescribed_splits(subjects: Iterable[Subject]) -> dict[str, Split]:
    """Return the split of each patient for whom the cohort names one.

    Raises:
        CohortError: If a patient is in two splits; the message names the patient.
    """
    rows = [(s.patient_id, s.split) for s in subjects if s.split is not None]
    return unique_splits(rows, "the cohort's split column")


def guided_patients(
    assignment: Mapping[str, Split],
    labels: Mapping[str, int],
    share: float,
    seed: int,
    *,
    masked: Collection[str],
) -> frozenset[str]:
    """Return the training patients whose lesion masks may be used.

    The same share of each class, at least one patient of each if the share is above 0; patients
    of a smaller share are among those of a larger one. Those who have a mask come first.

    Args:
        assignment: Split of each patient.
        labels: Class of each patient.
        share: Of the training patients, in [0, 1].
        seed: Of the draw.
        masked: Patients who have a mask.
    """
    chosen: set[str] = set()
    for label in set(labels.values()):
        patients = [p for p, s in assignment.items() if s == "train" and labels[p] == label]
        patients.sort(key=lambda p: (p not in masked, _hash(seed, f"masks {p}")))
        count = round(share * len(patients))
        chosen.update(patients[: max(count, 1) if share > 0 else 0])
    return frozenset(chosen)


def patient_labels(subjects: Iterable[Subject]) -> dict[str, int]:
    """Return the class of each patient: the highest of the scans that are graded."""
    return _patients(subjects)[0]


def _patients(subjects: Iterable[Subject]) -> tuple[dict[str, int], dict[str, str]]:
    labels: dict[str, int] = {}
    sites: dict[str, str] = {}
    for subject in subjects:
        if subject.label is not None:
            labels[subject.patient_id] = max(subject.label, labels.get(subject.patient_id, 0))
            site = min(subject.site or "", sites.get(subject.patient_id, subject.site or ""))
            sites[subject.patient_id] = site
    return labels, sites


def _tested_by_site(sites: Mapping[str, str], wanted: Sequence[str]) -> dict[str, Split]:
    unknown = sorted(set(wanted) - set(sites.values()))
    if unknown:
        known = ", ".join(sorted(set(sites.values()) - {""})) or "no sites at all"
        raise CohortError(
            f"data.test_sites must be sites of the cohort ({known}), found {', '.join(unknown)}. "
            "Correct it, or name the column in data.columns={site: <column>}."
        )
    return {patient: "test" for patient, site in sites.items() if site in wanted}


def _prescribed_folds(subjects: Iterable[Subject]) -> dict[str, int]:
    found: defaultdict[str, set[int]] = defaultdict(set)
    for subject in subjects:
        if subject.fold is not None:
            found[subject.patient_id].add(subject.fold)
    for patient, folds in found.items():
        if len(folds) > 1:
            raise CohortError(
                f"patient {patient} must be in one fold, found {sorted(folds)}. "
                "Give all rows of a patient the same fold."
            )
    return {patient: folds.pop() for patient, folds in found.items()}


def _hash(seed: int, name: str) -> str:
    return hashlib.sha256(f"{seed}\n{name}".encode()).hexdigest()


def _spread(count: int, share: float) -> list[int]:
    """Return round(share * count) positions at equal distances in [0, count)."""
    wanted = round(share * count)
    return [int((i + 0.5) * count / wanted) for i in range(wanted)]


def _require_enough(
    name: str,
    label: int,
    classes_of: Mapping[str, int],
    assignment: Mapping[str, Split],
    settings: SplitSettings,
) -> None:
    counts = Counter(assignment[p] for p, found in classes_of.items() if found == label)
    wanted: list[Split] = ["train"]
    if settings.validation_share > 0 or settings.folds is not None:
        wanted.append("validation")
    if settings.test_share > 0 or settings.test_sites or settings.fold_split == "test":
        wanted.append("test")
    absent = [split for split in wanted if not counts[split]]
    if counts and absent:
        raise CohortError(
            f"class {name} must have patients in {', '.join(wanted)}, found {sum(counts.values())} "
            f"in all and none in {', '.join(absent)}. Add patients of this class, or change "
            "data.test_share, data.validation_share or data.folds."
        )


def _require_two_classes(classes_of: Mapping[str, int], classes: Sequence[str]) -> None:
    present = [name for label, name in enumerate(classes) if label in classes_of.values()]
    if len(present) < len(classes):
        absent = [name for name in classes if name not in present]
        raise CohortError(
            f"the cohort must have patients of {', '.join(classes)}, found none of "
            f"{', '.join(absent)}. Add them, name in data.classes the classes that are there, or "
            "test the cohort without training: data.test_share=1."
        )
