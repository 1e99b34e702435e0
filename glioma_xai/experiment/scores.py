"""Scores of a table of predictions, each with its confidence interval, as plain data."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from functools import partial
from typing import cast

import numpy as np
import pandas as pd

from glioma_xai.experiment.evaluation import patient_table, probabilities_of, relevance_scores_in
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
    """Scores by patient for each site, and the site with the lowest accuracy.

    Returns:
        ``sites`` to site to score to interval, and ``worst``: site, score and interval, None if no
        site is large enough. Empty if fewer than two sites are known.
    """
    patients = patient_table(table, classes)
    if patients["site"].nunique() < 2:
        return {}
    scores = scores_by_group(
        probabilities_of(patients, classes),
        patients["label"].to_numpy(),
        list(patients["patient"]),
        list(patients["site"]),
        resamples=resamples,
        seed=seed,
    )
    worst = worst_group(scores, "accuracy")
    return {
        "sites": {
            site: {name: asdict(interval) for name, interval in found.items()}
            for site, found in scores.items()
        },
        "worst": None
        if worst is None
        else {"site": worst[0], "score": "accuracy", **asdict(worst[1])},
    }


def paired(test: PairedTest, samples: int) -> Fields:
    """A paired test as plain data, its difference as ``value``."""
    fields = asdict(test)
    return {"value": fields.pop("difference"), **fields, "samples": samples}


def value_of(fields: Mapping[str, object]) -> float:
    """The number itself; NaN if it is not there."""
    return float(cast("float", fields.get("value", np.nan)))
