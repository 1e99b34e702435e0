"""How far each prediction can be relied on, learnt from the errors on validation."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from functools import partial
from typing import get_args

import numpy as np
import pandas as pd

from glioma_xai.experiment.evaluation import (
    PREDICTION_SCORES,
    patient_table,
    prediction_scores_in,
    probabilities_of,
)
from glioma_xai.experiment.scores import Fields, paired
from glioma_xai.metrics.functional.intervals import (
    Array,
    bootstrap_difference,
    bootstrap_interval,
)
from glioma_xai.metrics.functional.reliability import (
    Method,
    area_under_risk_coverage,
    fit_reliability,
    reliability_features,
    risk_coverage_curve,
)

CONFIDENCE = "softmax_confidence"
IN_PREDICTIONS: Method = "logistic"  # whose reliability goes to predictions.csv


@dataclass(frozen=True)
class Reliability:
    """Of one level.

    Args:
        values: Reliability of each row, 1 less the probability of an error, (N,); NaN with a
            reason.
        scores: Method, and ``softmax_confidence``, to area under risk and coverage;
            ``<method>_less_confidence`` to the difference, negative where the method is better.
        curves: The same names to coverage and risk.
        errors: Wrong predictions in validation.
        rows: Rows of validation.
        reason: Why there is none; empty if there is.
    """

    values: Array
    scores: Mapping[str, Fields] = field(default_factory=dict)
    curves: Mapping[str, tuple[Array, Array]] = field(default_factory=dict)
    errors: int = 0
    rows: int = 0
    reason: str = ""


def judge_predictions(
    validation: pd.DataFrame | None,
    table: pd.DataFrame,
    *,
    classes: Sequence[str],
    resamples: int,
    seed: int,
) -> dict[str, Reliability]:
    """Reliability of each prediction by slice and by patient.

    Args:
        validation: Rows of validation patients, as trained; None if the run has none.
        table: Rows to judge, in which the label only serves to score the judgement.
        classes: Names.
        resamples: Draws of the bootstrap.
        seed: Of the bootstrap.

    Returns:
        ``slice`` and ``patient``; each is learnt from validation rows of its own level.
    """
    levels = {"slice": (validation, table)}
    known = validation if validation is None else patient_table(validation, classes)
    levels["patient"] = (known, patient_table(table, classes))
    return {
        level: _judge(known, rows, classes=classes, resamples=resamples, seed=seed)
        for level, (known, rows) in levels.items()
    }


def _judge(
    known: pd.DataFrame | None,
    rows: pd.DataFrame,
    *,
    classes: Sequence[str],
    resamples: int,
    seed: int,
) -> Reliability:
    nothing = np.full(len(rows), np.nan)
    if known is None or not len(known):
        reason = "there are no validation predictions of other patients to learn from"
        return Reliability(nothing, reason=reason)
    errors, wrong = _wrong(known), _wrong(rows)
    names = [name for name in prediction_scores_in(known) if name in rows]
    if errors.sum() < len(names):  # too few to learn from scores of parts too
        names = [name for name in names if name in PREDICTION_SCORES]
    if not errors.any() or errors.all():
        found = "no wrong prediction" if not errors.any() else "no right prediction"
        return Reliability(
            nothing,
            errors=int(errors.sum()),
            rows=len(known),
            reason=f"validation has {found} to learn from",
        )
    features = _features(known, classes, names)
    uncertainty = {CONFIDENCE: 1 - probabilities_of(rows, classes).max(axis=1)}
    for method in get_args(Method):
        model = fit_reliability(features, errors, method=method)
        uncertainty[method] = model.probability_of_error(_features(rows, classes, names))
    areas = {name: partial(area_under_risk_coverage, u, wrong) for name, u in uncertainty.items()}
    owners = list(rows["patient"])
    scores: dict[str, Fields] = {}
    for name, area in areas.items():
        scores[name] = asdict(bootstrap_interval(area, owners, resamples=resamples, seed=seed))
        if name != CONFIDENCE:
            test = bootstrap_difference(
                area, areas[CONFIDENCE], owners, resamples=resamples, seed=seed
            )
            scores[f"{name}_less_confidence"] = paired(test, len(set(owners)))
    return Reliability(
        values=1 - uncertainty[IN_PREDICTIONS],
        scores=scores,
        curves={name: risk_coverage_curve(u, wrong) for name, u in uncertainty.items()},
        errors=int(errors.sum()),
        rows=len(known),
    )


def _wrong(rows: pd.DataFrame) -> np.ndarray[tuple[int], np.dtype[np.bool_]]:
    return np.asarray(rows["prediction"] != rows["label"])


def _features(rows: pd.DataFrame, classes: Sequence[str], names: Sequence[str]) -> Array:
    scores = {name: rows[name].to_numpy(dtype=np.float64) for name in names}
    return reliability_features(probabilities_of(rows, classes), scores)
