"""The files of a subject into arrays, with every reason why they cannot be used."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from glioma_xai.data.files import Volume, try_volume
from glioma_xai.data.labels import unexpected_values
from glioma_xai.records import Problem, Subject

AFFINE_TOLERANCE_MM = 1e-2


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


def load_subject(
    subject: Subject, modalities: Sequence[str], label_values: Mapping[str, int] | None
) -> tuple[LoadedSubject | None, list[Problem]]:
    """Read a subject's files and list everything that is wrong with them.

    Args:
        subject: What to read.
        modalities: Channels of the result, in order.
        label_values: Mask value of each part of the tumour; None if any one non-zero value is.

    Returns:
        The arrays, or None if they cannot be used; and the problems, which are errors.
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
        volume = try_volume(path, indices=name == "lesion_mask")
        if isinstance(volume, Problem):
            problems.append(volume)
        else:
            volumes[name] = volume if name == "image" else _one_channel(volume)
    problems += _geometry_problems(files, volumes) + _channel_problems(files, volumes)
    labels = volumes.pop("lesion_mask", None)
    if labels is not None:
        problems += _label_problems(files["lesion_mask"], labels[0], label_values)
    if problems:
        return None, problems
    image, problems = _stack(subject, files, volumes, modalities)
    if problems:
        return None, problems
    affine = next(iter(volumes.values()))[1]
    return LoadedSubject(image, None if labels is None else labels[0][0], affine), []


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


def _one_channel(volume: Volume) -> Volume:
    """Return a volume that was stored as grey in several colours as one channel."""
    data, affine = volume
    same = all(np.array_equal(data[0], channel) for channel in data[1:])
    return (data[:1] if same else data), affine


def _geometry_problems(
    files: Mapping[str, Path],
    volumes: Mapping[str, Volume],
) -> list[Problem]:
    """Compare shape and affine of every volume with the first one's."""
    problems = []
    first: str | None = None
    for name, (data, affine) in volumes.items():
        if first is None:
            first = name
            if not np.isfinite(affine).all() or abs(np.linalg.det(affine[:3, :3])) < 1e-9:
                fix = "Its header does not say where voxels lie: set its affine."
                found = f"{affine[:3].round(3).tolist()}"
                problems.append(Problem(str(files[name]), "an invertible affine", found, fix))
            continue
        reference, reference_affine = volumes[first]
        like = f"as in {files[first].name}"
        if data.shape[1:] != reference.shape[1:]:
            fix = f"Resample it to the grid of {files[first].name}."
            expected = f"shape {reference.shape[1:]} {like}"
            problems.append(Problem(str(files[name]), expected, f"{data.shape[1:]}", fix))
        elif (
            not np.abs(affine - reference_affine).max() <= AFFINE_TOLERANCE_MM
        ):  # NaN is unlike, too
            fix = "Its header places it elsewhere: resample it, or copy the right header to it."
            expected = f"the affine {reference_affine[:3].round(3).tolist()} {like}"
            found = f"{affine[:3].round(3).tolist()}"
            problems.append(Problem(str(files[name]), expected, found, fix))
    return problems


def _channel_problems(files: Mapping[str, Path], volumes: Mapping[str, Volume]) -> list[Problem]:
    """Report masks and files of one modality that hold several channels."""
    problems = []
    for name, (data, _) in volumes.items():
        if name == "image" or data.shape[0] == 1:
            continue
        expected, fix = "a mask of one channel", "Merge them: 0 is background, others the tumour."
        if name != "lesion_mask":
            expected = f"one channel, {name}"
            fix = "Keep the one that is meant, or name the file in a manifest's column image."
        found = f"{data.shape[0]} channels"
        problems.append(Problem(str(files[name]), expected, found, fix))
    return problems


def _label_problems(
    path: Path, labels: NDArray[np.float32], label_values: Mapping[str, int] | None
) -> list[Problem]:
    """Check the values of a segmentation."""
    unknown = int(np.isnan(labels).sum())
    if unknown:
        fix = "Repair the mask: 0 is background, other values are parts of the tumour."
        return [Problem(str(path), "finite mask values", f"{unknown} voxels that are NaN", fix)]
    values = np.unique(labels[labels != 0]).tolist()
    unexpected = unexpected_values(values, label_values)
    if unexpected:
        known = "one value" if label_values is None else str(dict(label_values))
        some = ", ".join(f"{value:g}" for value in unexpected[:6])
        fix = "Set data.label_values to what this cohort's values mean, or repair the mask."
        return [Problem(str(path), f"mask values 0 and {known}", some, fix)]
    return []
