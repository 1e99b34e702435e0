import multiprocessing
import os
import signal
import time
from pathlib import Path

import pytest

from glioma_xai.data import unfinished
from glioma_xai.data.cache import LEFTOVER_SECONDS, PreparedCache
from glioma_xai.data.unfinished import LOCK, unfinished_folder


def _write_forever(output: Path) -> None:
    with unfinished_folder(output) as partial:
        (partial / "half").write_text("written")
        time.sleep(60)


def partials(output: Path) -> list[Path]:
    return sorted(output.parent.glob(f".{output.name}.partial-*"))


@pytest.fixture
def output(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(unfinished, "FRESH_SECONDS", -1)
    return tmp_path / "cohort"


def test_what_a_killed_process_left_is_deleted_but_not_what_a_living_one_writes(output: Path):
    context = multiprocessing.get_context("fork")
    jobs = [context.Process(target=_write_forever, args=(output,)) for _ in range(2)]
    for number, job in enumerate(jobs, start=1):
        job.start()
        deadline = time.monotonic() + 30
        while len([p for p in partials(output) if (p / "half").exists()]) < number:
            assert time.monotonic() < deadline
            time.sleep(0.01)
    first, second = partials(output)
    with unfinished_folder(output) as own:
        assert partials(output) == sorted([first, second, own])
    os.kill(jobs[0].pid or 0, signal.SIGKILL)
    jobs[0].join()
    with unfinished_folder(output) as own:
        (living,) = [p for p in partials(output) if p != own]
        assert (living / "half").exists()
    jobs[1].kill()
    jobs[1].join()


def test_a_folder_without_a_lock_yet_is_left_alone(tmp_path: Path):
    fresh = tmp_path / ".cohort.partial-x"
    fresh.mkdir()
    with unfinished_folder(tmp_path / "cohort"):
        assert fresh.exists()
    os.utime(fresh, (1, 1))
    with unfinished_folder(tmp_path / "cohort"):
        assert not fresh.exists()


def test_a_folder_that_was_renamed_stays(output: Path):
    with unfinished_folder(output) as partial:
        (partial / LOCK).unlink()
        partial.rename(output)
    assert output.is_dir()
    assert list(output.iterdir()) == []
    assert partials(output) == []


def test_unfinished_entries_of_the_cache_are_deleted_when_old(tmp_path: Path):
    cache = PreparedCache(tmp_path)
    for name in ("old", "fresh"):
        (tmp_path / "ab").mkdir(exist_ok=True)
        (tmp_path / "ab" / f".unfinished_{name}").write_text("half")
    past = time.time() - LEFTOVER_SECONDS - 1
    os.utime(tmp_path / "ab" / ".unfinished_old", (past, past))
    cache.remove_leftovers()
    assert [path.name for path in (tmp_path / "ab").iterdir()] == [".unfinished_fresh"]
