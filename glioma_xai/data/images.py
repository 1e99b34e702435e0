"""Folders of PNG or TIFF slices, each with its mask beside it."""

import os
import re
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path

from glioma_xai.data.layout import Listing, class_index, require_folder
from glioma_xai.errors import CohortError
from glioma_xai.records import Problem, Subject

ENDINGS = (".png", ".tif", ".tiff", ".bmp")
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
    subjects = []
    for path in images:
        above = path.relative_to(root).parts[:-1]
        found = [class_index(part, classes, label_map) for part in above]
        label = next((index for index in found if index is not None), None)
        numbered = SLICE_NUMBER.match(path.stem)
        own = [
            part
            for part, index in zip(above, found, strict=True)
            if index is None and part.lower() not in IMAGE_FOLDERS
        ]
        patient = own[-1] if own else (numbered.group(1) if numbered else path.stem)
        subject = Subject(
            subject_id=path.stem if path.stem.startswith(patient) else f"{patient}_{path.stem}",
            patient_id=patient,
            label=label,
            images={"image": path},
            channels=tuple(modalities),
            lesion_mask=masks.get(_mask_key(path)),
            slice_index=int(numbered.group(2)) if numbered else None,
        )
        if not {subject.subject_id, patient} & set(exclude):
            subjects.append(subject)
    if not subjects:
        raise CohortError(
            f"{root}: expected images ({', '.join(ENDINGS)}), found none. "
            "Set data.root to the folder that holds them."
        )
    subjects.sort(key=lambda subject: subject.subject_id)
    return Listing(tuple(subjects), _lonely_masks(root, subjects, masks))


def _lonely_masks(
    root: Path, subjects: Sequence[Subject], masks: Mapping[tuple[str, ...], Path]
) -> tuple[Problem, ...]:
    """Warn of masks that belong to no image; those of excluded images are not used either."""
    lonely = sorted(set(masks.values()) - {subject.lesion_mask for subject in subjects})
    if not lonely:
        return ()
    found = f"{len(lonely)} without one, such as {lonely[0]}"
    fix = "Call masks like their images, as in x_7.png and x_7_mask.png."
    return (Problem(str(root), "an image for every mask", found, fix, "warning"),)


def _find(root: Path) -> tuple[list[Path], dict[tuple[str, ...], Path]]:
    """Return the images, and the masks by the key of their image."""
    images: list[Path] = []
    masks: dict[tuple[str, ...], Path] = {}
    for folder, subfolders, names in os.walk(root):
        subfolders[:] = sorted(name for name in subfolders if not name.startswith("."))
        for name in sorted(names):
            path = Path(folder) / name
            if path.suffix.lower() not in ENDINGS:
                continue
            if MASK_ENDING.search(path.stem) or path.parent.name.lower() in MASK_FOLDERS:
                masks[_mask_key(path)] = path
            else:
                images.append(path)
    return images, masks


def _mask_key(path: Path) -> tuple[str, ...]:
    """Return what an image and its mask have in common: folders but images/masks, and the stem."""
    skipped = (*IMAGE_FOLDERS, *MASK_FOLDERS)
    folders = tuple(part for part in path.parent.parts if part.lower() not in skipped)
    return (*folders, MASK_ENDING.sub("", path.stem))
