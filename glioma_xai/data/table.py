"""One row a sample: which entry it comes from, whose it is, and what it is for."""

from collections.abc import Collection, Mapping, Sequence

import numpy as np
import pandas as pd

from glioma_xai.data.preparing import Entry
from glioma_xai.errors import CohortError
from glioma_xai.records import Split

COLUMNS = (
    "patient_id", "subject_id", "slice_index", "split", "label", "class", "site",
    "lesion_area", "guided", "entry", "row", "annotation_entry", "annotation_row",
)  # fmt: skip


def sample_table(
    entries: Sequence[Entry],
    *,
    splits: Mapping[str, Split],
    classes: Sequence[str],
    guided: Collection[str],
) -> pd.DataFrame:
    """Return the samples of a cohort, ordered by patient, subject and slice.

    Args:
        entries: Prepared subjects.
        splits: Split of each patient.
        classes: Class names.
        guided: Training patients whose masks may be used.

    Returns:
        A row a sample with the columns ``patient_id``, ``subject_id``, ``slice_index`` (in the
        file's own numbering, -1 for a volume), ``split``, ``label`` (-1 if unknown), ``class``,
        ``site``, ``lesion_area`` (pixels), ``guided`` (its mask may be used in training), ``entry``
        and ``row`` (where its arrays lie in the cache), ``annotation_entry`` and
        ``annotation_row`` (where the mask lies that training sees).

    Raises:
        CohortError: If samples differ in size.
    """
    rows = []
    for entry in entries:
        subject, geometry = entry.subject, entry.geometry
        for row, area in enumerate(geometry["lesion_area"]):
            slices = geometry["native_slices"]
            number = slices[row] if slices else -1
            rows.append(
                {
                    "patient_id": subject.patient_id,
                    "subject_id": subject.subject_id,
                    "slice_index": number if subject.slice_index is None else subject.slice_index,
                    "split": splits[subject.patient_id],
                    "label": -1 if subject.label is None else subject.label,
                    "class": "" if subject.label is None else classes[subject.label],
                    "site": subject.site or "",
                    "lesion_area": area,
                    "guided": splits[subject.patient_id] != "train" or subject.patient_id in guided,
                    "entry": entry.key,
                    "row": row,
                    "annotation_entry": entry.key,
                    "annotation_row": row,
                }
            )
    table = pd.DataFrame(rows, columns=list(COLUMNS))
    _require_one_size(entries)
    return table.sort_values(["patient_id", "subject_id", "slice_index"], ignore_index=True)


def _require_one_size(entries: Sequence[Entry]) -> None:
    sizes = {tuple(entry.geometry["sample_shape"]): entry.subject.subject_id for entry in entries}
    if len(sizes) > 1:
        found = ", ".join(f"{size} ({subject})" for size, subject in list(sizes.items())[:4])
        raise CohortError(
            f"all samples must have one size, found {found}. Set data.spatial_size, which crops "
            "and pads, or data.spacing_mm."
        )


def with_control_masks(table: pd.DataFrame, seed: int) -> pd.DataFrame:
    """Return the table with the annotations of training samples exchanged between patients.

    Patients are put in a random order and every sample takes the mask of one half a round
    further, so that sizes and places of masks stay what they are over the cohort.
    """
    chosen = table.index[(table["split"] == "train") & (table["lesion_area"] > 0)]
    order = np.random.default_rng([seed, len(chosen)]).permutation(
        table.loc[chosen, "patient_id"].unique()
    )
    if len(order) < 2:
        raise CohortError(
            f"control masks need two training patients with a lesion, found {len(order)}. "
            "Add patients or set data.annotation.control=false."
        )
    samples = {patient: chosen[table.loc[chosen, "patient_id"] == patient] for patient in order}
    result = table.copy()
    for patient, donor in zip(order, np.roll(order, len(order) // 2), strict=True):
        for place, row in enumerate(samples[patient]):
            given = samples[donor][place % len(samples[donor])]
            result.loc[row, "annotation_entry"] = table.loc[given, "entry"]
            result.loc[row, "annotation_row"] = table.loc[given, "row"]
    return result
