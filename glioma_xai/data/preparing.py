"""Subjects into the cache, several at a time."""

import os
import sys
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from typing import TypeVar

from rich.console import Console
from rich.progress import Progress

from glioma_xai.data.cache import PreparedCache, entry_key, subject_files
from glioma_xai.data.transforms import Geometry, NoBrainError, Preparation, prepare
from glioma_xai.data.volumes import LoadedSubject, load_subject
from glioma_xai.records import Problem, Subject

Item = TypeVar("Item")
Result = TypeVar("Result")


@dataclass(frozen=True)
class Entry:
    """A prepared subject: where its arrays lie in the cache, and on the subject's own grid."""

    subject: Subject
    key: str
    geometry: Geometry


def prepare_subject(
    subject: Subject,
    preparation: Preparation,
    cache: PreparedCache,
    loaded: LoadedSubject | None = None,
) -> tuple[Entry | None, list[Problem]]:
    """Return a subject's entry, from the cache or made now, or why there is none.

    Args:
        subject: What to prepare.
        preparation: How.
        cache: Where the entry is looked up and stored.
        loaded: Its arrays if they have been read; None reads them if need be.
    """
    files_present = all(path.is_file() for path in subject_files(subject))
    key = entry_key(subject, preparation.as_json()) if files_present else ""
    geometry = cache.geometry(key) if key else None
    if geometry is None:
        if loaded is None:
            loaded, problems = load_subject(
                subject, preparation.modalities, preparation.label_values
            )
        if loaded is None:
            return None, problems
        try:
            prepared = prepare(loaded, preparation)
        except NoBrainError as error:
            fix = "Replace the images or add the id to data.exclude."
            return None, [Problem(subject.subject_id, "a brain", str(error), fix)]
        geometry = cache.write(key, prepared)
    return Entry(subject, key, geometry), []


def prepare_subjects(
    subjects: Sequence[Subject],
    preparation: Preparation,
    cache: PreparedCache,
    *,
    workers: int | None = 1,
    slices: Mapping[str, Sequence[int]] | None = None,
) -> tuple[list[Entry], list[Problem]]:
    """Prepare the subjects that are not in the cache yet, several at a time.

    Args:
        subjects: What to prepare.
        preparation: How.
        cache: Where entries are looked up and stored.
        workers: Subjects at a time; None takes every core.
        slices: Slices of each subject id, counted from the foot; None selects them by area.

    Returns:
        The entries of all subjects that could be prepared, in the given order, and every problem
        found with the others.
    """

    def one(subject: Subject) -> tuple[Entry | None, list[Problem]]:
        own = preparation
        if slices is not None and preparation.spatial_dims == 2:
            numbers = tuple(slices[subject.subject_id])
            own = replace(own, slices=replace(own.slices, numbers=numbers))
        return prepare_subject(subject, own, cache)

    cache.remove_leftovers()
    results = in_parallel(one, subjects, workers=workers, description="preparing subjects")
    entries = [entry for entry, _ in results if entry is not None]
    return entries, [problem for _, problems in results for problem in problems]


def in_parallel(
    work: Callable[[Item], Result],
    items: Sequence[Item],
    *,
    workers: int | None,
    description: str,
) -> list[Result]:
    """Return what ``work`` makes of every item, in order, with a progress bar on a terminal.

    Threads do it: reading, unpacking and filtering free the interpreter. An item is held in memory
    only while it is worked on.

    Args:
        work: Called with one item.
        items: What to work on.
        workers: Items at a time; None takes every core.
        description: Beside the bar.
    """
    bar = Progress(transient=True, disable=not sys.stderr.isatty(), console=Console(stderr=True))
    with bar, ThreadPoolExecutor(workers or _cores()) as pool:
        done = pool.map(work, items)
        return list(bar.track(done, total=len(items), description=description))


def _cores() -> int:
    """Return how many cores this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1
