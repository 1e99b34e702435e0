"""Everything that is wrong with a cohort, found before any training."""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from glioma_xai.data.cache import PreparedCache
from glioma_xai.data.cohort_problems import (
    class_problems,
    duplicate_problems,
    empty_masks,
    misplaced_masks,
    usable_subjects,
    window_problems,
)
from glioma_xai.data.confounders import Traits, traits_of, visible_shortcuts
from glioma_xai.data.layout import Listing
from glioma_xai.data.prepared import splits_of
from glioma_xai.data.preparing import Entry, in_parallel, prepare_subject
from glioma_xai.data.reading import CohortSource
from glioma_xai.data.schemes import with_label_values
from glioma_xai.data.split_settings import Division
from glioma_xai.data.transforms import Preparation
from glioma_xai.data.volumes import load_subject
from glioma_xai.errors import CohortError, ConfigError
from glioma_xai.records import Problem, Split, Subject

MOST_PICTURES = 200


@dataclass(frozen=True)
class Examined:
    """A subject that could be read and prepared.

    Args:
        entry: The subject and its geometry.
        traits: What can be seen without looking at the tumour.
        picture: (C + 2, H, W) float16: modalities, lesion and brain where the tumour is largest;
            None for most subjects of a large cohort.
    """

    entry: Entry
    traits: Traits
    picture: NDArray[np.float16] | None


@dataclass(frozen=True)
class Inspection:
    """What a check found.

    Args:
        problems: Errors first, then warnings.
        examined: The subjects that can be used.
        classes: Class names.
        modalities: Channels in order.
        splits: Split of each patient; empty if they could not be drawn.
    """

    problems: tuple[Problem, ...]
    examined: tuple[Examined, ...] = ()
    classes: tuple[str, ...] = ()
    modalities: tuple[str, ...] = ()
    splits: Mapping[str, Split] = field(default_factory=dict)

    @property
    def errors(self) -> tuple[Problem, ...]:
        """The problems that stop training."""
        return tuple(problem for problem in self.problems if problem.severity == "error")


def examine_cohort(
    source: CohortSource,
    preparation: Preparation,
    division: Division,
    *,
    cache_dir: Path,
    workers: int | None = None,
) -> Inspection:
    """Read and prepare every subject of a cohort and list all problems.

    What is prepared is kept for training.

    Args:
        source: Where the cohort is.
        preparation: What will be asked of it: modalities, label scheme, size.
        division: How it will be split.
        cache_dir: Prepared subjects go to its folder ``prepared``.
        workers: Subjects read at a time; None takes every core.
    """
    try:
        listing, problems = _listed(source, preparation.region)
    except (CohortError, ConfigError) as error:
        return Inspection((_as_problem(error),))
    settings = replace(preparation, label_values=listing.label_values)
    cache = PreparedCache(cache_dir / "prepared")
    usable = {subject.subject_id for subject in usable_subjects(listing, graded=True)}
    drawn = set(sorted(usable)[:: -(-len(usable) // MOST_PICTURES) or 1])
    results = in_parallel(
        lambda subject: _examine(subject, settings, cache, draw=subject.subject_id in drawn),
        listing.subjects,
        workers=workers,
        description="checking subjects",
    )
    problems += [problem for _, found in results for problem in found]
    examined = tuple(
        one for one, _ in results if one is not None and one.entry.subject.subject_id in usable
    )
    splits: dict[str, Split] = {}
    kept = [one.entry.subject for one in examined]
    try:
        splits = splits_of(kept, source.classes, division, listing=listing, exclude=source.exclude)
    except CohortError as error:
        problems.append(_as_problem(error))
    problems += _problems_of_all(listing, examined, source.classes, splits)
    problems.sort(key=lambda problem: problem.severity != "error")
    return Inspection(tuple(problems), examined, source.classes, source.modalities, splits)


def _listed(source: CohortSource, region: str) -> tuple[Listing, list[Problem]]:
    """Return the subjects and what is wrong with them.

    They come without masks if no scheme explains these, so that all other problems are found.
    """
    listing = source.listing()
    try:
        listing = with_label_values(listing, region)
    except (CohortError, ConfigError) as error:
        bare = tuple(replace(subject, lesion_mask=None) for subject in listing.subjects)
        return replace(listing, subjects=bare), [_as_problem(error), *listing.problems]
    return listing, list(listing.problems)


def _problems_of_all(
    listing: Listing,
    examined: Sequence[Examined],
    classes: Sequence[str],
    splits: Mapping[str, Split],
) -> list[Problem]:
    """Return what is wrong with the cohort as a whole."""
    entries = [one.entry for one in examined]
    traits = [one.traits for one in examined]
    return [
        *duplicate_problems(entries, classes, splits),
        *empty_masks(entries),
        *_loss_problems(listing.subjects, [entry.subject for entry in entries], classes),
        *class_problems(listing.subjects, classes),
        *window_problems(entries),
        *misplaced_masks({one.subject_id: one.mask_outside for one in traits}),
        *visible_shortcuts(traits, classes),
    ]


def _examine(
    subject: Subject, settings: Preparation, cache: PreparedCache, *, draw: bool
) -> tuple[Examined | None, list[Problem]]:
    loaded, problems = load_subject(subject, settings.modalities, settings.label_values)
    if loaded is None:
        return None, problems
    traits = traits_of(subject, loaded, settings.modalities)
    entry, problems = prepare_subject(subject, settings, cache, loaded)
    if entry is None:
        return None, problems
    return Examined(entry, traits, _picture(entry, settings, cache) if draw else None), problems


def _picture(entry: Entry, settings: Preparation, cache: PreparedCache) -> NDArray[np.float16]:
    """Return modalities, lesion and brain of the slice with the largest tumour, (C + 2, H, W)."""
    sample = cache.samples(entry.key)[int(np.argmax(entry.geometry["lesion_area"]))]
    if sample.ndim == 4:
        shown = sample[-2] if (sample[-2] == 1).any() else sample[-1]
        sample = sample[..., int((shown == 1).sum(axis=(0, 1)).argmax())]
    first = settings.neighbours * len(settings.modalities)  # the slice itself, of a 2.5-D stack
    return np.array(sample[[*range(first, first + len(settings.modalities)), -2, -1]])


def _loss_problems(
    listed: Sequence[Subject], kept: Sequence[Subject], classes: Sequence[str]
) -> list[Problem]:
    """Warn if subjects cannot be used, with their number in each class."""
    all_of, used = (Counter(s.label for s in subjects) for subjects in (listed, kept))
    lost = [
        f"{all_of[index] - used[index]} of {all_of[index]} {name}"
        for index, name in enumerate(classes)
    ]
    if all_of == used:
        return []
    ungraded = all_of[None]
    found = "without " + ", ".join([*lost, f"{ungraded} without a grade"] if ungraded else lost)
    fix = "Repair them, unless as many of each class are missing."
    return [Problem("the cohort", "every subject", found, fix, "warning")]


@dataclass(frozen=True)
class _Sentence(Problem):
    """A problem that is already written out."""

    def __str__(self) -> str:
        return self.found


def _as_problem(error: CohortError | ConfigError) -> Problem:
    return _Sentence("the cohort", "", str(error), "")
