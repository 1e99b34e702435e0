"""Gaps between conditions, drift over epochs, and groups."""

import math

import numpy as np
import pytest

from glioma_xai.errors import ShapeError
from glioma_xai.metrics.functional.behaviour import find_drift, score_gap
from glioma_xai.metrics.functional.curves import auc
from glioma_xai.metrics.functional.subgroups import scores_by_group, worst_group


def probabilities(predicted):
    return np.eye(2)[np.asarray(predicted)] * 0.8 + 0.1


def test_gap_by_hand():
    labels = [0, 1, 0, 1, 1, 0, 0, 1]
    same, random = [0, 1, 0, 1, 1, 0, 0, 0], [0, 0, 1, 1, 1, 0, 1, 0]
    gap = score_gap(probabilities(same), probabilities(random), labels, list("aabbccdd"))
    assert gap.difference == pytest.approx(7 / 8 - 4 / 8)
    assert gap.low <= gap.difference <= gap.high
    assert gap.method == "bootstrap"
    none = score_gap(probabilities(same), probabilities(same), labels, list("aabbccdd"), score=auc)
    assert (none.difference, none.p_value) == (0.0, 1.0)
    with pytest.raises(ShapeError, match=r"expected \(8, 2\), got \(7, 2\). Predict the same"):
        score_gap(probabilities(same), probabilities(same[:7]), labels, list("aabbccdd"))


def test_no_different_decision_is_no_certainty():
    """0 of 10 patients: exact 97.5 % bound 1 - .025 ** (1 / 10), Clopper and Pearson (1934)."""
    labels, patients = [0, 1] * 10, [str(n // 2) for n in range(20)]
    gap = score_gap(probabilities(labels), probabilities(labels), labels, patients)
    assert (gap.difference, gap.p_value) == (0.0, 1.0)
    assert (gap.low, gap.high) == pytest.approx((-0.3085, 0.3085), abs=1e-4)


def test_a_drift_that_hides_is_found_and_named():
    behaviour = [0.5, 0.8, 0.9, 0.88, 0.70, 0.4, 0.16]
    relevance = [0.2, 0.9, 0.94, 0.95, 0.95, 0.96, 0.97]
    drift = find_drift(behaviour, relevance)
    assert drift.epoch == 4
    assert drift.lost == pytest.approx(0.74)
    assert drift.gained == pytest.approx(0.03)
    assert drift.words.startswith("Possible fairwashing: from epoch 4 on behaviour falls")
    assert "falls from 0.90 to 0.16," in drift.words


def test_a_steady_run_and_an_honest_fall_are_no_fairwashing():
    steady = find_drift([0.5, 0.91, 0.90, 0.89], [0.2, 0.9, 0.95, 0.96])
    assert (steady.epoch, steady.words) == (None, "Behaviour holds to the last epoch.")
    unguided = find_drift([0.5, 0.9, 0.6], [0.4, 0.44, 0.42])  # it never looked at the tumour
    assert unguided.epoch is None
    assert "fairwashing" not in unguided.words
    assert find_drift([0.5, 0.9, 0.6], [0.2, 0.3, 0.4]).epoch == 2  # and this one starts to
    honest = find_drift([0.5, 0.9, 0.6], [0.2, 0.9, 0.3])
    assert honest.epoch is None
    assert "relevance leaves the tumour with it" in honest.words


def test_epochs_without_a_measurement_are_passed_over():
    drift = find_drift([math.nan, 0.9, math.nan, 0.3], [0.1, 0.9, 0.9, 0.95])
    assert drift.epoch == 3
    nothing = find_drift([math.nan], [0.5])
    assert math.isnan(nothing.lost)
    assert "not both measured" in nothing.words
    with pytest.raises(ShapeError, match=r"expected \(2,\), got \(1,\). Read both"):
        find_drift([0.1, 0.2], [0.3])


def test_groups_are_scored_apart_and_the_worst_is_named():
    labels = np.tile([0, 1], 30)
    predicted = labels.copy()
    predicted[40:52] = 1 - predicted[40:52]
    groups = ["a"] * 40 + ["b"] * 14 + [""] * 6
    patients = [str(i) for i in range(60)]
    scores = scores_by_group(probabilities(predicted), labels, patients, groups, resamples=50)
    assert list(scores) == ["a", "b", "unknown"]
    assert scores["b"]["accuracy"].value == pytest.approx(2 / 14)
    assert scores["a"]["accuracy"].samples == 40
    name, interval = worst_group(scores, "accuracy")
    assert name == "b"
    assert interval == scores["b"]["accuracy"]
    assert worst_group(scores, "accuracy", least=20)[0] == "a"
    with pytest.raises(ShapeError, match="expected 60 of each, got 60 and 1"):
        scores_by_group(probabilities(predicted), labels, patients, ["a"])


def test_a_site_with_one_class_has_no_area():
    scores = scores_by_group(
        probabilities([1, 1, 0, 1]), [1, 1, 0, 1], list("abcd"), list("xxyy"), resamples=20
    )
    assert math.isnan(scores["x"]["auc"].value)
    assert worst_group(scores, "auc", least=1)[0] == "y"
    assert worst_group({"x": scores["x"]}, "auc", least=1) is None
