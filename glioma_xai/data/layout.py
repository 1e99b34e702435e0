"""What a reader finds in a cohort, and the names that published cohorts use."""

import os
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from difflib import get_close_matches
from pathlib import Path

from glioma_xai.errors import CohortError
from glioma_xai.records import Problem, Subject

VARIANTS_FOLDER = "variants"
NIFTI_ENDINGS = (".nii.gz", ".nii")

LABEL_SCHEMES: Mapping[str, Mapping[str, int]] = {
    "brats2015": {"necrosis": 1, "oedema": 2, "non_enhancing": 3, "enhancing": 4},
    "brats2018": {"necrosis": 1, "oedema": 2, "enhancing": 4},
    "brats2023": {"necrosis": 1, "oedema": 2, "enhancing": 3},
    "brats2024": {"necrosis": 1, "oedema": 2, "enhancing": 3, "cavity": 4},
    "msd": {"oedema": 1, "non_enhancing": 2, "enhancing": 3},
}
"""BraTS to 2016; to 2021 and UCSF-PDGM; 2023; 2024 (after surgery); and MSD Task01."""


@dataclass(frozen=True)
class Listing:
    """The subjects of a cohort by file name; no image has been opened yet.

    Args:
        subjects: In order of ``subject_id``.
        problems: What is wrong with names, tables and files that are absent.
        label_values: Mask value of each part of the tumour; None if that is to be told from masks.
        edition: The scheme in LABEL_SCHEMES that the cohort's ids promise; None if they do not.
        refused: Ids of subjects that must not be used, because of what ``problems`` says of them.
    """

    subjects: tuple[Subject, ...]
    problems: tuple[Problem, ...]
    label_values: Mapping[str, int] | None = None
    edition: str | None = None
    refused: frozenset[str] = frozenset()


def repeated_ids(subjects: Iterable[Subject]) -> frozenset[str]:
    """Return the ids that several subjects have: nobody knows which of them is meant."""
    counts = Counter(subject.subject_id for subject in subjects)
    return frozenset(subject_id for subject_id, count in counts.items() if count > 1)


def nifti_stem(path: Path) -> str | None:
    """Return the file's name without ``.nii`` or ``.nii.gz``, or None for another kind of file."""
    for ending in NIFTI_ENDINGS:
        if path.name.lower().endswith(ending):
            return path.name[: -len(ending)]
    return None


def require_folder(root: Path) -> None:
    """Raise a CohortError that says what to set if the cohort's folder is not there."""
    if not root.is_dir():
        found = "a file" if root.exists() else "nothing there"
        raise CohortError(
            f"data.root must be a cohort's folder: expected a folder at {root}, found {found}. "
            "Set data.root to the folder that holds the subjects."
        )


def walk_folders(root: Path) -> Iterator[tuple[Path, list[str], list[str]]]:
    """Yield every folder with the names of its subfolders and files, each in order.

    Links to folders are followed, unless they lead back to a folder that they lie in. What is
    hidden is passed over, such as ``._x.nii.gz``, which macOS adds to archives. A subfolder that is
    taken from the list is not entered.
    """
    for folder, subfolders, names in os.walk(root, followlinks=True):
        path = Path(folder)
        subfolders[:] = sorted(
            name for name in subfolders if not name.startswith(".") and not _leads_back(path / name)
        )
        yield path, subfolders, sorted(name for name in names if not name.startswith("."))


def _leads_back(folder: Path) -> bool:
    return folder.is_symlink() and folder.resolve() in {above.resolve() for above in folder.parents}


def class_index(name: str, classes: Sequence[str], label_map: Mapping[str, str]) -> int | None:
    """Return the index of a class name, whatever its case, or None if no class is called that.

    Args:
        name: What a table or folder says.
        classes: Class names in the order of their index.
        label_map: What a table or folder says to class name, where they differ.
    """
    wanted = label_map.get(name.strip(), name).strip().casefold()
    for index, known in enumerate(classes):
        if known.casefold() == wanted:
            return index
    return None


def nearest_name(name: str, known: Iterable[str]) -> str:
    """Return `` (nearest: x)`` for a misspelt name, or nothing if none is near."""
    near = get_close_matches(name, list(known), n=1, cutoff=0.4)
    return f" (nearest: {near[0]})" if near else ""
