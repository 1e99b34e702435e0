"""Scores of a table of predictions, each with its confidence interval, as plain data."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from functools import partial
from typing import cast

import numpy as np
import pandas as pd

from glioma_xai.experiment.evaluation import (
    TUMOUR,
    patient_table,
    probabilities_of,
    relevance_scores_in,
)
from glioma_xai.metrics.functional.classification import classification_intervals
from glioma_xai.metrics.functional.intervals import Array, PairedTest, bootstrap_interval
from glioma_xai.metrics.functional.subgroups import scores_by_group, worst_group

Fields = dict[str, object]
"""Fields of an ``Interval`` or of a paired test, ``value``, ``low`` and ``high`` among them."""
Scores = dict[str, dict[str, Fields]]
"""Level (``slice``, ``patient``) to score to interval."""


def score_table(
    table: pd.DataFrame, *, classes: Sequence[str], resamples: int, seed: int
) -> dict[str, dict[str, dict[str, object]]]:
    """Scores with confidence intervals at both levels.

    Returns:
        ``slice`` and ``patient`` to score name to the fields of an ``Interval``.
    """
    levels = {"slice": table, "patient": patient_table(table, classes)}
    return {
        level: {
            name: asdict(interval)
            for name, interval in classification_intervals(
                probabilities_of(rows, classes),
                rows["label"].to_numpy(),
                list(rows["patient"]),
                resamples=resamples,
                seed=seed,
            ).items()
        }
        for level, rows in levels.items()
    }


def score_relevance(
    table: pd.DataFrame, *, resamples: int, seed: int
) -> dict[str, dict[str, object]]:
    """Mean of each relevance score over the samples that define it, bootstrapped by patient."""
    results: dict[str, dict[str, object]] = {}
    for name in relevance_scores_in(table):
        values = table[name].to_numpy(dtype=np.float64)
        defined = ~np.isnan(values)
        interval = bootstrap_interval(
            partial(_weighted_mean, values[defined]),
            list(table["patient"][defined]),
            resamples=resamples,
            seed=seed,
        )
        counts = {"defined": int(defined.sum()), "undefined_samples": int((~defined).sum())}
        results[name] = asdict(interval) | counts
    return results


def _weighted_mean(values: Array, weights: Array) -> Array:
    with np.errstate(invalid="ignore"):
        return cast("Array", weights @ values / weights.sum(axis=1))


def score_groups(
    table: pd.DataFrame, *, classes: Sequence[str], resamples: int, seed: int
) -> dict[str, object]:
    """Scores by patient for each site and for small and large tumours, and the lowest accuracy.

    Returns:
        ``sites`` to site to score to interval, and ``worst``: group, score and interval, None if no
        site is large enough; left out if fewer than two sites are known. ``tumour_size`` and
        ``worst_tumour_size`` are the same for tumours below the patients' median and from it on;
        left out without masks.
    """
    patients = patient_table(table, classes)
    found: dict[str, object] = {}
    if patients["site"].nunique() >= 2:
        found["sites"], found["worst"] = _by_group(
            patients, list(patients["site"]), classes=classes, resamples=resamples, seed=seed
        )
    sizes = patients[TUMOUR] if TUMOUR in patients else pd.Series(dtype=float)
    if sizes.nunique() >= 2:
        known = sizes.notna()
        names = np.where(sizes[known] < sizes.median(), "small", "large")
        found["tumour_size"], found["worst_tumour_size"] = _by_group(
            patients[known], names.tolist(), classes=classes, resamples=resamples, seed=seed
        )
    return found


def _by_group(
    patients: pd.DataFrame,
    groups: Sequence[str],
    *,
    classes: Sequence[str],
    resamples: int,
    seed: int,
) -> tuple[dict[str, dict[str, Fields]], dict[str, object] | None]:
    """Scores of each group, and which has the lowest accuracy."""
    scores = scores_by_group(
        probabilities_of(patients, classes),
        patients["label"].to_numpy(),
        list(patients["patient"]),
        groups,
        resamples=resamples,
        seed=seed,
    )
    worst = worst_group(scores, "accuracy")
    fields = {
        group: {name: asdict(interval) for name, interval in found.items()}
        for group, found in scores.items()
    }
    if worst is None:
        return fields, None
    return fields, {"group": worst[0], "score": "accuracy", **asdict(worst[1])}


def paired(test: PairedTest, samples: int) -> Fields:
    """A paired test as plain data, its difference as ``value``."""
    fields = asdict(test)
    return {"value": fields.pop("difference"), **fields, "samples": samples}


def value_of(fields: Mapping[str, object]) -> float:
    """The number itself; NaN if it is not there."""
    return float(cast("float", fields.get("value", np.nan)))
