"""Prepared subjects on disk: keyed by content, written in one step, safe for two processes."""

import hashlib
import json
import os
import tempfile
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO, cast

import numpy as np
import torch
from numpy.typing import NDArray

from glioma_xai.records import Subject

if TYPE_CHECKING:  # processes that only read entries need not load what makes them
    from glioma_xai.data.transforms import Geometry, Prepared

FORMAT = 5
"""Raised when the code prepares subjects differently, so that older entries are made anew."""
UNFINISHED = ".unfinished_"
LEFTOVER_SECONDS = 3600
"""Age at which an unfinished file belongs to a process that was killed; writing takes seconds."""
_ONE_HEADER = threading.Lock()
"""numpy parses a header as Python, which CPython 3.11 may fail to do in two threads at once: now
and then it ends in "SystemError: AST constructor recursion depth mismatch"."""


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

    def remove_leftovers(self) -> None:
        """Delete what killed processes left unfinished."""
        for path in self.folder.glob(f"*/{UNFINISHED}*"):
            with suppress(FileNotFoundError):  # another process was quicker
                if time.time() - path.stat().st_mtime > LEFTOVER_SECONDS:
                    path.unlink()

    def geometry(self, key: str) -> "Geometry | None":
        """Return an entry's geometry, or None if there is no complete entry.

        One that was damaged afterwards, as by a disk that was full, is none either.
        """
        if not self._arrays(key).is_file():
            return None
        try:
            self._mapped(key)
            return cast("Geometry", json.loads(self._geometry(key).read_text()))
        except (OSError, ValueError, EOFError):
            return None

    def samples(self, key: str) -> NDArray[np.float16]:
        """Return an entry's arrays (N, C + 3, *spatial), mapped from disk and read on demand.

        No file stays open: numpy's own maps keep theirs, and many systems allow 1,024.
        """
        found = self._mapped(key)
        head = found.offset // found.itemsize
        path = str(self._arrays(key))
        mapped = torch.from_file(path, size=head + found.size, dtype=torch.float16)
        return cast(NDArray[np.float16], mapped[head:].view(found.shape).numpy())

    def write(self, key: str, prepared: "Prepared") -> "Geometry":
        """Store an entry; returns its geometry."""
        text = json.dumps(prepared.geometry)
        self._replace(self._geometry(key), lambda file: file.write(text.encode()))
        self._replace(self._arrays(key), lambda file: np.save(file, prepared.samples))
        return prepared.geometry

    def _mapped(self, key: str) -> "np.memmap[tuple[int, ...], np.dtype[np.float16]]":
        """Return an entry's arrays; raises if they are not whole."""
        with _ONE_HEADER:
            return np.lib.format.open_memmap(self._arrays(key), mode="r")

    def _arrays(self, key: str) -> Path:
        return self.folder / key[:2] / f"{key}.npy"

    def _geometry(self, key: str) -> Path:
        return self.folder / key[:2] / f"{key}.json"

    @staticmethod
    def _replace(path: Path, write: Callable[[BinaryIO], object]) -> None:
        path.parent.mkdir(exist_ok=True)
        handle, name = tempfile.mkstemp(dir=path.parent, prefix=UNFINISHED)
        try:
            with os.fdopen(handle, "wb") as file:
                write(file)
            Path(name).replace(path)
        except BaseException:
            Path(name).unlink(missing_ok=True)
            raise
