"""BraTS and UCSF-PDGM as published: a folder a case, a file a modality."""

import re
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType

import pandas as pd

from glioma_xai.data.layout import (
    VARIANTS_FOLDER,
    Listing,
    class_index,
    nifti_stem,
    require_folder,
    walk_folders,
)
from glioma_xai.data.name_mapping import MAPPING_FILE, read_mapping, site_of
from glioma_xai.errors import CohortError
from glioma_xai.records import Problem, Subject

SUFFIXES: Mapping[str, str] = {
    "t1": "t1", "t1n": "t1",
    "t1ce": "t1ce", "t1c": "t1ce", "t1gd": "t1ce",
    "t2": "t2", "t2w": "t2",
    "flair": "flair", "t2f": "flair",
    "seg": "lesion_mask", "segm": "lesion_mask", "tumor_segmentation": "lesion_mask",
}  # fmt: skip
"""What follows the case's id in a file name, in any case, and what the file holds."""
CASE_ID = re.compile(r"^(?:brats|ucsf-pdgm|phantom)[\w-]*\d", re.IGNORECASE)
GRADE_FOLDERS = ("HGG", "LGG")
TIME_POINT = re.compile(
    r"^(brats-gli-\d+)-\d+$|^(ucsf-pdgm-\d+)_fu\d+d$|^((?:brats1[789]|phantom)_\w+_\w+)_\d+$",
    re.IGNORECASE,
)


@dataclass(frozen=True)
class _Case:
    folder: Path
    case_id: str
    files: Mapping[str, Path]
    twice: Sequence[Path] = ()  # files that hold what another one holds


def list_brats(
    root: Path,
    *,
    classes: Sequence[str],
    label_values: Mapping[str, int] | None = None,
    label_map: Mapping[str, str] = MappingProxyType({}),
    exclude: Collection[str] = (),
    graded: bool = True,
) -> Listing:
    """Return the cases of a BraTS (2018 to 2024 GLI) or UCSF-PDGM folder.

    The grade comes from an ``HGG`` or ``LGG`` folder above the case, or from ``name_mapping.csv``.
    The folder ``variants`` of a phantom cohort is passed over.

    Args:
        root: The folder with the cases, or one above it.
        classes: Class names in the order of their index.
        label_values: Mask value of each part of the tumour; None tells it from edition and masks.
        label_map: Grade to class name, where they differ.
        exclude: Patients or cases that are passed over.
        graded: False asks for no grades.

    Raises:
        CohortError: If the folder is absent, holds no case, or grades are not in ``classes``.
    """
    require_folder(root)
    cases, tables, others = _find_cases(root)
    mapping = read_mapping(tables)
    subjects: list[Subject] = []
    problems: list[Problem] = []
    grades: dict[str, str | None] = {}
    kept: list[_Case] = []
    for case in cases:
        grade = _grade(case, root, mapping)
        subject = _subject(case, _class_of(grade, classes, label_map), mapping)
        names = {case.case_id, patient_of(case.case_id), subject.patient_id}
        if not names & set(exclude):
            kept.append(case)
            grades[case.case_id] = grade
            subjects.append(subject)
    if not subjects:
        raise CohortError(
            f"{root}: expected folders like Brats18_CBICA_AAB_1 with a NIfTI file a modality, "
            "found none. Set data.root to the cohort's folder, or describe it in a manifest."
        )
    if graded:
        problems += _grade_problems(root, grades, classes, label_map)
    problems += _file_problems(kept) + _other_volumes(root, others)
    subjects.sort(key=lambda subject: subject.subject_id)
    promised = edition(subjects[0].subject_id)
    refused = frozenset(case.case_id for case in kept if case.twice)
    return Listing(tuple(subjects), tuple(problems), label_values, promised, refused)


def edition(case_id: str) -> str:
    """Return the label scheme of a case by its id: BraTS-GLI ids came with the scheme of 2023."""
    return "brats2023" if case_id.lower().startswith("brats-gli") else "brats2018"


def patient_of(case_id: str) -> str:
    """Return the id without its time point, which groups the scans of a patient."""
    found = TIME_POINT.match(case_id)
    return next(group for group in found.groups() if group) if found else case_id


def _find_cases(root: Path) -> tuple[list[_Case], list[Path], list[Path]]:
    """Walk the folder; return the cases, the tables of grades, and folders of other volumes."""
    cases, tables, others = [], [], []
    for path, subfolders, names in walk_folders(root):
        if path == root and VARIANTS_FOLDER in subfolders:
            subfolders.remove(VARIANTS_FOLDER)
        tables += [path / name for name in names if name.startswith(MAPPING_FILE)]
        case = _case(path, names, is_leaf=not subfolders)
        if case is not None:
            cases.append(case)
        elif any(nifti_stem(Path(name)) for name in names):
            others.append(path)
    return cases, tables, others


