"""Grades from a table of the user's own, for cohorts that come without."""

import re
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from glioma_xai.data.layout import Listing, class_index, nearest_name
from glioma_xai.data.user_tables import read_table
from glioma_xai.errors import CohortError, ConfigError
from glioma_xai.records import Problem, Subject

ID_COLUMNS = ("subject", "patient", "id", "case")
LABEL_COLUMNS = ("label", "grade", "class")
SITE_COLUMNS = ("site",)
ROLES = ("subject", "patient", "label", "site")


def join_grades(
    listing: Listing,
    table: Path,
    *,
    columns: Mapping[str, str],
    classes: Sequence[str],
    label_map: Mapping[str, str],
    graded: bool = True,
) -> Listing:
    """Return the listing with the class of each subject taken from a table.

    A row belongs to a subject if its id is that of the subject or the patient; capitals and
    leading zeros of numbers do not matter, and an id may go on with a date or a slice after
    ``_`` or ``-``.

    Args:
        listing: Subjects without a class.
        table: CSV with a header, or a JSON list of records.
        columns: Column of the roles ``subject`` or ``patient``, ``label`` and ``site``, where it
            is not called like the role.
        classes: Class names in the order of their index.
        label_map: Value of the label column to class name, where they differ.
        graded: False asks for no grades: who is not in the table has no class.

    Raises:
        CohortError: If the table cannot be read or lacks a column.
        ConfigError: If ``columns`` names an unknown role.
    """
    rows = read_table(table)
    known = [str(name) for name in rows.columns]
    _require_roles(columns)
    id_column = _column(table, known, columns.get("subject") or columns.get("patient"), ID_COLUMNS)
    label_column = _column(table, known, columns.get("label"), LABEL_COLUMNS)
    site_column = _column(table, known, columns.get("site"), SITE_COLUMNS, needed=False)
    by_id = {_normal(row[id_column]): row for row in rows.to_dict("records")}
    subjects: list[Subject] = []
    contradicted = _contradicted(rows[id_column], rows[label_column])
    problems = [*listing.problems, *_contradictions(table, contradicted)]
    refused = set(listing.refused)
    used: set[str] = set()
    for subject in listing.subjects:
        key = _key(subject, by_id)
        row = by_id.get(key or "")
        name = "" if row is None else str(row[label_column])
        label = class_index(name, classes, label_map)
        if label is None and graded:
            problems.append(_without_class(subject, name, table, classes))
        site = subject.site
        if row is not None and key is not None:
            used.add(key)
            site = (site_column and str(row[site_column]).strip()) or site
        if key in contradicted:
            refused.add(subject.subject_id)
        subjects.append(replace(subject, label=label, site=site))
    problems += _unused(table, [row[id_column] for key, row in by_id.items() if key not in used])
    return replace(
        listing, subjects=tuple(subjects), problems=tuple(problems), refused=frozenset(refused)
    )


def with_grade_problems(listing: Listing) -> Listing:
    """Return the listing with a problem for every subject that has no class."""
    fix = "Name a table in data.grades, or add the id to data.exclude."
    ungraded = [s.subject_id for s in listing.subjects if s.label is None]
    problems = [Problem(subject_id, "a grade", "none", fix) for subject_id in ungraded]
    return replace(listing, problems=(*listing.problems, *problems))


def _require_roles(columns: Mapping[str, str]) -> None:
    for role in columns:
        if role not in ROLES:
            raise ConfigError(
                f"data.columns must map roles to columns of data.grades: expected roles "
                f"{', '.join(ROLES)}, got {role}{nearest_name(role, ROLES)}. Rename the role."
            )


def _column(
    table: Path,
    known: Sequence[str],
    wanted: str | None,
    names: Sequence[str],
    *,
    needed: bool = True,
) -> str:
    """Return the column of a role: the one that the user names, else one that is called so.

    If there is none, the result is empty where it is not needed, else a CohortError.
    """
    if wanted in known and wanted is not None:
        return wanted
    if wanted is None:
        for column in known:
            if column.strip().casefold() in names:
                return column
        if not needed:
            return ""
    role = {ID_COLUMNS: "subject", LABEL_COLUMNS: "label"}.get(tuple(names), names[0])
    looked_for = wanted or " or ".join(names)
    raise CohortError(
        f"{table}: expected a column {looked_for}, found {', '.join(known)}"
        f"{nearest_name(wanted or names[0], known)}. Name it in data.columns={{{role}: <column>}}."
    )


def _contradicted(ids: Iterable[str], labels: Iterable[str]) -> dict[str, set[str]]:
    """Return the grades of each id that has several."""
    found: defaultdict[str, set[str]] = defaultdict(set)
    for name, label in zip(ids, labels, strict=True):
        found[_normal(name)].add(str(label).strip())
    return {name: grades for name, grades in found.items() if len(grades) > 1}


def _contradictions(table: Path, contradicted: Mapping[str, set[str]]) -> list[Problem]:
    fix = "Remove all rows of the id but one."
    return [
        Problem(f"{table.name} {name}", "one grade", " and ".join(sorted(found)), fix)
        for name, found in contradicted.items()
    ]


def _without_class(subject: Subject, name: str, table: Path, classes: Sequence[str]) -> Problem:
    found = f"label {name}" if name else f"none in {table.name}"
    fix = "Add it to the table, set data.label_map, or add the id to data.exclude."
    return Problem(subject.subject_id, f"one of {', '.join(classes)}", found, fix)


def _normal(name: object) -> str:
    return re.sub(r"\d+", lambda digits: str(int(digits.group())), str(name).strip().casefold())


def _key(subject: Subject, by_id: Mapping[str, Mapping[object, object]]) -> str | None:
    """Return the table's key of a subject: its id, its patient's, or the longest beginning."""
    for name in (subject.subject_id, subject.patient_id):
        parts = re.split(r"([_-])", _normal(name))
        for length in range(len(parts), 0, -2):
            key = "".join(parts[:length])
            if key in by_id:
                return key
    return None


def _unused(table: Path, ids: Sequence[object]) -> list[Problem]:
    if not ids:
        return []
    some = ", ".join(str(name) for name in ids[:5]) + (", ..." if len(ids) > 5 else "")
    fix = "Harmless if the cohort is a part of the table."
    found = f"{len(ids)} rows of others: {some}"
    return [Problem(table.name, "ids of the cohort", found, fix, "warning")]
