"""A cohort that has been listed, checked, prepared and split."""

from collections.abc import Collection, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from glioma_xai.data.brats import patient_of
from glioma_xai.data.cache import PreparedCache
from glioma_xai.data.cohort_problems import (
    duplicate_problems,
    empty_masks,
    require_no_errors,
    usable_subjects,
    window_problems,
)
from glioma_xai.data.intensities import NORMALISED_RANGE
from glioma_xai.data.layout import Listing, nearest_name
from glioma_xai.data.preparing import Entry, prepare_subjects
from glioma_xai.data.reading import CohortSource
from glioma_xai.data.schemes import with_label_values
from glioma_xai.data.split_files import read_splits
from glioma_xai.data.split_settings import Division
from glioma_xai.data.splits import guided_patients, patient_labels, split_patients
from glioma_xai.data.table import sample_table, with_control_masks
from glioma_xai.data.transforms import Preparation
from glioma_xai.errors import CohortError
from glioma_xai.records import Problem, Split, Subject


@dataclass(frozen=True)
class PreparedCohort:
    """Subjects in the cache and the table of their samples.

    Args:
        source: Where the cohort came from.
        preparation: How it was prepared, with the label scheme that was found.
        cache: Where the arrays lie.
        entries: Prepared subjects.
        splits: Split of each patient.
        table: A row a sample, see ``sample_table``.
        warnings: Problems that do not stop training.
        left_out: Problems of what was left out.
        workers: Processes that prepare variants; None for every core.
    """

    source: CohortSource
    preparation: Preparation
    cache: PreparedCache
    entries: tuple[Entry, ...]
    splits: dict[str, Split]
    table: pd.DataFrame
    warnings: list[Problem]
    left_out: list[Problem]
    workers: int | None = None

    def entry(self, subject_id: str) -> Entry:
        """Return a subject's entry, or raise a CohortError that names the nearest id."""
        for entry in self.entries:
            if entry.subject.subject_id == subject_id:
                return entry
        raise self._unknown(subject_id)

    def _unknown(self, subject_id: str) -> CohortError:
        known = [entry.subject.subject_id for entry in self.entries]
        return CohortError(
            f"subject must be an id of the cohort, got {subject_id}"
            f"{nearest_name(subject_id, known)}. The table's column subject_id lists {len(known)}."
        )

    def rows_of(self, subject_id: str) -> pd.DataFrame:
        """Return the table of one subject, or of all scans of a patient.

        Raises:
            CohortError: If the cohort has no such id; the nearest one is named.
        """
        for column in ("subject_id", "patient_id"):
            rows = self.table[self.table[column] == subject_id]
            if not rows.empty:
                return rows
        raise self._unknown(subject_id)

    def class_weights(self) -> NDArray[np.float32]:
        """Return inverse share of each class in training (classes,), mean 1 a sample."""
        labels = self.rows("train")["label"].to_numpy(np.int64)
        counts = np.bincount(labels, minlength=len(self.source.classes))
        return np.asarray(counts.sum() / (len(counts) * counts), np.float32)

    def normalised_range(self) -> tuple[float, float]:
        """Return the smallest and largest value an image can have."""
        fixed = NORMALISED_RANGE.get(self.preparation.normalisation)
        if fixed is not None:
            return fixed
        ranges = np.array([entry.geometry["value_range"] for entry in self.entries])
        return float(ranges[:, 0].min()), float(ranges[:, 1].max())

    def rows(self, split: Split, variant: str | None = None) -> pd.DataFrame:
        """Return the table of one split, from the cohort itself or from a variant of it."""
        rows = self.table[self.table["split"] == split]
        return rows if variant is None else self._in_variant(rows, variant)

    def _in_variant(self, rows: pd.DataFrame, variant: str) -> pd.DataFrame:
        """Point the same samples to the variant's arrays; prepares them the first time."""
        known = self.source.variants()
        if variant not in known:
            listed = ", ".join(known) or "none: this cohort has no variants"
            raise CohortError(
                f"variant must be one of {listed}, got {variant}. "
                "A phantom cohort has variants if it has a shortcut."
            )
        wanted = set(rows["subject_id"])
        listing = self.source.listing(variant=variant, graded=False)
        subjects = [subject for subject in listing.subjects if subject.subject_id in wanted]
        slices = {e.subject.subject_id: e.geometry["slices"] for e in self.entries}
        entries, problems = prepare_subjects(
            subjects, self.preparation, self.cache, workers=self.workers, slices=slices
        )
        require_no_errors(problems, f"variant {variant}")
        places = {
            (entry.subject.subject_id, number): (entry.key, row)
            for entry in entries
            for row, number in enumerate(entry.geometry["native_slices"] or [-1])
        }
        keys = list(zip(rows["subject_id"], rows["slice_index"], strict=True))
        absent = [f"{key[0]} slice {key[1]}" for key in keys if key not in places]
        if absent:
            raise CohortError(
                f"variant {variant} must hold the samples of the cohort, found none for "
                f"{', '.join(absent[:3])}. Write the cohort again."
            )
        return rows.assign(
            entry=[places[key][0] for key in keys], row=[places[key][1] for key in keys]
        )


