"""How likely a prediction is wrong, judged by where its relevance lies; and who is left to a human.

A model of the errors is fitted on validation rows and read on test rows. It is worth its price only
if it sorts the errors better than the plain confidence of the softmax: compare the two with
:func:`area_under_risk_coverage` in a paired bootstrap.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import ArrayLike
from sklearn.impute import SimpleImputer
from sklearn.linear_model import LogisticRegression
from sklearn.neighbors import KNeighborsClassifier
from sklearn.pipeline import Pipeline, make_pipeline
from sklearn.preprocessing import StandardScaler

from glioma_xai.errors import ShapeError
from glioma_xai.metrics.functional.intervals import Array

Method = Literal["logistic", "neighbours"]


@dataclass(frozen=True)
class ReliabilityModel:
    """Probability of an error from the features of a prediction.

    Args:
        pipeline: Fitted; None if validation had no errors, or nothing but errors.
    """

    pipeline: Pipeline | None

    def probability_of_error(self, features: Array) -> Array:
        """How likely each prediction is wrong.

        Args:
            features: From :func:`reliability_features`, (N, F).

        Returns:
            (N,) in [0, 1]; NaN if nothing could be learnt from validation.
        """
        if self.pipeline is None:
            return np.full(len(features), np.nan)
        return np.asarray(self.pipeline.predict_proba(features)[:, 1])


def reliability_features(
    probabilities: ArrayLike, relevance_scores: Mapping[str, ArrayLike]
) -> Array:
    """What is known of a prediction without its label.

    Args:
        probabilities: (N, K).
        relevance_scores: Scores that do not look at the label, by name, each (N,), NaN where
            undefined: shares of relevance in regions, say. Pass the same names for every split.

    Returns:
        Confidence, its log odds, predicted class (one column a class), then the scores in
        the order of their names, (N, F).

    Raises:
        ShapeError: If a score has another length.
    """
    rows = np.asarray(probabilities, dtype=np.float64)
    columns = [np.asarray(relevance_scores[name], dtype=float) for name in sorted(relevance_scores)]
    for name, column in zip(sorted(relevance_scores), columns, strict=True):
        if column.shape != (len(rows),):
            raise ShapeError(
                f"{name} must have one value a prediction: expected ({len(rows)},), got "
                f"{column.shape}. Take all columns from one table."
            )
    confidence = rows.max(axis=1)
    odds = np.log(np.clip(confidence, 1e-9, 1) / np.clip(1 - confidence, 1e-9, 1))
    predicted = np.eye(rows.shape[1])[rows.argmax(axis=1)]
    return np.column_stack([confidence, odds, predicted, *columns])


def fit_reliability(
    features: Array, wrong: ArrayLike, *, method: Method = "logistic", neighbours: int | None = None
) -> ReliabilityModel:
    """Learn on validation rows which predictions are wrong.

    Args:
        features: From :func:`reliability_features`, (N, F); a NaN is replaced by the column's
            median, and a further column says that it was.
        wrong: Whether the prediction was wrong, (N,).
        method: ``logistic`` regression with an L2 penalty, or the share of errors among the nearest
            ``neighbours``, both on standardised features.
        neighbours: For ``neighbours``; at most N. None takes the square root of N.

    Returns:
        A model; one that answers NaN if there are no errors or nothing else.
    """
    errors = np.asarray(wrong, dtype=bool)
    if errors.all() or not errors.any():
        return ReliabilityModel(None)
    last = (
        LogisticRegression(max_iter=1000)
        if method == "logistic"
        else KNeighborsClassifier(min(neighbours or round(len(errors) ** 0.5), len(errors)))
    )
    imputer = SimpleImputer(strategy="median", add_indicator=True, keep_empty_features=True)
    pipeline = make_pipeline(imputer, StandardScaler(), last)
    return ReliabilityModel(pipeline.fit(features, errors))


def risk_coverage_curve(uncertainty: ArrayLike, wrong: ArrayLike) -> tuple[Array, Array]:
    """Error rate among the most certain predictions, for every share that is kept.

    Predictions of equal uncertainty count by their mean, as in a random order.

    Args:
        uncertainty: Higher is less certain, (N,).
        wrong: Whether the prediction was wrong, (N,).

    Returns:
        Coverage and risk, (N,) each, from the most certain one to all.

    Reference:
        Geifman and El-Yaniv (2017), NeurIPS, "Selective classification for deep neural networks".
    """
    kept, errors = _sorted(uncertainty, wrong, np.ones((1, len(np.asarray(wrong)))))
    covered = np.cumsum(kept[0])
    return covered / len(covered), np.cumsum(errors[0]) / covered


def area_under_risk_coverage(uncertainty: ArrayLike, wrong: ArrayLike, weights: Array) -> Array:
    """Mean error rate over all shares that could be kept (AURC); lower is better.

    With ``functools.partial(area_under_risk_coverage, uncertainty, wrong)`` it is a score for
    ``bootstrap_interval`` and ``bootstrap_difference``.

    Args:
        uncertainty: Higher is less certain, (N,), such as 1 - confidence.
        wrong: Whether the prediction was wrong, (N,).
        weights: Of the rows, (R, N).

    Returns:
        (R,) in [0, 1]; NaN if an uncertainty is NaN. A random order gives the error rate.

    Reference:
        Geifman, Uziel and El-Yaniv (2019), ICLR, "Bias-reduced uncertainty estimation".
    """
    if np.isnan(np.asarray(uncertainty, dtype=float)).any():
        return np.full(len(weights), np.nan)
    kept, errors = _sorted(uncertainty, wrong, weights)
    covered = np.cumsum(kept, axis=1)
    risk = np.divide(
        np.cumsum(errors, axis=1), covered, out=np.zeros_like(covered), where=covered > 0
    )
    return np.asarray((kept * risk).sum(axis=1) / covered[:, -1])


def _sorted(uncertainty: ArrayLike, wrong: ArrayLike, weights: Array) -> tuple[Array, Array]:
    """Weights of the rows, most certain first, and how much of each is wrong, (R, N) each.

    Rows of equal uncertainty share their errors in proportion to their weights.
    """
    values = np.asarray(uncertainty, dtype=np.float64)
    order = np.argsort(values, kind="stable")
    _, first, run = np.unique(values[order], return_index=True, return_inverse=True)
    kept = weights[:, order]
    errors = np.add.reduceat(kept * np.asarray(wrong, dtype=np.float64)[order], first, axis=1)
    total = np.add.reduceat(kept, first, axis=1)
    share = np.divide(errors, total, out=np.zeros_like(total), where=total > 0)
    return kept, kept * share[:, run]