def _case(folder: Path, names: Sequence[str], *, is_leaf: bool) -> _Case | None:
    """Return the folder as a case if its files, its name or its place say that it is one."""
    case_id = folder.name.removesuffix("_nifti")
    files: dict[str, Path] = {}
    others: list[Path] = []
    twice: list[Path] = []
    for name in names:
        stem = nifti_stem(Path(name))
        if stem is None:
            continue
        role = None
        if stem.lower().startswith(case_id.lower()):
            role = SUFFIXES.get(stem[len(case_id) :].lstrip("_-").lower())
        if role is None:
            others.append(folder / name)
        elif files.setdefault(role, folder / name) != folder / name:
            twice.append(folder / name)
    stray = [
        path
        for path in others
        if re.search(r"_segm?\.nii", path.name, re.IGNORECASE) and not CASE_ID.match(path.name)
    ]
    if "lesion_mask" not in files and len(stray) == 1:  # BraTS20_Training_355
        files["lesion_mask"] = stray[0]
    looks_so = CASE_ID.match(folder.name) or folder.parent.name.upper() in GRADE_FOLDERS
    if files or (is_leaf and looks_so):
        return _Case(folder, case_id, files, twice)
    return None


def _grade(case: _Case, root: Path, mapping: pd.DataFrame | None) -> str | None:
    for parent in case.folder.relative_to(root).parents:
        if parent.name.upper() in GRADE_FOLDERS:
            return parent.name.upper()
    if root.name.upper() in GRADE_FOLDERS:
        return root.name.upper()
    if mapping is not None and case.case_id in mapping.index:
        return str(mapping.loc[case.case_id, "Grade"]).strip() or None
    return None


def _class_of(
    grade: str | None, classes: Sequence[str], label_map: Mapping[str, str]
) -> int | None:
    return None if grade is None else class_index(grade, classes, label_map)


def _subject(case: _Case, label: int | None, mapping: pd.DataFrame | None) -> Subject:
    images = {role: path for role, path in case.files.items() if role != "lesion_mask"}
    site, patient = site_of(case.case_id), patient_of(case.case_id)
    if mapping is not None and case.case_id in mapping.index:
        site = site or str(mapping.loc[case.case_id, "site"]) or None
        patient = str(mapping.loc[case.case_id, "patient"]) or patient
    return Subject(
        subject_id=case.case_id,
        patient_id=patient,
        label=label,
        images=images,
        lesion_mask=case.files.get("lesion_mask"),
        site=site,
    )


def _grade_problems(
    root: Path,
    grades: Mapping[str, str | None],
    classes: Sequence[str],
    label_map: Mapping[str, str],
) -> list[Problem]:
    """Report cases without a grade or with one that no class has.

    Raises:
        CohortError: If that is so of all grades.
    """
    known = {g for g in grades.values() if g and class_index(g, classes, label_map) is not None}
    if not known and any(grades.values()):
        found = ", ".join(sorted({grade for grade in grades.values() if grade}))
        raise CohortError(
            f"{root}: expected the classes {', '.join(classes)}, found {found}. "
            "Set data.classes to the classes of this cohort."
        )
    fix = "Put it into an HGG or LGG folder or into name_mapping.csv, or add it to data.exclude."
    one_of = f"one of {', '.join(classes)}"
    return [
        Problem(case_id, one_of if grade else "a grade", f"grade {grade}" if grade else "none", fix)
        for case_id, grade in grades.items()
        if grade not in known
    ]


def _other_volumes(root: Path, folders: Sequence[Path]) -> list[Problem]:
    if not folders:
        return []
    found = f"other volumes in {len(folders)} folders, such as {folders[0]}"
    fix = "Call files like their folder, as in A/A_t1.nii.gz, if these are cases."
    return [Problem(str(root), "a case in every folder", found, fix, "warning")]


def _file_problems(cases: Sequence[_Case]) -> list[Problem]:
    """Report ids and files that occur twice, and cases that alone have no segmentation."""
    problems = []
    folders: dict[str, Path] = {}
    for case in cases:
        if case.case_id in folders:
            found = f"{case.folder} and {folders[case.case_id]}"
            fix = "Remove one of them."
            problems.append(Problem(case.case_id, "one folder", found, fix))
        folders[case.case_id] = case.folder
        if case.twice:
            found = f"another in {', '.join(path.name for path in case.twice)}"
            fix = "Remove all but one."
            problems.append(Problem(case.case_id, "one file of a kind", found, fix))
    if any("lesion_mask" in case.files for case in cases):
        fix = "It is used for classification only; restore the file to guide with it."
        problems += [
            Problem(case.case_id, "a segmentation", "none", fix, "warning")
            for case in cases
            if case.files and "lesion_mask" not in case.files
        ]
    return problems
