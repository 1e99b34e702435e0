"""The phantom cohort: which patients there are, and their files in the layout of BraTS 2018."""

import gzip
import json
import os
import shutil
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import asdict, dataclass
from importlib.metadata import version
from multiprocessing import get_context
from pathlib import Path

import nibabel as nib
import numpy as np
from numpy.typing import NDArray
from rich.progress import Progress

from glioma_xai.data.patient import Grade, Patient, Stream, build_patient, stream
from glioma_xai.data.plan import Enrolment, PhantomSettings, enrol
from glioma_xai.data.shortcuts import apply_shortcut
from glioma_xai.data.unfinished import LOCK, unfinished_folder
from glioma_xai.errors import CohortError

__all__ = [
    "TABLE", "VARIANTS", "PhantomRow", "PhantomSettings", "build_enrolled", "read_rows",
    "write_cohort",
]  # fmt: skip

TABLE = "cohort.json"
VARIANTS = ("removed", "swapped")
RECIPE = 3  # raised whenever the same settings give other bytes


@dataclass(frozen=True)
class PhantomRow:
    """One patient in ``cohort.json``; volume in ml, only what lies inside the written slices."""

    patient_id: str
    grade: Grade
    site: str
    shortcut: bool
    malignancy: float
    tumour_volume_ml: float


def write_cohort(
    output: Path, settings: PhantomSettings, *, workers: int = 1, progress: bool = False
) -> Path:
    """Write a cohort in the layout of BraTS 2018, or recognise the one that is there.

    Files appear in a temporary folder beside ``output`` that takes its name at the end: whatever
    stops the work, nothing half-written is left under that name, and what a killed process left is
    deleted by the next. With a shortcut,
    ``variants/removed`` and ``variants/swapped`` hold the same patients without it, and with it in
    the others.

    Args:
        output: Folder of the cohort; must be new, empty, or hold this very cohort.
        settings: What to write.
        workers: Processes; the bytes do not depend on it.
        progress: Show a bar.

    Returns:
        ``output``.

    Raises:
        CohortError: If ``output`` holds something else.
    """
    output = Path(output)
    if _is_complete(output, settings):
        return output
    with unfinished_folder(output) as partial:
        rows = []
        with Progress(disable=not progress) as bar:
            task = bar.add_task("phantom patients", total=settings.subjects)
            for row in _write_all(partial, settings, workers):
                rows.append(row)
                bar.advance(task)
        rows.sort(key=lambda row: row.patient_id.split("_")[2])
        written = {"written_by": version("glioma-xai"), "patients": [asdict(row) for row in rows]}
        table = _header(settings) | written
        (partial / TABLE).write_text(json.dumps(table, indent=1) + "\n")
        (partial / LOCK).unlink()
        _publish(partial, output, settings)
    return output


def read_rows(output: Path) -> list[PhantomRow]:
    """The per-patient table of a written cohort."""
    table = json.loads((output / TABLE).read_text())
    return [PhantomRow(**row) for row in table["patients"]]


def _write_all(folder: Path, settings: PhantomSettings, workers: int) -> Iterator[PhantomRow]:
    """Write every patient, in this process or in several, and yield rows as they are done."""
    numbers = range(settings.subjects)
    if workers <= 1:
        yield from (_write_patient(folder, settings, number) for number in numbers)
        return
    with ProcessPoolExecutor(workers, mp_context=get_context("spawn")) as pool:
        jobs = [pool.submit(_write_patient, folder, settings, number) for number in numbers]
        try:
            for job in as_completed(jobs):
                yield job.result()
        except BaseException:
            pool.shutdown(wait=True, cancel_futures=True)
            raise


def build_enrolled(settings: PhantomSettings, enrolment: Enrolment) -> Patient:
    """Return a cohort's patient without a shortcut."""
    return build_patient(
        seed=settings.seed,
        number=enrolment.number,
        grade=enrolment.grade,
        site=enrolment.site,
        difficulty=settings.difficulty,
        slices=settings.slices,
        spacing_mm=settings.spacing_mm,
    )


