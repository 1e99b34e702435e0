"""Any cohort that a table describes: one row a volume or an image."""

from collections import defaultdict
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from types import MappingProxyType

import pandas as pd

from glioma_xai.data.layout import Listing, class_index, nearest_name
from glioma_xai.data.user_tables import read_table
from glioma_xai.errors import CohortError, ConfigError
from glioma_xai.records import MODALITIES, SPLITS, Problem, Split, Subject

ROLES = (
    "patient",
    "subject",
    "slice",
    "label",
    "site",
    "session",
    "split",
    "fold",
    "mask",
    "image",
)


def list_manifest(
    manifest: Path,
    *,
    root: Path | None,
    columns: Mapping[str, str],
    classes: Sequence[str],
    modalities: Sequence[str],
    label_values: Mapping[str, int] | None,
    label_map: Mapping[str, str] = MappingProxyType({}),
    allow_outside_root: bool = False,
    exclude: Collection[str] = (),
    graded: bool = True,
) -> Listing:
    """Return the subjects of a CSV or JSON table.

    Args:
        manifest: A CSV with a header, or a JSON list of records.
        root: Folder that file names are relative to; the manifest's own if None.
        columns: Column of each role, where it is not called like the role.
        classes: Class names in the order of their index.
        modalities: Channels; for a file with all channels, their names in the file's order.
        label_values: Mask value of each part of the tumour; None tells it from the masks.
        label_map: Value of the label column to class name, where they differ.
        allow_outside_root: True lets file names leave the folder.
        exclude: Patients or subjects whose rows are passed over.
        graded: False asks for no grades.

    Raises:
        CohortError: If the table cannot be read or lacks a column.
        ConfigError: If ``columns`` names an unknown role.
    """
    table = read_table(manifest)
    names = _resolve_columns(table, columns, modalities, manifest, graded=graded)
    folder = (root or manifest.parent).resolve()
    subjects: list[Subject] = []
    problems: list[Problem] = []
    refused: set[str] = set()
    counted = "record" if manifest.suffix.lower() == ".json" else "line"
    for number, row in zip(table.index, table.to_dict("records"), strict=True):
        cells = {role: str(row[column]).strip() for role, column in names.items()}
        where = f"{manifest.name} {counted} {number}"
        reader = _RowReader(where, cells, folder, label_map, allow_outside_root)
        subject = reader.subject(classes, modalities, graded=graded)
        if subject is not None and {subject.subject_id, subject.patient_id} & set(exclude):
            continue
        problems += reader.problems
        if subject is not None:
            subjects.append(subject)
            if reader.problems:
                refused.add(subject.subject_id)
    problems += _duplicates(subjects, manifest)
    subjects.sort(key=lambda subject: subject.subject_id)
    return Listing(tuple(subjects), tuple(problems), label_values, refused=frozenset(refused))


def _resolve_columns(
    table: pd.DataFrame,
    columns: Mapping[str, str],
    modalities: Sequence[str],
    manifest: Path,
    *,
    graded: bool,
) -> dict[str, str]:
    """Return the column of each role that the table has."""
    roles = (*ROLES, *dict.fromkeys((*modalities, *MODALITIES)))
    for role, column in columns.items():
        if role not in roles:
            raise ConfigError(
                f"data.columns must map roles to columns: expected roles {', '.join(roles)}, "
                f"got {role}{nearest_name(role, roles)}. Rename the role."
            )
        if column not in table.columns:
            _raise_missing(manifest, role, column, table)
    names = {role: columns.get(role, role) for role in roles}
    names = {role: column for role, column in names.items() if column in table.columns}
    for role in ("patient", "label") if graded else ("patient",):
        if role not in names:
            _raise_missing(manifest, role, role, table)
    if "image" not in names and not any(name in names for name in modalities):
        _raise_missing(manifest, "image", "image", table)
    return names


def _raise_missing(manifest: Path, role: str, column: str, table: pd.DataFrame) -> None:
    found = [str(name) for name in table.columns]
    raise CohortError(
        f"{manifest}: expected a column {column} for {role}, found {', '.join(found)}"
        f"{nearest_name(column, found)}. Name it in data.columns={{{role}: <column>}}."
    )


