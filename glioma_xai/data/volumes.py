"""Files into arrays, with every reason why a file cannot be used."""

import zlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import nibabel as nib
import numpy as np
from nibabel.filebasedimages import ImageFileError
from numpy.typing import NDArray
from PIL import Image

from glioma_xai.data.labels import unexpected_values
from glioma_xai.data.layout import nifti_stem
from glioma_xai.errors import SubjectError
from glioma_xai.records import Problem, Subject

AFFINE_TOLERANCE_MM = 1e-2
IMAGE_AFFINE = np.diag([-1.0, -1.0, 1.0, 1.0])
"""World matrix of PNG and TIFF: x along a row, y down a column, as ITK reads them; pixel 1 mm."""


@dataclass(frozen=True)
class LoadedSubject:
    """Arrays of one subject on its own grid.

    Args:
        image: (C, X, Y, Z) float32, as stored; Z is 1 for an image of a 2-D cohort.
        labels: (X, Y, Z) float32 mask values; None if the subject has no segmentation.
        affine: (4, 4) voxel indices to mm in RAS+ world space.
    """

    image: NDArray[np.float32]
    labels: NDArray[np.float32] | None
    affine: NDArray[np.float64]


Volume = tuple[NDArray[np.float32], NDArray[np.float64]]
"""Values (C, X, Y, Z) and affine (4, 4)."""


def read_volume(path: Path) -> Volume:
    """Return a file's values (C, X, Y, Z) float32 and its affine (4, 4).

    NIfTI of two, three or four dimensions (the last are channels), PNG and TIFF.

    Raises:
        SubjectError: If the file is absent, is not an image, or breaks off.
    """
    volume = _try_volume(path)
    if isinstance(volume, Problem):
        raise SubjectError(str(volume))
    return volume


def _try_volume(path: Path) -> Volume | Problem:
    if not path.is_file():
        return Problem(str(path), "a file", "none", "Restore it.")
    is_nifti = nifti_stem(path) is not None
    try:
        return _read_nifti(path) if is_nifti else _read_image(path)
    except (ImageFileError, OSError, EOFError, ValueError, zlib.error) as error:
        return Problem(
            str(path),
            f"a readable {'NIfTI' if is_nifti else 'PNG or TIFF'} file",
            f"a damaged or truncated one ({type(error).__name__}: {error})",
            "Copy it again from the source.",
        )


def _read_nifti(path: Path) -> Volume:
    image = nib.load(path)
    data = np.asanyarray(image.dataobj).astype(np.float32, copy=False)
    if data.ndim == 2:
        data = data[..., None]
    if data.ndim == 3:
        data = data[..., None]
    if data.ndim != 4:
        raise ValueError(f"{data.ndim} dimensions")
    return np.moveaxis(data, -1, 0), np.asarray(image.affine, dtype=np.float64)


def _read_image(path: Path) -> Volume:
    with Image.open(path) as image:
        data = np.asarray(image).astype(np.float32)
        has_alpha = image.mode in ("RGBA", "LA")
    if data.ndim == 2:
        data = data[..., None]
    if has_alpha:
        data = data[..., :-1]
    return data.transpose(2, 1, 0)[..., None], IMAGE_AFFINE.copy()


def load_subject(
    subject: Subject, modalities: Sequence[str], label_values: Mapping[str, int] | None
) -> tuple[LoadedSubject | None, list[Problem]]:
    """Read a subject's files and list everything that is wrong with them.

    Args:
        subject: What to read.
        modalities: Channels of the result, in order.
        label_values: Mask value of each part of the tumour; None if any one non-zero value is.

    Returns:
        The arrays, or None if there is an error among the problems; and the problems.
    """
    problems: list[Problem] = []
    volumes: dict[str, Volume] = {}
    wanted = ["image"] if subject.channels else list(modalities)
    absent = [name for name in wanted if name not in subject.images]
    if absent:
        problems.append(_missing_modality(subject, wanted, absent))
    files = {name: subject.images[name] for name in wanted if name in subject.images}
    if subject.lesion_mask is not None:
        files["lesion_mask"] = subject.lesion_mask
    for name, path in files.items():
        volume = _try_volume(path)
        if isinstance(volume, Problem):
            problems.append(volume)
        else:
            volumes[name] = volume
    problems += _geometry_problems(subject, files, volumes)
    labels = volumes.pop("lesion_mask", None)
    if labels is not None:
        problems += _label_problems(files["lesion_mask"], labels[0], label_values)
    if not any(problem.severity == "error" for problem in problems):
        image, found = _stack(subject, files, volumes, modalities)
        problems += found
    if any(problem.severity == "error" for problem in problems):
        return None, problems
    affine = next(iter(volumes.values()))[1]
    return LoadedSubject(image, None if labels is None else labels[0][0], affine), problems