def _write_patient(folder: Path, settings: PhantomSettings, number: int) -> PhantomRow:
    """Write one patient's files, and those of the variants."""
    enrolment = enrol(settings, number)
    patient = build_enrolled(settings, enrolment)
    rng = stream(settings.seed, number, Stream.SHORTCUT)
    marked = apply_shortcut(settings.shortcut, patient, rng)
    _write_files(folder, settings, enrolment, patient, marked)
    return PhantomRow(
        patient_id=enrolment.patient_id,
        grade=enrolment.grade,
        site=enrolment.site_name,
        shortcut=enrolment.shortcut,
        malignancy=patient.malignancy,
        tumour_volume_ml=np.count_nonzero(patient.segmentation) * settings.spacing_mm**3 / 1000,
    )


def _write_files(
    folder: Path, settings: PhantomSettings, enrolment: Enrolment, clean: Patient, marked: Patient
) -> None:
    """Write the cohort's pictures and those of the variants; what repeats becomes a link."""
    places = {folder: marked if enrolment.shortcut else clean}
    if settings.shortcut != "none":
        swapped = clean if enrolment.shortcut else marked
        for variant, patient in zip(VARIANTS, (clean, swapped), strict=True):
            places[folder / "variants" / variant] = patient
    written: dict[int, Path] = {}  # an array that was written before becomes a link
    for place, patient in places.items():
        subject = place / enrolment.grade / enrolment.patient_id
        subject.mkdir(parents=True)
        arrays: dict[str, NDArray[np.int16] | NDArray[np.uint8]] = {"seg": patient.segmentation}
        arrays.update(patient.images.items())
        for kind, array in arrays.items():
            path = subject / f"{enrolment.patient_id}_{kind}.nii.gz"
            first = written.setdefault(id(array), path)
            if first is path:
                _write_nifti(path, array, patient.affine)
            else:
                _link(first, path)


def _write_nifti(
    path: Path, array: NDArray[np.int16] | NDArray[np.uint8], affine: NDArray[np.float64]
) -> None:
    """Write compressed NIfTI whose bytes depend on nothing but the arguments."""
    image = nib.Nifti1Image(array, affine)
    image.header.set_xyzt_units("mm")
    image.set_sform(affine, code="mni")
    image.set_qform(affine, code="mni")
    path.write_bytes(gzip.compress(image.to_bytes(), compresslevel=1, mtime=0))


def _link(source: Path, target: Path) -> None:
    """Give a file a second name; copy it where the file system has no hard links."""
    try:
        os.link(source, target)
    except OSError:
        shutil.copyfile(source, target)


def _header(settings: PhantomSettings) -> dict[str, dict[str, object]]:
    """What a cohort must have in common with another to be the same."""
    return {"phantom": {"recipe": RECIPE}, "settings": asdict(settings)}


def _is_complete(output: Path, settings: PhantomSettings) -> bool:
    """Whether the folder holds this cohort already; False if it is new or empty."""
    if not output.exists() or (output.is_dir() and not any(output.iterdir())):
        return False
    expected = _header(settings)
    try:
        found = json.loads((output / TABLE).read_text())
        differing = [
            f"{group}.{key}={found[group].get(key)!r} (wanted {value!r})"
            for group, values in expected.items()
            for key, value in values.items()
            if found[group].get(key) != value
        ]
    except (OSError, ValueError, KeyError, AttributeError, TypeError):
        differing = [f"no readable {TABLE}"]
    if differing:
        raise CohortError(
            f"output must be new, empty or this phantom cohort: expected {output} to match "
            f"the settings, got {'; '.join(differing)}. "
            "Choose another output or remove that folder."
        )
    return True


def _publish(partial: Path, output: Path, settings: PhantomSettings) -> None:
    """Give the finished folder its name; another process may have been quicker."""
    try:
        partial.rename(output)
    except OSError:
        if not _is_complete(output, settings):
            raise
