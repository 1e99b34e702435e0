"""One row a sample: which entry it comes from, whose it is, and what it is for."""

from collections.abc import Collection, Mapping, Sequence

import pandas as pd

from glioma_xai.data.cache import Entry
from glioma_xai.errors import CohortError
from glioma_xai.records import Split

COLUMNS = (
    "patient_id", "subject_id", "slice_index", "split", "label", "class", "site",
    "lesion_area", "guided", "entry", "row",
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
        and ``row`` (where its arrays lie in the cache).

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
