"""Probabilities that mean what they say: temperature scaling fitted on validation data."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike
from scipy.optimize import minimize_scalar
from scipy.special import log_softmax, softmax

from glioma_xai.metrics.functional.intervals import Array

BOUNDS = (0.05, 20.0)


@dataclass(frozen=True)
class CalibrationBin:
    """Predictions of about the same confidence.

    Args:
        low: Lower end of the bin.
        high: Upper end.
        count: Predictions in it.
        confidence: Their mean confidence; NaN if there are none.
        accuracy: Share of them that is right; NaN if there are none.
    """

    low: float
    high: float
    count: int
    confidence: float
    accuracy: float


def calibration_bins(
    probabilities: ArrayLike, labels: ArrayLike, *, bins: int = 15
) -> list[CalibrationBin]:
    """What the expected calibration error is the mean of: confidence and accuracy, bin by bin.

    Args:
        probabilities: (N, K).
        labels: Class index, (N,).
        bins: Of equal width in (0, 1], each closed at its upper end.
    """
    rows = np.asarray(probabilities, dtype=np.float64)
    confidence = rows.max(axis=1)
    correct = rows.argmax(axis=1) == np.asarray(labels)
    found = []
    for number in range(bins):
        low, high = number / bins, (number + 1) / bins
        inside = (np.ceil(confidence * bins).astype(int) - 1).clip(0, bins - 1) == number
        count = int(inside.sum())
        means = (confidence[inside].mean(), correct[inside].mean()) if count else (np.nan, np.nan)
        found.append(CalibrationBin(low, high, count, float(means[0]), float(means[1])))
    return found


def fit_temperature(logits: ArrayLike, labels: ArrayLike) -> float:
    """Temperature that gives validation data the highest likelihood.

    Args:
        logits: (N, K); log-probabilities serve as well, a constant a row makes no difference.
        labels: Class index, (N,).

    Returns:
        A temperature in [0.05, 20]: above 1 the model was too sure. At the lower end the data are
        separated and say nothing about how sure to be. NaN without data.

    Reference:
        Guo et al. (2017), ICML, "On calibration of modern neural networks".
    """
    rows = np.asarray(logits, dtype=np.float64)
    classes = np.asarray(labels, dtype=np.int64)
    if not len(classes):
        return float("nan")

    def loss(log_temperature: float) -> float:
        likelihood = log_softmax(rows / np.exp(log_temperature), axis=1)
        return float(-likelihood[np.arange(len(classes)), classes].mean())

    fit = minimize_scalar(
        loss, bounds=tuple(np.log(BOUNDS)), method="bounded", options={"xatol": 1e-6}
    )
    return float(np.exp(fit.x))


def apply_temperature(logits: ArrayLike, temperature: float) -> Array:
    """Probabilities of softened or sharpened logits; the prediction stays the same.

    Args:
        logits: (N, K).
        temperature: From :func:`fit_temperature`.

    Returns:
        (N, K), rows summing to 1.
    """
    return np.asarray(softmax(np.asarray(logits, dtype=np.float64) / temperature, axis=1))
