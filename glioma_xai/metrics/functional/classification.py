"""How good a classification is, with confidence intervals.

Every score takes probabilities (N, K), labels (N,) and optional weights of the rows, (R, N), and
returns one value for each of the R rows of weights. That makes a bootstrap of 2,000 draws a matrix
product; scikit-learn takes one draw at a time and serves as the reference in the tests.

With two classes the second is the positive one (HGG, G3): sensitivity is its recall, specificity
the first one's, and ``threshold`` cuts its probability. With more classes the prediction is the
most probable class, and area and precision are means over one class against the rest.

A score that needs a class which is absent (or has no weight) is NaN, never a warning or a guess.
"""

from collections.abc import Callable, Mapping, Sequence
from functools import partial

import numpy as np
from numpy.typing import ArrayLike

from glioma_xai.metrics.functional.curves import auc, average_precision, ratio
from glioma_xai.metrics.functional.decisions import Labels, check_predictions, predict
from glioma_xai.metrics.functional.delong import delong_interval, separated_interval
from glioma_xai.metrics.functional.intervals import (
    Array,
    Interval,
    bootstrap_interval,
    wilson_interval,
)

Score = Callable[[Array, Labels, Array], Array]


def accuracy(
    probabilities: Array, labels: Labels, weights: Array, *, threshold: float = 0.5
) -> Array:
    """Share of rows whose class is predicted, (R,)."""
    correct = predict(probabilities, threshold=threshold) == labels
    return ratio(weights @ correct, weights.sum(axis=1))


def recalls(
    probabilities: Array, labels: Labels, weights: Array, *, threshold: float = 0.5
) -> Array:
    """Share of each class's rows that are predicted as that class, (R, K); NaN if it has none."""
    correct = predict(probabilities, threshold=threshold) == labels
    members = np.eye(probabilities.shape[1])[labels]  # N K
    return ratio(weights @ (members * correct[:, None]), weights @ members)


def balanced_accuracy(
    probabilities: Array, labels: Labels, weights: Array, *, threshold: float = 0.5
) -> Array:
    """Mean of the classes' recalls, (R,); NaN if a class is absent."""
    return np.asarray(recalls(probabilities, labels, weights, threshold=threshold).mean(axis=1))


def sensitivity(
    probabilities: Array, labels: Labels, weights: Array, *, threshold: float = 0.5
) -> Array:
    """Recall of the second class, (R,)."""
    return recalls(probabilities, labels, weights, threshold=threshold)[:, 1]


def specificity(
    probabilities: Array, labels: Labels, weights: Array, *, threshold: float = 0.5
) -> Array:
    """Recall of the first class, (R,)."""
    return recalls(probabilities, labels, weights, threshold=threshold)[:, 0]


def brier(probabilities: Array, labels: Labels, weights: Array) -> Array:
    """Mean squared distance to the label, (R,): in [0, 1] with two classes, else in [0, 2]."""
    members = np.eye(probabilities.shape[1])[labels]
    distance = ((probabilities - members) ** 2).sum(axis=1)
    scale = 0.5 if probabilities.shape[1] == 2 else 1.0
    return scale * ratio(weights @ distance, weights.sum(axis=1))


def expected_calibration_error(
    probabilities: Array, labels: Labels, weights: Array, *, bins: int = 15
) -> Array:
    """Mean distance between confidence and accuracy over bins of equal width, (R,).

    The confidence is the highest probability of a row. The number depends on the bins and is
    biased upwards when they hold few rows: compare models on the same rows only.

    Reference:
        Guo et al. (2017), ICML, "On calibration of modern neural networks".
    """
    confidence = probabilities.max(axis=1)
    correct = probabilities.argmax(axis=1) == labels
    bin_of = np.clip(np.ceil(confidence * bins).astype(int) - 1, 0, bins - 1)
    gaps = np.eye(bins)[bin_of] * (confidence - correct)[:, None]  # N bins
    return ratio(np.abs(weights @ gaps).sum(axis=1), weights.sum(axis=1))


def classification_scores(
    probabilities: ArrayLike,
    labels: ArrayLike,
    *,
    threshold: float = 0.5,
    bins: int = 15,
) -> dict[str, float]:
    """Every score on the data.

    Args:
        probabilities: (N, K), rows summing to 1.
        labels: Class index, (N,).
        threshold: Of the second of two classes; chosen on validation data.
        bins: Of the expected calibration error.

    Returns:
        accuracy, balanced_accuracy, auc, average_precision, brier, ece, and for two classes
        sensitivity and specificity; NaN where a needed class is absent.

    Raises:
        ShapeError: If the sizes do not fit.
    """
    rows, classes = check_predictions(probabilities, labels)
    ones = np.ones((1, len(classes)))
    scores = _scores(rows.shape[1], threshold, bins)
    return {name: float(score(rows, classes, ones)[0]) for name, score in scores.items()}


def classification_intervals(
    probabilities: ArrayLike,
    labels: ArrayLike,
    patients: Sequence[str],
    *,
    threshold: float = 0.5,
    bins: int = 15,
    resamples: int = 2000,
    seed: int = 0,
    level: float = 0.95,
) -> dict[str, Interval]:
    """Every score with its confidence interval.

    Where each patient has one row, the area has DeLong's interval and accuracy, sensitivity and
    specificity have Wilson's; everything else is a bootstrap by patient.

    Args:
        probabilities: (N, K), rows summing to 1.
        labels: Class index, (N,).
        patients: Patient of each row, (N,).
        threshold: Of the second of two classes.
        bins: Of the expected calibration error.
        resamples: Draws of the bootstrap.
        seed: Of the bootstrap.
        level: Confidence level.

    Returns:
        Name to interval; NaN where a needed class is absent.

    Raises:
        ShapeError: If the sizes do not fit.
    """
    rows, classes = check_predictions(probabilities, labels)
    ones = np.ones((1, len(classes)))
    independent = len(set(patients)) == len(patients)
    in_class = np.bincount(classes, minlength=2)
    trials = {"accuracy": len(classes), "specificity": in_class[0], "sensitivity": in_class[1]}
    intervals: dict[str, Interval] = {}
    for name, score in _scores(rows.shape[1], threshold, bins).items():
        if independent and name == "auc" and rows.shape[1] == 2:
            intervals[name] = delong_interval(rows[:, 1], classes, level=level)
        elif independent and name in trials:
            count = int(trials[name])
            hits = float(score(rows, classes, ones)[0]) * count
            intervals[name] = wilson_interval(hits, count, level=level)
        else:
            intervals[name] = bootstrap_interval(
                partial(score, rows, classes),
                patients,
                resamples=resamples,
                seed=seed,
                level=level,
                proportion=name in trials or name == "balanced_accuracy",
            )
    area = intervals["auc"]
    if rows.shape[1] == 2 and area.method == "bootstrap" and area.value in (0.0, 1.0):
        owners = np.asarray(patients)
        rarer = min(len(np.unique(owners[classes == label])) for label in (0, 1))
        intervals["auc"] = separated_interval(area.value, rarer, area.samples, level=level)
    return intervals


def _scores(classes: int, threshold: float, bins: int) -> Mapping[str, Score]:
    scores: dict[str, Score] = {
        "accuracy": partial(accuracy, threshold=threshold),
        "balanced_accuracy": partial(balanced_accuracy, threshold=threshold),
        "auc": auc,
        "average_precision": average_precision,
        "brier": brier,
        "ece": partial(expected_calibration_error, bins=bins),
    }
    if classes == 2:
        scores["sensitivity"] = partial(sensitivity, threshold=threshold)
        scores["specificity"] = partial(specificity, threshold=threshold)
    return scores
