import multiprocessing
import os
import signal
import threading
import time
import tracemalloc
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from glioma_xai.data.brats import list_brats
from glioma_xai.data.cache import PreparedCache, entry_key
from glioma_xai.data.preparing import prepare_subjects
from glioma_xai.data.transforms import Geometry, Preparation, Prepared
from glioma_xai.records import Subject
from tests.unit.data.small_cohorts import case_arrays, write_case

SETTINGS = Preparation(
    ("t2",), {"necrosis": 1, "oedema": 2, "enhancing": 4}, spatial_size=(16, 20), spacing_mm=None
)


@pytest.fixture
def subjects(brats_root: Path) -> tuple[Subject, ...]:
    return list_brats(brats_root, classes=("LGG", "HGG")).subjects


def contents(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_a_second_run_reads_what_the_first_wrote(subjects, tmp_path: Path):
    cache = PreparedCache(tmp_path / "cache")
    entries, problems = prepare_subjects(subjects, SETTINGS, cache)
    assert problems == []
    times = {path: path.stat().st_mtime_ns for path in cache.folder.rglob("*.npy")}
    again, _ = prepare_subjects(subjects, SETTINGS, cache)
    assert again == entries
    assert times == {path: path.stat().st_mtime_ns for path in cache.folder.rglob("*.npy")}
    assert cache.samples(entries[0].key).shape == (3, 4, 16, 20)  # slices 2 to 4


def test_the_key_knows_files_and_settings(subjects):
    subject = subjects[0]
    key = entry_key(subject, SETTINGS.as_json())
    assert key == entry_key(subject, SETTINGS.as_json())
    other_settings = (
        replace(SETTINGS, region="tumour_core"),
        replace(SETTINGS, normalisation="percentile"),
        replace(SETTINGS, label_values={"tumour": 1}),
        replace(SETTINGS, spacing_mm=(1.0, 1.0)),
    )
    keys = {entry_key(subject, settings.as_json()) for settings in other_settings}
    os.utime(subject.images["t2"], ns=(1, 1))
    touched = entry_key(subject, SETTINGS.as_json())
    assert len({key, touched, *keys}) == 6


def test_a_changed_file_is_prepared_again(subjects, tmp_path: Path):
    cache = PreparedCache(tmp_path / "cache")
    (first,), _ = prepare_subjects(subjects[:1], SETTINGS, cache)
    subjects[0].images["t2"].write_bytes(subjects[1].images["t2"].read_bytes())
    (second,), _ = prepare_subjects(subjects[:1], SETTINGS, cache)
    assert (cache.samples(first.key) != cache.samples(second.key)).any()


def test_entries_in_use_keep_no_file_open(subjects, tmp_path: Path):
    cache = PreparedCache(tmp_path / "cache")
    entries, _ = prepare_subjects(subjects, SETTINGS, cache)
    before = len(list(Path("/dev/fd").iterdir()))
    in_use = [cache.samples(entry.key) for entry in entries]
    assert len(list(Path("/dev/fd").iterdir())) == before
    for entry, samples in zip(entries, in_use, strict=True):
        (path,) = cache.folder.rglob(f"{entry.key}.npy")
        np.testing.assert_array_equal(samples, np.load(path))


def test_one_header_is_parsed_at_a_time(subjects, tmp_path: Path, monkeypatch):
    """CPython 3.11's parser, which numpy reads headers with, can fail in two threads at once."""
    cache = PreparedCache(tmp_path / "cache")
    entries, _ = prepare_subjects(subjects, SETTINGS, cache)
    opened, busy, met = np.lib.format.open_memmap, threading.Lock(), []

    def slow(*arguments, **options):
        met.append(not busy.acquire(blocking=False))
        time.sleep(0.02)
        if not met[-1]:
            busy.release()
        return opened(*arguments, **options)

    monkeypatch.setattr(np.lib.format, "open_memmap", slow)
    with ThreadPoolExecutor(4) as pool:
        list(pool.map(cache.samples, [entry.key for entry in entries] * 4))
    assert len(met) == 4 * len(entries)
    assert not any(met)


def test_an_image_of_one_voxel_is_that_subject_s_problem(tmp_path: Path):
    dot = np.zeros((20, 24, 6), np.int16)
    dot[10, 11, 3] = 5
    write_case(tmp_path / "LGG", "Brats18_CBICA_001_1", t2=dot)
    subjects = list_brats(tmp_path, classes=("LGG", "HGG")).subjects
    coarse = replace(SETTINGS, spacing_mm=(3.0, 3.0))
    entries, (problem,) = prepare_subjects(subjects, coarse, PreparedCache(tmp_path / "cache"))
    assert entries == []
    assert str(problem) == (
        "Brats18_CBICA_001_1: expected a brain, found hardly a voxel that differs from the "
        "background. Replace the images or add the id to data.exclude."
    )


def test_an_entry_without_arrays_is_no_entry(subjects, tmp_path: Path):
    cache = PreparedCache(tmp_path / "cache")
    (entry,), _ = prepare_subjects(subjects[:1], SETTINGS, cache)
    next(cache.folder.rglob("*.npy")).unlink()
    assert cache.geometry(entry.key) is None


@pytest.mark.parametrize(
    ("ending", "length"), [("npy", 0), ("npy", 90), ("npy", 2000), ("json", 9)]
)
def test_a_damaged_entry_is_made_again(subjects, tmp_path: Path, ending: str, length: int):
    cache = PreparedCache(tmp_path / "cache")
    (entry,), _ = prepare_subjects(subjects[:1], SETTINGS, cache)
    whole = np.array(cache.samples(entry.key))
    (path,) = cache.folder.rglob(f"*.{ending}")
    path.write_bytes(path.read_bytes()[:length])
    (again,), _ = prepare_subjects(subjects[:1], SETTINGS, cache)
    assert again == entry
    np.testing.assert_array_equal(cache.samples(again.key), whole)


def _peak(subjects, folder: Path, workers: int) -> int:
    tracemalloc.start()
    prepare_subjects(subjects, SETTINGS, PreparedCache(folder), workers=workers)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    return peak


def test_memory_follows_the_workers_and_not_the_cohort(tmp_path: Path):
    for number in range(16):
        arrays = case_arrays(number, shape=(80, 80, 20))
        write_case(tmp_path / "brats" / "HGG", f"Brats18_CBICA_{number:03d}_1", **arrays)
    subjects = list_brats(tmp_path / "brats", classes=("LGG", "HGG")).subjects
    _peak(subjects[:1], tmp_path / "warm", 1)
    few, many = (_peak(subjects[:n], tmp_path / str(n), 1) for n in (4, 16))
    assert many < 1.2 * few


def _fill(folder: Path, subjects: tuple[Subject, ...]) -> None:
    prepare_subjects(subjects, SETTINGS, PreparedCache(folder))


def test_two_processes_fill_one_cache(subjects, tmp_path: Path):
    context = multiprocessing.get_context("fork")
    shared = tmp_path / "shared"
    jobs = [context.Process(target=_fill, args=(shared, subjects)) for _ in range(2)]
    for job in jobs:
        job.start()
    for job in jobs:
        job.join()
        assert job.exitcode == 0
    _fill(tmp_path / "alone", subjects)
    assert contents(shared) == contents(tmp_path / "alone")


def _write_slowly(folder: Path) -> None:
    geometry = Geometry(slices=[])  # type: ignore[typeddict-item]
    samples = np.zeros((4000, 1000), np.float16)
    cache = PreparedCache(folder)
    while True:
        cache.write("0" * 32, Prepared(samples, geometry))


def test_a_killed_process_leaves_no_half_entry(tmp_path: Path):
    job = multiprocessing.get_context("fork").Process(target=_write_slowly, args=(tmp_path,))
    job.start()
    time.sleep(0.3)
    os.kill(job.pid or 0, signal.SIGKILL)
    job.join()
    cache = PreparedCache(tmp_path)
    if cache.geometry("0" * 32) is not None:
        assert cache.samples("0" * 32).shape == (4000, 1000)
        assert len(cache.samples("0" * 32)[-1]) == 1000


def test_a_failed_write_leaves_nothing(tmp_path: Path):
    cache = PreparedCache(tmp_path)
    unwritable = Prepared(np.zeros((1, 1), np.float16), Geometry(slices=[object()]))  # type: ignore
    with pytest.raises(TypeError, match="not JSON serializable"):
        cache.write("1" * 32, unwritable)
    assert contents(tmp_path) == {}
