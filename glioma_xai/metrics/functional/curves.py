"""Areas under the ROC and the precision-recall curve, for many rows of weights at once.

Arguments as in :mod:`glioma_xai.metrics.functional.classification`: probabilities (N, K), labels
(N,) and weights of the rows, (R, N).
"""

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from glioma_xai.metrics.functional.decisions import Labels
from glioma_xai.metrics.functional.intervals import Array


def auc(probabilities: Array, labels: Labels, weights: Array) -> Array:
    """Area under the ROC curve, ties counting half, (R,); mean over classes if more than two."""
    return _mean_over_classes(_area, probabilities, labels, weights)


def average_precision(probabilities: Array, labels: Labels, weights: Array) -> Array:
    """Area under the precision-recall curve by steps, (R,); mean over classes if more than two."""
    return _mean_over_classes(_precision, probabilities, labels, weights)


def _mean_over_classes(
    score: Callable[[Array, NDArray[np.bool_], Array], Array],
    probabilities: Array,
    labels: Labels,
    weights: Array,
) -> Array:
    if probabilities.shape[1] == 2:
        return score(probabilities[:, 1], labels == 1, weights)
    by_class = [
        score(probabilities[:, index], labels == index, weights)
        for index in range(probabilities.shape[1])
    ]
    return np.asarray(np.mean(by_class, axis=0))


def _cumulated(scores: Array, positive: NDArray[np.bool_], weights: Array) -> tuple[Array, Array]:
    """Weight of the positives and negatives at or above each distinct score, (R, T)."""
    order = np.argsort(-scores, kind="stable")
    last = np.flatnonzero(np.append(np.diff(scores[order]) != 0, True))  # ends of runs of ties
    sorted_weights = weights[:, order]
    hits = np.cumsum(sorted_weights * positive[order], axis=1)[:, last]
    alarms = np.cumsum(sorted_weights * ~positive[order], axis=1)[:, last]
    return hits, alarms


def _area(scores: Array, positive: NDArray[np.bool_], weights: Array) -> Array:
    hits, alarms = _cumulated(scores, positive, weights)
    below = hits - np.diff(hits, axis=1, prepend=0) / 2  # of a run of ties, half is outranked
    area = (np.diff(alarms, axis=1, prepend=0) * below).sum(axis=1)
    return ratio(area, hits[:, -1] * alarms[:, -1])


def _precision(scores: Array, positive: NDArray[np.bool_], weights: Array) -> Array:
    hits, alarms = _cumulated(scores, positive, weights)
    gained = np.diff(hits, axis=1, prepend=0)
    both = hits + alarms
    precision = np.divide(hits, both, out=np.zeros_like(hits), where=both > 0)
    area = ratio((gained * precision).sum(axis=1), hits[:, -1])
    return np.where(alarms[:, -1] > 0, area, np.nan)


def ratio(numerator: Array, denominator: Array) -> Array:
    """Quotient, NaN where the denominator is 0."""
    empty: Array = np.full(np.shape(denominator), np.nan)
    np.divide(numerator, denominator, out=empty, where=denominator > 0)
    return empty
