"""Task01_BrainTumour of the Medical Segmentation Decathlon: one file with four channels a case."""

import json
from collections.abc import Collection
from pathlib import Path

from glioma_xai.data.brats import SUFFIXES
from glioma_xai.data.layout import LABEL_SCHEMES, Listing, nifti_stem, require_folder
from glioma_xai.errors import CohortError
from glioma_xai.records import Problem, Subject

CHANNEL_NAMES = {**SUFFIXES, "t1w": "t1"}


def list_msd(root: Path, *, exclude: Collection[str] = ()) -> Listing:
    """Return the training cases that ``dataset.json`` lists; they have no grade.

    Args:
        root: The folder with ``dataset.json``, ``imagesTr`` and ``labelsTr``.
        exclude: Cases that are passed over.

    Raises:
        CohortError: If ``dataset.json`` is absent or does not say which channel is what.
    """
    require_folder(root)
    description = root / "dataset.json"
    try:
        content = json.loads(description.read_text(encoding="utf-8"))
        names = [content["modality"][str(i)] for i in range(len(content["modality"]))]
        rows = [(row["image"], row["label"]) for row in content["training"]]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise CohortError(
            f"{description}: expected the description of an MSD task with modality and training, "
            f"found none that can be read ({type(error).__name__}: {error}). "
            "Set data.root to the folder Task01_BrainTumour."
        ) from error
    channels = tuple(CHANNEL_NAMES.get(str(name).lower(), str(name).lower()) for name in names)
    subjects: list[Subject] = []
    problems: list[Problem] = []
    for image, label in rows:
        path = root / image
        case_id = nifti_stem(path) or path.stem
        if case_id in exclude:
            continue
        mask = root / label
        outside = [
            name
            for name, file in ((image, path), (label, mask))
            if not file.resolve().is_relative_to(root.resolve())
        ]
        if outside:
            fix = "Repair dataset.json."
            problems.append(Problem(case_id, f"files inside {root}", ", ".join(outside), fix))
            continue
        subjects.append(Subject(case_id, case_id, None, {"image": path}, channels, mask))
    subjects.sort(key=lambda subject: subject.subject_id)
    return Listing(tuple(subjects), tuple(problems), LABEL_SCHEMES["msd"])
