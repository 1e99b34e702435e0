"""From probabilities to decisions: the class, its threshold, and the patient's own row."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from glioma_xai.errors import CohortError, ShapeError
from glioma_xai.metrics.functional.intervals import Array

Labels = NDArray[np.int64]


@dataclass(frozen=True)
class PatientPredictions:
    """One row a patient: the mean of the probabilities of the patient's slices.

    Args:
        patients: Names, sorted, (P,).
        probabilities: (P, K).
        labels: (P,).
        slices: Rows that were averaged, (P,).
    """

    patients: NDArray[np.str_]
    probabilities: Array
    labels: Labels
    slices: Labels


def predict(probabilities: ArrayLike, *, threshold: float = 0.5) -> Labels:
    """Class of each row.

    Args:
        probabilities: (N, K).
        threshold: With two classes, the second is predicted from this probability on; unused with
            more classes.

    Returns:
        (N,) class indices.
    """
    values = np.asarray(probabilities, dtype=np.float64)
    if values.shape[1] == 2:
        return (values[:, 1] >= threshold).astype(np.int64)
    return np.asarray(values.argmax(axis=1))


def aggregate_by_patient(
    probabilities: ArrayLike, labels: ArrayLike, patients: Sequence[str]
) -> PatientPredictions:
    """Mean of the probabilities over the slices of each patient.

    Args:
        probabilities: Of the slices, (N, K).
        labels: Of the slices, (N,).
        patients: Patient of each slice, (N,).

    Returns:
        One row a patient, in the order of the sorted names.

    Raises:
        CohortError: If slices of one patient have different labels.
        ShapeError: If the sizes do not fit.
    """
    rows, classes = check_predictions(probabilities, labels)
    names, first, owner, slices = np.unique(
        np.asarray(patients, dtype=str), return_index=True, return_inverse=True, return_counts=True
    )
    conflict = classes != classes[first][owner]
    if conflict.any():
        name = names[owner[conflict.argmax()]]
        found = sorted({int(label) for label in classes[owner == owner[conflict.argmax()]]})
        raise CohortError(
            f"patient {name} must have one label: expected the same class for all slices, got "
            f"{found}. Correct the table of labels, or split the scans into patients of their own."
        )
    sums = np.zeros((len(names), rows.shape[1]))
    np.add.at(sums, owner, rows)
    return PatientPredictions(names, sums / slices[:, None], classes[first], slices)


def choose_threshold(probabilities: ArrayLike, labels: ArrayLike) -> float:
    """Threshold of the positive class with the highest balanced accuracy, for validation data.

    Youden's J is twice the balanced accuracy less 1, so both have the same best threshold. It lies
    halfway between two neighbouring probabilities; of several equally good ones the one nearest to
    0.5 is taken.

    Args:
        probabilities: (N, 2).
        labels: 0 or 1, (N,).

    Returns:
        A threshold in [0, 1]; NaN if a class is absent.

    Raises:
        ShapeError: If the sizes do not fit, or there are more than two classes.
    """
    rows, classes = check_predictions(probabilities, labels)
    if rows.shape[1] != 2:
        raise ShapeError(
            f"a threshold needs two classes: expected probabilities (N, 2), got {rows.shape}. "
            "Predict the most probable class instead."
        )
    positive = classes == 1
    if positive.all() or not positive.any():
        return float("nan")
    values = np.unique(rows[:, 1])
    candidates = np.concatenate([values[:1], (values[1:] + values[:-1]) / 2, [1.0]])
    case, control = np.sort(rows[positive, 1]), np.sort(rows[~positive, 1])
    found = 1 - np.searchsorted(case, candidates) / len(case)
    spared = np.searchsorted(control, candidates) / len(control)
    best = candidates[np.isclose(found + spared, (found + spared).max(), rtol=0, atol=1e-12)]
    return float(best[np.abs(best - 0.5).argmin()])


def check_predictions(probabilities: ArrayLike, labels: ArrayLike) -> tuple[Array, Labels]:
    """Probabilities as float64 (N, K) and labels as int64 (N,).

    Raises:
        ShapeError: If the sizes do not fit, or a label is no class index.
    """
    rows = np.asarray(probabilities, dtype=np.float64)
    classes = np.asarray(labels, dtype=np.int64)
    if rows.ndim != 2 or classes.shape != rows.shape[:1] or rows.shape[1] < 2:
        raise ShapeError(
            f"probabilities and labels must fit: expected (N, classes) and (N,), got {rows.shape} "
            f"and {classes.shape}. Pass the probabilities of all classes, one row a sample."
        )
    if classes.size and not 0 <= classes.min() <= classes.max() < rows.shape[1]:
        raise ShapeError(
            f"labels must be class indices: expected 0 to {rows.shape[1] - 1}, got "
            f"{classes.min()} to {classes.max()}. Compare data.classes with the model's outputs."
        )
    return rows, classes
