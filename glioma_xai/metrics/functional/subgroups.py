"""Scores apart for sites and other groups, because a mean can hide a scanner that fails."""

from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import ArrayLike

from glioma_xai.errors import ShapeError
from glioma_xai.metrics.functional.classification import classification_intervals
from glioma_xai.metrics.functional.decisions import check_predictions
from glioma_xai.metrics.functional.intervals import Interval


def scores_by_group(
    probabilities: ArrayLike,
    labels: ArrayLike,
    patients: Sequence[str],
    groups: Sequence[str],
    *,
    threshold: float = 0.5,
    resamples: int = 2000,
    seed: int = 0,
) -> dict[str, dict[str, Interval]]:
    """Every classification score with its interval, group by group.

    Args:
        probabilities: (N, K).
        labels: Class index, (N,).
        patients: Patient of each row, (N,).
        groups: Group of each row, (N,), such as the site; ``""`` is shown as ``unknown``.
        threshold: Of the second of two classes, the same for all groups.
        resamples: Draws of the bootstrap.
        seed: Of the bootstrap.

    Returns:
        Group, sorted, to score to interval. A group with one class has NaN for the scores that
        need both: at such a site the class cannot be told from the site.

    Raises:
        ShapeError: If the lengths differ.
    """
    rows, classes = check_predictions(probabilities, labels)
    if not len(groups) == len(patients) == len(classes):
        raise ShapeError(
            f"each row needs a patient and a group: expected {len(classes)} of each, got "
            f"{len(patients)} and {len(groups)}. Take all columns from one table."
        )
    names = np.array([group or "unknown" for group in groups])
    owners = np.asarray(patients)
    return {
        str(name): classification_intervals(
            rows[names == name],
            classes[names == name],
            owners[names == name].tolist(),
            threshold=threshold,
            resamples=resamples,
            seed=seed,
        )
        for name in np.unique(names)
    }


def worst_group(
    scores: Mapping[str, Mapping[str, Interval]], score: str, *, least: int = 5
) -> tuple[str, Interval] | None:
    """The group with the lowest value of a score.

    The lowest of many small groups is low by chance alone: read its interval.

    Args:
        scores: From :func:`scores_by_group`.
        score: Name; higher is better.
        least: Groups with fewer patients (for sensitivity and specificity: of the class) are
            passed over.

    Returns:
        Name and interval; None if no group is large enough with the score defined.
    """
    known = {
        name: group[score]
        for name, group in scores.items()
        if not np.isnan(group[score].value) and group[score].samples >= least
    }
    if not known:
        return None
    name = min(known, key=lambda name: known[name].value)
    return name, known[name]
