"""Prepared subjects on disk: keyed by content, written in one step, safe for two processes."""

import hashlib
import json
import os
import sys
import tempfile
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path
from typing import BinaryIO, cast

import numpy as np
from numpy.typing import NDArray
from rich.console import Console
from rich.progress import Progress

from glioma_xai.data.transforms import Geometry, Preparation, Prepared, prepare
from glioma_xai.data.volumes import load_subject
from glioma_xai.records import Problem, Subject

FORMAT = 2
"""Raised when the code prepares subjects differently, so that older entries are made anew."""


def entry_key(subject: Subject, settings: str) -> str:
    """Return a name that changes with the subject's files or the settings.

    Files enter by absolute path, size and time of change in nanoseconds.

    Args:
        subject: Whose files are meant.
        settings: ``Preparation.as_json()``.
    """
    digest = hashlib.sha256(f"{FORMAT}\n{settings}\n{subject.channels}\n".encode())
    for name, path in (*sorted(subject.images.items()), ("lesion_mask", subject.lesion_mask)):
        if path is None:
            continue
        status = path.stat()
        line = f"{name}\n{path.resolve()}\n{status.st_size}\n{status.st_mtime_ns}\n"
        digest.update(line.encode())
    return digest.hexdigest()[:32]


def subject_files(subject: Subject) -> list[Path]:
    """Return every file of a subject."""
    mask = [] if subject.lesion_mask is None else [subject.lesion_mask]
    return [*subject.images.values(), *mask]


class PreparedCache:
    """A folder of prepared subjects.

    An entry is two files, ``<key>.json`` (geometry) and ``<key>.npy`` (arrays). Each is written
    beside its place and moved there with ``os.replace``, the arrays last: an entry is complete
    if its arrays are there. Two processes that fill the same entry write the same bytes.

    Args:
        folder: Made if absent.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        folder.mkdir(parents=True, exist_ok=True)

    def geometry(self, key: str) -> Geometry | None:
        """Return an entry's geometry, or None if there is no complete entry."""
        if not self._arrays(key).is_file():
            return None
        return cast(Geometry, json.loads(self._geometry(key).read_text()))

    def samples(self, key: str) -> NDArray[np.float16]:
        """Return an entry's arrays (N, C + 2, *spatial), mapped from disk and read on demand."""
        return cast(NDArray[np.float16], np.load(self._arrays(key), mmap_mode="r"))

    def write(self, key: str, prepared: Prepared) -> Geometry:
        """Store an entry; returns its geometry."""
        text = json.dumps(prepared.geometry)
        self._replace(self._geometry(key), lambda file: file.write(text.encode()))
        self._replace(self._arrays(key), lambda file: np.save(file, prepared.samples))
        return prepared.geometry

    def _arrays(self, key: str) -> Path:
        return self.folder / key[:2] / f"{key}.npy"

    def _geometry(self, key: str) -> Path:
        return self.folder / key[:2] / f"{key}.json"

    @staticmethod
    def _replace(path: Path, write: Callable[[BinaryIO], object]) -> None:
        path.parent.mkdir(exist_ok=True)
        handle, name = tempfile.mkstemp(dir=path.parent, prefix=".unfinished_")
        try:
            with os.fdopen(handle, "wb") as file:
                write(file)
            Path(name).replace(path)
        except BaseException:
            Path(name).unlink(missing_ok=True)
            raise


@dataclass(frozen=True)
class Entry:
    """A prepared subject: where its arrays lie in the cache, and on the subject's own grid."""

    subject: Subject
    key: str
    geometry: Geometry


def prepare_subjects(
    subjects: Sequence[Subject],
    preparation: Preparation,
    cache: PreparedCache,
    *,
    workers: int = 1,
    slices: Mapping[str, Sequence[int]] | None = None,
) -> tuple[list[Entry], list[Problem]]:
    """Prepare the subjects that are not in the cache yet, several at a time.

    Args:
        subjects: What to prepare.
        preparation: How.
        cache: Where entries are looked up and stored.
        workers: Subjects at a time.
        slices: Slices of each subject id, counted from the foot; None selects them by area.

    Returns:
        The entries of all subjects that could be prepared, in the given order, and every problem
        found while reading the others. Warnings are reported when an entry is made.
    """

    def one(subject: Subject) -> tuple[Entry | None, list[Problem]]:
        problems: list[Problem] = []
        own = preparation
        if slices is not None and preparation.spatial_dims == 2:
            numbers = tuple(slices[subject.subject_id])
            own = replace(own, slices=replace(own.slices, numbers=numbers))
        files_present = all(path.is_file() for path in subject_files(subject))
        key = entry_key(subject, own.as_json()) if files_present else ""
        geometry = cache.geometry(key) if key else None
        if geometry is None:
            loaded, problems = load_subject(subject, own.modalities, own.label_values)
            if loaded is None:
                return None, problems
            geometry = cache.write(key, prepare(loaded, own))
        return Entry(subject, key, geometry), problems

    bar = Progress(transient=True, disable=not sys.stderr.isatty(), console=Console(stderr=True))
    with bar, ThreadPoolExecutor(max(workers, 1)) as pool:  # reading and filtering free the GIL
        done = pool.map(one, subjects)
        results = list(bar.track(done, total=len(subjects), description="preparing subjects"))
    entries = [entry for entry, _ in results if entry is not None]
    return entries, [problem for _, problems in results for problem in problems]
