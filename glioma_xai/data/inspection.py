"""Everything that is wrong with a cohort, found before any training."""

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

from glioma_xai.data.prepared import Division, usable_subjects
from glioma_xai.data.reading import CohortSource
from glioma_xai.data.schemes import with_label_values
from glioma_xai.data.splits import read_splits, split_patients
from glioma_xai.data.transforms import Preparation
from glioma_xai.data.volumes import load_subject
from glioma_xai.errors import CohortError, ConfigError
from glioma_xai.records import Problem, Subject


def inspect_cohort(
    source: CohortSource, preparation: Preparation, division: Division, *, workers: int = 2
) -> list[Problem]:
    """Read every file of a cohort and return all problems, errors first.

    Args:
        source: Where the cohort is.
        preparation: What will be asked of it: modalities, label scheme, size.
        division: How it will be split.
        workers: Subjects read at a time.
    """
    try:
        listing = with_label_values(source.listing(), preparation.region)
    except (CohortError, ConfigError) as error:
        return [_as_problem(error)]
    problems = list(listing.problems)

    def read(subject: Subject) -> tuple[Subject | None, list[Problem]]:
        loaded, found = load_subject(subject, preparation.modalities, listing.label_values)
        return (None if loaded is None else subject), found

    with ThreadPoolExecutor(workers) as pool:
        results = list(pool.map(read, usable_subjects(listing.subjects, graded=True)))
    problems += [problem for _, found in results for problem in found]
    subjects = [subject for subject, _ in results if subject is not None]
    problems += _split_problems(subjects, source.classes, division)
    return sorted(problems, key=lambda problem: problem.severity != "error")


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
