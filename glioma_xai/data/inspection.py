"""Everything that is wrong with a cohort, found before any training."""

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from glioma_xai.data.cache import Entry
from glioma_xai.data.confounders import Traits, traits_of, visible_shortcuts
from glioma_xai.data.prepared import (
    Division,
    duplicate_problems,
    usable_subjects,
    window_problems,
)
from glioma_xai.data.reading import CohortSource
from glioma_xai.data.schemes import with_label_values
from glioma_xai.data.split_files import read_splits
from glioma_xai.data.splits import split_patients
from glioma_xai.data.transforms import Preparation, prepare
from glioma_xai.data.volumes import load_subject
from glioma_xai.errors import CohortError, ConfigError
from glioma_xai.records import Problem, Subject


@dataclass(frozen=True)
class Examined:
    """A subject that could be read and prepared.

    Args:
        entry: The subject and its geometry; nothing is cached, the key is empty.
        traits: What can be seen without looking at the tumour.
        picture: (3, H, W) float16: last modality, lesion and brain of the middle sample.
    """

    entry: Entry
    traits: Traits
    picture: NDArray[np.float16]


@dataclass(frozen=True)
class Inspection:
    """What a check found.

    Args:
        problems: Errors first, then warnings.
        examined: The subjects that can be used.
        classes: Class names.
    """

    problems: tuple[Problem, ...]
    examined: tuple[Examined, ...] = ()
    classes: tuple[str, ...] = ()


def inspect_cohort(
    source: CohortSource, preparation: Preparation, division: Division, *, workers: int = 2
) -> list[Problem]:
    """Return every problem of a cohort, errors first; see ``examine_cohort``."""
    return list(examine_cohort(source, preparation, division, workers=workers).problems)


def examine_cohort(
    source: CohortSource, preparation: Preparation, division: Division, *, workers: int = 2
) -> Inspection:
    """Read and prepare every subject of a cohort and list all problems; nothing is written.

    Args:
        source: Where the cohort is.
        preparation: What will be asked of it: modalities, label scheme, size.
        division: How it will be split.
        workers: Subjects read at a time.
    """
    try:
        listing = with_label_values(source.listing(), preparation.region)
    except (CohortError, ConfigError) as error:
        return Inspection((_as_problem(error),))
    settings = replace(preparation, label_values=listing.label_values)

    def read(subject: Subject) -> tuple[Examined | None, list[Problem]]:
        return _examine(subject, settings)

    with ThreadPoolExecutor(workers) as pool:
        results = list(pool.map(read, usable_subjects(listing.subjects, graded=True)))
    problems = [*listing.problems, *(problem for _, found in results for problem in found)]
    examined = tuple(one for one, _ in results if one is not None)
    entries = [one.entry for one in examined]
    problems += duplicate_problems(entries)
    problems += _split_problems([entry.subject for entry in entries], source.classes, division)
    problems += window_problems(entries)
    problems += visible_shortcuts([one.traits for one in examined], source.classes)
    problems.sort(key=lambda problem: problem.severity != "error")
    return Inspection(tuple(problems), examined, source.classes)


def _examine(subject: Subject, settings: Preparation) -> tuple[Examined | None, list[Problem]]:
    loaded, problems = load_subject(subject, settings.modalities, settings.label_values)
    if loaded is None:
        return None, problems
    traits = traits_of(subject, loaded, settings.modalities)
    prepared = prepare(loaded, settings)
    middle = prepared.samples[len(prepared.samples) // 2]
    flat = middle if middle.ndim == 3 else middle[..., middle.shape[-1] // 2]
    picture = flat[[settings.channels - 1, -2, -1]]
    return Examined(Entry(subject, "", prepared.geometry), traits, picture), problems


def _split_problems(
    subjects: Sequence[Subject], classes: Sequence[str], division: Division
) -> list[Problem]:
    try:
        if division.splits_file is not None:
            read_splits(division.splits_file, {subject.patient_id for subject in subjects})
        else:
            split_patients(subjects, classes, division.settings)
    except CohortError as error:
        return [_as_problem(error)]
    return []


@dataclass(frozen=True)
class _Sentence(Problem):
    """A problem that is already written out."""

    def __str__(self) -> str:
        return self.found


def _as_problem(error: CohortError | ConfigError) -> Problem:
    return _Sentence("the cohort", "", str(error), "")