def prepare_cohort(
    source: CohortSource,
    preparation: Preparation,
    division: Division,
    *,
    cache_dir: Path,
    workers: int | None = None,
    skip_errors: bool = False,
    graded: bool = True,
) -> PreparedCohort:
    """List, check, prepare and split a cohort.

    Args:
        source: Where it is.
        preparation: How subjects are prepared; a label scheme that the cohort's edition prescribes
            is filled in.
        division: How patients are divided.
        cache_dir: Prepared subjects go to its folder ``prepared``.
        workers: Subjects prepared at a time; None takes every core.
        skip_errors: Leave out what cannot be used instead of raising.
        graded: False asks for no grades and no splits: every sample is in ``test``.

    Raises:
        CohortError: If anything is wrong; all problems are listed at once.
    """
    listing = with_label_values(source.listing(graded=graded), preparation.region)
    preparation = replace(preparation, label_values=listing.label_values)
    usable = usable_subjects(listing, graded=graded)
    cache = PreparedCache(cache_dir / "prepared")
    entries, problems = prepare_subjects(usable, preparation, cache, workers=workers)
    problems = [*listing.problems, *problems, *empty_masks(entries), *window_problems(entries)]
    duplicates = duplicate_problems(entries, source.classes)
    if skip_errors:
        entries = _first_of_each(entries)
    problems += duplicates
    errors = [problem for problem in problems if problem.severity == "error"]
    if not skip_errors or not entries:
        require_no_errors(errors, "the cohort")
    subjects = [entry.subject for entry in entries]
    guided: frozenset[str] = frozenset()
    splits: dict[str, Split] = {subject.patient_id: "test" for subject in subjects}
    if graded:
        splits = splits_of(
            subjects, source.classes, division, listing=listing, exclude=source.exclude
        )
        seed = division.settings.seed
        masked = {e.subject.patient_id for e in entries if any(e.geometry["lesion_area"])}
        labels = patient_labels(subjects)
        guided = guided_patients(splits, labels, division.mask_share, seed, masked=masked)
    table = sample_table(entries, splits=splits, classes=source.classes, guided=guided)
    if graded and preparation.annotation.control:
        table = with_control_masks(table, division.settings.seed)
    return PreparedCohort(
        source=source,
        preparation=preparation,
        cache=cache,
        entries=tuple(entries),
        splits=splits,
        table=table,
        warnings=[problem for problem in problems if problem.severity == "warning"],
        left_out=errors,
        workers=workers,
    )


def _first_of_each(entries: Sequence[Entry]) -> list[Entry]:
    """Return the entries without repeated content."""
    return list({entry.geometry["digest"]: entry for entry in reversed(entries)}.values())[::-1]


def splits_of(
    subjects: Sequence[Subject],
    classes: Sequence[str],
    division: Division,
    *,
    listing: Listing,
    exclude: Collection[str],
) -> dict[str, Split]:
    """Return the split of each patient: read from the file if one is named, else drawn.

    Args:
        subjects: That are used.
        classes: Class names.
        division: How patients are divided.
        listing: All subjects of the cohort; those not used may be in the file.
        exclude: Ids that were passed over; they may be in the file, too.

    Raises:
        CohortError: If they cannot be read or drawn, or a class is not trained on.
    """
    if division.splits_file is None:
        return split_patients(subjects, classes, division.settings)
    labels = patient_labels(subjects)
    known = {subject.patient_id for subject in listing.subjects}.union(
        exclude, map(patient_of, exclude)
    )
    splits = read_splits(division.splits_file, labels, also=known)
    trained = {labels[patient] for patient, split in splits.items() if split == "train"}
    absent = [name for index, name in enumerate(classes) if index not in trained]
    if trained and absent:
        raise CohortError(
            f"{division.splits_file}: expected patients of every class in train, found none of "
            f"{', '.join(absent)}. Move some there."
        )
    return splits
