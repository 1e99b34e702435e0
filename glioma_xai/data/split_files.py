"""Splits on disk, so that a later run tests the same patients."""

import csv
from collections import defaultdict
from collections.abc import Collection, Iterable, Mapping
from pathlib import Path
from typing import cast

from glioma_xai.data.user_tables import read_table
from glioma_xai.errors import CohortError
from glioma_xai.records import SPLITS, Split


def write_splits(assignment: Mapping[str, Split], path: Path) -> None:
    """Write a CSV with the columns patient and split."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(["patient", "split"])
        writer.writerows(sorted(assignment.items()))


def read_splits(
    path: Path, patients: Iterable[str], *, also: Collection[str] = ()
) -> dict[str, Split]:
    """Read what ``write_splits`` wrote and check it against the cohort's patients.

    Args:
        path: The file.
        patients: Who is used; each must be in the file.
        also: Who may be in the file besides, and is left out.

    Raises:
        CohortError: If the file is absent, a patient is in two splits, a split is unknown, or
            the file and the cohort do not have the same patients.
    """
    if not path.is_file():
        raise CohortError(
            f"data.splits_file must exist: expected a file at {path}, found none. "
            "Write it with write_splits, or set data.splits_file=null to draw the splits."
        )
    table = read_table(path)
    if not {"patient", "split"} <= set(table.columns):
        raise CohortError(
            f"{path}: expected the columns patient and split, found {', '.join(table.columns)}. "
            "Add a header line `patient,split`."
        )
    rows = zip(table["patient"].str.strip(), table["split"].str.strip(), strict=True)
    assignment = unique_splits(rows, str(path))
    known = set(patients)
    for found_in, absent_from, ids in (
        (str(path), "the cohort", set(assignment) - known - set(also)),
        ("the cohort", str(path), known - set(assignment)),
    ):
        if ids:
            raise CohortError(
                f"{path}: expected the patients of the cohort, found {len(ids)} in {found_in} that "
                f"are not in {absent_from}: {', '.join(sorted(ids)[:5])}. "
                "Use the file that belongs to this cohort, or data.splits_file=null."
            )
    return {patient: split for patient, split in assignment.items() if patient in known}


def unique_splits(rows: Iterable[tuple[str, str]], source: str) -> dict[str, Split]:
    """Return the split of each patient.

    Args:
        rows: Patient and split, once or more for each patient.
        source: Where the rows come from, for the message.

    Raises:
        CohortError: If a patient is in two splits or a split is unknown; the patient is named.
    """
    found: defaultdict[str, set[str]] = defaultdict(set)
    for patient, split in rows:
        found[patient].add(split)
    for patient, splits in sorted(found.items()):
        unknown = splits - set(SPLITS)
        if unknown:
            raise CohortError(
                f"{source}: split must be one of {', '.join(SPLITS)}, found {min(unknown)} "
                f"for patient {patient}. Rename it."
            )
        if len(splits) > 1:
            raise CohortError(
                f"{source}: patient {patient} must be in one split, found "
                f"{', '.join(sorted(splits))}. "
                "Give all scans and slices of a patient the same split."
            )
    return {patient: cast(Split, splits.pop()) for patient, splits in found.items()}
