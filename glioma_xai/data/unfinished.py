"""A folder that is not there until it is complete, and none left over where work was killed."""

import fcntl
import os
import shutil
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

LOCK = ".lock"
FRESH_SECONDS = 60
"""Age below which a temporary folder may not have its lock yet."""


@contextmanager
def unfinished_folder(output: Path) -> Iterator[Path]:
    """Give a temporary folder beside ``output``, to be renamed to it when all is written.

    If it is not, it is deleted. Its owner holds a lock on the file ``LOCK`` in it, which the system
    gives back when the owner ends, however it ends; folders whose owners were killed are deleted
    first. Remove ``LOCK`` before renaming.

    Args:
        output: Its parents are made if absent.
    """
    output.parent.mkdir(parents=True, exist_ok=True)
    prefix = f".{output.name}.partial-"
    for other in output.parent.glob(f"{prefix}*"):
        with suppress(OSError):  # its owner is alive, or another process deletes it
            if time.time() - other.stat().st_mtime > FRESH_SECONDS:
                _delete(other, _lock(other))
    partial = Path(tempfile.mkdtemp(prefix=prefix, dir=output.parent))
    partial.chmod(0o755)
    handle = _lock(partial)
    try:
        yield partial
    finally:
        _delete(partial, handle)


def _lock(folder: Path) -> int:
    """Return the handle of a folder's lock; raises BlockingIOError if another process holds it."""
    handle = os.open(folder / LOCK, os.O_RDWR | os.O_CREAT)
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        os.close(handle)
        raise
    return handle


def _delete(folder: Path, handle: int) -> None:
    shutil.rmtree(folder, ignore_errors=True)
    os.close(handle)
