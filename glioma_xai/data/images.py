"""Folders of PNG, TIFF, BMP or JPEG slices, each with its mask beside it."""

import re
from collections import defaultdict
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path

from glioma_xai.data.files import PICTURE_ENDINGS
from glioma_xai.data.layout import Listing, class_index, require_folder, walk_folders
from glioma_xai.errors import CohortError
from glioma_xai.records import Problem, Subject

MASK_ENDING = re.compile(r"[_-](?:mask|seg|segmentation|label)$", re.IGNORECASE)
MASK_FOLDERS = ("mask", "masks", "label", "labels")
IMAGE_FOLDERS = ("image", "images")
SLICE_NUMBER = re.compile(r"^(.+?)[_-](\d+)$")


def list_images(
    root: Path,
    *,
    classes: Sequence[str],
    modalities: Sequence[str],
    label_map: Mapping[str, str],
    exclude: Collection[str] = (),
) -> Listing:
    """Return the slices of a folder of images.

    The mask of ``x_7.tif`` is ``x_7_mask.tif`` beside it, or in a folder ``masks``. A folder called
    like a class gives the class. The patient is the folder that holds the slices; where that is
    a class or ``images``, it is the file's name without the slice's number.

    Args:
        root: The folder.
        classes: Class names in the order of their index.
        modalities: What the channels of each file are.
        label_map: Folder name to class name, where they differ.
        exclude: Patients or slices that are passed over.

    Raises:
        CohortError: If the folder is absent or holds no image.
    """
    require_folder(root)
    images, masks = _find(root)
    subjects: list[Subject] = []
    problems = _lonely_masks(root, images, masks)
    refused: set[str] = set()
    for path in images:
        subject, others = _subject(path, root, masks, classes, modalities, label_map)
        if {subject.subject_id, subject.patient_id} & set(exclude):
            continue
        subjects.append(subject)
        if others:
            found = f"another in {', '.join(mask.name for mask in others)}"
            problems.append(Problem(subject.subject_id, "one mask", found, "Remove all but one."))
            refused.add(subject.subject_id)
    if not subjects:
        raise CohortError(
            f"{root}: expected images ({', '.join(PICTURE_ENDINGS)}), found none. "
            "Set data.root to the folder that holds them."
        )
    subjects.sort(key=lambda subject: subject.subject_id)
    return Listing(tuple(subjects), tuple(problems), refused=frozenset(refused))


def _subject(
    path: Path,
    root: Path,
    masks: Mapping[tuple[str, ...], Sequence[Path]],
    classes: Sequence[str],
    modalities: Sequence[str],
    label_map: Mapping[str, str],
) -> tuple[Subject, Sequence[Path]]:
    """Return the image as a subject, and the masks that it has besides the first."""
    above = [
        part for part in path.relative_to(root).parts[:-1] if part.lower() not in IMAGE_FOLDERS
    ]
    found = [class_index(part, classes, label_map) for part in above]
    numbered = SLICE_NUMBER.match(path.stem)
    patient = numbered.group(1) if numbered else path.stem
    if above and found[-1] is None:
        patient = above[-1]
    own = masks.get(_mask_key(path), [])
    subject = Subject(
        subject_id=path.stem if path.stem.startswith(patient) else f"{patient}_{path.stem}",
        patient_id=patient,
        label=next((index for index in found if index is not None), None),
        images={"image": path},
        channels=tuple(modalities),
        lesion_mask=own[0] if own else None,
        slice_index=int(numbered.group(2)) if numbered else None,
    )
    return subject, own[1:]


def _lonely_masks(
    root: Path, images: Sequence[Path], masks: Mapping[tuple[str, ...], Sequence[Path]]
) -> list[Problem]:
    """Warn of masks that belong to no image."""
    lonely = sorted(set(masks) - {_mask_key(path) for path in images})
    if not lonely:
        return []
    found = f"{len(lonely)} without one, such as {masks[lonely[0]][0]}"
    fix = "Call masks like their images, as in x_7.png and x_7_mask.png."
    return [Problem(str(root), "an image for every mask", found, fix, "warning")]


def _find(root: Path) -> tuple[list[Path], dict[tuple[str, ...], list[Path]]]:
    """Return the images, and the masks by the key of their image."""
    images: list[Path] = []
    masks: defaultdict[tuple[str, ...], list[Path]] = defaultdict(list)
    for folder, _, names in walk_folders(root):
        for path in (folder / name for name in names):
            if path.suffix.lower() not in PICTURE_ENDINGS:
                continue
            if MASK_ENDING.search(path.stem) or folder.name.lower() in MASK_FOLDERS:
                masks[_mask_key(path)].append(path)
            else:
                images.append(path)
    return images, masks


def _mask_key(path: Path) -> tuple[str, ...]:
    """Return what an image and its mask have in common: folders but images/masks, and the stem."""
    skipped = (*IMAGE_FOLDERS, *MASK_FOLDERS)
    folders = tuple(part for part in path.parent.parts if part.lower() not in skipped)
    return (*folders, MASK_ENDING.sub("", path.stem))