class _RowReader:
    """Reads one row and keeps what is wrong with it."""

    def __init__(
        self,
        where: str,
        cells: Mapping[str, str],
        folder: Path,
        label_map: Mapping[str, str],
        allow_outside_root: bool,
    ) -> None:
        self.label_map = label_map
        self.where, self.cells, self.folder = where, cells, folder
        self.allow_outside_root = allow_outside_root
        self.problems: list[Problem] = []

    def subject(
        self, classes: Sequence[str], modalities: Sequence[str], *, graded: bool
    ) -> Subject | None:
        """Return the row as a subject, or None if it cannot be one."""
        cells = self.cells
        patient = cells["patient"]
        if not patient:
            self._report("a patient", "an empty cell", "Fill it in.")
            return None
        name = cells.get("label", "")
        label = class_index(name, classes, self.label_map)
        if label is None and graded:
            found = f"label {name}" if name else "no label"
            fix = "Correct it, name the class in data.classes, or add the id to data.exclude."
            self._report(f"one of {', '.join(classes)}", found, fix)
        channels: tuple[str, ...] = ()
        images = {name: self._path(name) for name in modalities if cells.get(name)}
        if cells.get("image") and not images:
            images, channels = {"image": self._path("image")}, tuple(modalities)
        number = self._number("slice")
        parts = [cells.get("session", ""), "" if number is None else str(number)]
        files = {name: path for name, path in images.items() if path is not None}
        return Subject(
            subject_id=cells.get("subject") or "_".join(filter(None, [patient, *parts])),
            patient_id=patient,
            label=label,
            images=files,
            channels=channels if files else (),
            lesion_mask=self._path("mask") if cells.get("mask") else None,
            site=cells.get("site") or None,
            slice_index=number,
            split=self._split(),
            fold=self._number("fold"),
        )

    def _report(self, expected: str, found: str, fix: str) -> None:
        self.problems.append(Problem(self.where, expected, found, fix))

    def _path(self, role: str) -> Path | None:
        path = self.folder / self.cells[role]
        inside = path.resolve().is_relative_to(self.folder)
        if not inside and not self.allow_outside_root:
            fix = "Move the file, set data.root, or set data.allow_outside_root=true."
            self._report(f"a file inside {self.folder}", self.cells[role], fix)
            return None
        return path

    def _number(self, role: str) -> int | None:
        text = self.cells.get(role, "")
        if not text:
            return None
        try:
            if float(text).is_integer():
                return int(float(text))
        except ValueError:
            pass
        self._report(f"a whole number as {role}", text, "Correct it.")
        return None

    def _split(self) -> Split | None:
        text = self.cells.get("split", "").lower()
        aliases = {"training": "train", "val": "validation", "valid": "validation"}
        text = aliases.get(text, text)
        for split in SPLITS:
            if text == split:
                return split
        if text:
            self._report(f"a split of {', '.join(SPLITS)}", text, "Rename it.")
        return None


def _duplicates(subjects: Sequence[Subject], manifest: Path) -> list[Problem]:
    """Report ids and image files that occur more than once."""
    problems = []
    by_id: defaultdict[str, int] = defaultdict(int)
    by_file: defaultdict[Path, list[str]] = defaultdict(list)
    for subject in subjects:
        by_id[subject.subject_id] += 1
        for path in set(subject.images.values()):
            by_file[path].append(subject.subject_id)
    for subject_id, count in by_id.items():
        if count > 1:
            fix = "Remove the duplicate, or tell rows apart by subject, session or slice."
            found = f"{count} rows"
            problems.append(Problem(f"{manifest.name} {subject_id}", "one row", found, fix))
    for path, ids in by_file.items():
        if len(set(ids)) > 1:
            found = f"it under {', '.join(ids)}"
            fix = "Give each row its own file."
            problems.append(Problem(str(path), "one subject that uses the file", found, fix))
    return problems
