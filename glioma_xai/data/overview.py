"""What a cohort consists of, as tables."""

from collections import Counter, defaultdict
from collections.abc import Sequence

import numpy as np
import pandas as pd

from glioma_xai.data.confounders import PERCENTILES
from glioma_xai.data.inspection import Inspection

MOST_VALUES = 12
"""Values of a trait that get a row; the others are counted together."""


def composition(inspection: Inspection) -> pd.DataFrame:
    """Return how many subjects and patients of each class there are, in all and by trait.

    One column a class. Rows: subjects, samples (slices or volumes), subjects without a tumour in
    the mask, patients, and the patients by split, site and every other trait.
    """
    counts: defaultdict[str, Counter[int]] = defaultdict(Counter)
    patients: defaultdict[tuple[str, str], dict[str, int]] = defaultdict(dict)  # trait to patients
    for one in inspection.examined:
        traits, areas = one.traits, one.entry.geometry["lesion_area"]
        counts["subjects"][traits.label] += 1
        counts["samples"][traits.label] += len(areas)
        counts["without a tumour"][traits.label] += int(max(areas) <= 0)
        split = inspection.splits.get(traits.patient_id)
        for trait in {"": "", "split": split, **traits.categories}.items():
            patients[trait[0], trait[1] or "unknown"][traits.patient_id] = traits.label
    by_trait: defaultdict[str, dict[str, Counter[int]]] = defaultdict(dict)
    for (name, value), labels in patients.items():
        by_trait[name][value] = Counter(labels.values())
    rows = dict(counts)
    for name, values in by_trait.items():
        for value, count in _commonest(values).items():
            rows[f"patients: {name} {value}" if name else "patients"] = count
    cells = [[count[i] for i in range(len(inspection.classes))] for count in rows.values()]
    table = pd.DataFrame(cells, columns=list(inspection.classes))
    table.insert(0, "", list(rows))
    return table


def _commonest(counts: dict[str, Counter[int]]) -> dict[str, Counter[int]]:
    """Return the commonest values in the order of their names, the others as one."""
    by_size = sorted(counts, key=lambda value: -counts[value].total())
    shown = {value: counts[value] for value in sorted(by_size[:MOST_VALUES])}
    others = by_size[MOST_VALUES:]
    if others:
        total = sum((counts[value] for value in others), Counter[int]())
        shown[f"{len(others)} others"] = total
    return shown


def intensities(inspection: Inspection) -> pd.DataFrame:
    """Return percentiles of each modality in the brain beside the tumour, median over subjects.

    One row a modality and class, and the smallest and largest 99th percentile of a subject.
    """
    rows: list[dict[str, str]] = []
    for modality in inspection.modalities:
        for label, name in enumerate(inspection.classes):
            own = [
                one.traits.levels[modality]
                for one in inspection.examined
                if one.traits.label == label
            ]
            if own:
                rows.append({"modality": modality, "class": name, **_summary(own)})
    return pd.DataFrame(rows)


def _summary(levels: Sequence[tuple[float, ...]]) -> dict[str, str]:
    values = np.array(levels)  # subjects percentiles
    middle = np.nanmedian(values, axis=0)
    cells = {f"{p} %": f"{value:.4g}" for p, value in zip(PERCENTILES, middle, strict=True)}
    low, high = np.nanmin(values[:, -1]), np.nanmax(values[:, -1])
    return {**cells, f"{PERCENTILES[-1]} % from - to": f"{low:.4g} - {high:.4g}"}