def _stack(
    subject: Subject,
    files: Mapping[str, Path],
    volumes: Mapping[str, Volume],
    modalities: Sequence[str],
) -> tuple[NDArray[np.float32], list[Problem]]:
    """Join the modalities into one array (C, X, Y, Z) and check its values."""
    if subject.channels:
        image = volumes["image"][0]
        path = files["image"]
        if image.shape[0] != len(subject.channels):
            return image, [
                Problem(
                    str(path),
                    f"{len(subject.channels)} channels ({', '.join(subject.channels)})",
                    str(image.shape[0]),
                    "Name the file's channels in order in data.modalities.",
                )
            ]
        absent = [name for name in modalities if name not in subject.channels]
        if absent:
            return image, [_missing_modality(subject, modalities, absent)]
        order = [subject.channels.index(name) for name in modalities]
        image = image if order == list(range(len(image))) else image[order]
        paths = [path] * len(modalities)
    else:
        image = np.concatenate([volumes[name][0] for name in modalities])
        paths = [files[name] for name in modalities]
    problems = []
    for name, path, channel in zip(modalities, paths, image, strict=True):
        low, high = float(channel.min()), float(channel.max())  # NaN and infinity show in these
        if not (np.isfinite(low) and np.isfinite(high)):
            fix = "Repair the file or add the id to data.exclude."
            found = (
                f"{int((~np.isfinite(channel)).sum())} voxels of {name} that are NaN or infinite"
            )
            problems.append(Problem(str(path), "finite values", found, fix))
        elif low == high:
            fix = "Replace the file or add the id to data.exclude."
            problems.append(Problem(str(path), "an image", f"{name} constant at {low:g}", fix))
    return image, problems


def _missing_modality(subject: Subject, wanted: Sequence[str], absent: Sequence[str]) -> Problem:
    present = [name for name in wanted if name not in absent]
    return Problem(
        subject.subject_id,
        ", ".join(wanted),
        ", ".join(present) or "none of them",
        f"Restore {', '.join(absent)}, add the id to data.exclude, or change data.modalities.",
    )


def _geometry_problems(
    subject: Subject,
    files: Mapping[str, Path],
    volumes: Mapping[str, Volume],
) -> list[Problem]:
    """Compare shape and affine of every volume with the first one's."""
    problems = []
    first: str | None = None
    for name, (data, affine) in volumes.items():
        if first is None:
            first = name
            continue
        reference, reference_affine = volumes[first]
        like = f"as in {files[first].name}"
        if data.shape[1:] != reference.shape[1:]:
            fix = f"Resample it to the grid of {files[first].name}."
            expected = f"shape {reference.shape[1:]} {like}"
            problems.append(Problem(str(files[name]), expected, f"{data.shape[1:]}", fix))
        elif np.abs(affine - reference_affine).max() > AFFINE_TOLERANCE_MM:
            fix = "Its header places it elsewhere: resample it, or copy the right header to it."
            expected = f"the affine {reference_affine[:3].round(3).tolist()} {like}"
            found = f"{affine[:3].round(3).tolist()}"
            problems.append(Problem(str(files[name]), expected, found, fix))
        if name == "lesion_mask" and data.shape[0] != 1:
            found = f"{data.shape[0]} channels"
            fix = "Merge them into one: 0 is background, other values are parts of the tumour."
            problems.append(Problem(str(files[name]), "a mask of one channel", found, fix))
    return problems


def _label_problems(
    path: Path, labels: NDArray[np.float32], label_values: Mapping[str, int] | None
) -> list[Problem]:
    """Check the values of a segmentation."""
    values = np.unique(labels[labels != 0]).tolist()
    unexpected = unexpected_values(values, label_values)
    if unexpected:
        known = "one value" if label_values is None else str(dict(label_values))
        some = ", ".join(f"{value:g}" for value in unexpected[:6])
        fix = "Set data.label_values to what this cohort's values mean, or repair the mask."
        return [Problem(str(path), f"mask values 0 and {known}", some, fix)]
    if not values:
        fix = "The subject is used for classification only."
        return [Problem(str(path), "a tumour", "an empty mask", fix, "warning")]
    return []
