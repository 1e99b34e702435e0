"""Reliability: errors that relevance gives away are found, and the curve is what it says."""

import itertools
from functools import partial

import numpy as np
import pytest

from glioma_xai.errors import ShapeError
from glioma_xai.metrics.functional.intervals import bootstrap_difference
from glioma_xai.metrics.functional.reliability import (
    area_under_risk_coverage,
    fit_reliability,
    reliability_features,
    risk_coverage_curve,
)


def rows(count, seed):
    """Confidence says nothing; predictions with little relevance inside are mostly wrong."""
    generator = np.random.default_rng(seed)
    confidence = generator.uniform(0.5, 1, count)
    inside = generator.uniform(0, 1, count)
    wrong = generator.random(count) < np.where(inside < 0.3, 0.8, 0.05)
    inside[::17] = np.nan
    features = reliability_features(
        np.stack([confidence, 1 - confidence], axis=1), {"inside": inside}
    )
    return features, wrong, 1 - confidence


@pytest.mark.parametrize("method", ["logistic", "neighbours"])
def test_relevance_gives_errors_away_that_confidence_does_not(method):
    model = fit_reliability(*rows(600, 0)[:2], method=method)
    features, wrong, unsure = rows(600, 1)
    risk = model.probability_of_error(features)
    assert risk.shape == (600,)
    assert 0 <= risk.min() <= risk.max() <= 1
    test = bootstrap_difference(
        partial(area_under_risk_coverage, risk, wrong),
        partial(area_under_risk_coverage, unsure, wrong),
        np.arange(600),
        resamples=300,
    )
    assert test.high < -0.05


def test_no_errors_teach_nothing():
    features, wrong, _ = rows(50, 0)
    for errors in (np.zeros_like(wrong), np.ones_like(wrong)):
        risk = fit_reliability(features, errors).probability_of_error(features)
        assert np.isnan(risk).all()
        assert np.isnan(area_under_risk_coverage(risk, wrong, np.ones((2, 50)))).all()


def test_a_score_that_is_never_defined_can_be_given():
    features = reliability_features([[0.9, 0.1]] * 20, {"inside": np.full(20, np.nan)})
    risk = fit_reliability(features, [True, False] * 10).probability_of_error(features)
    np.testing.assert_allclose(risk, 0.5, atol=1e-6)


def test_curve_by_hand():
    coverage, risk = risk_coverage_curve([0.3, 0.1, 0.2, 0.4], [True, False, True, False])
    assert coverage.tolist() == [0.25, 0.5, 0.75, 1.0]
    assert risk.tolist() == pytest.approx([0, 1 / 2, 2 / 3, 2 / 4])


def test_ties_are_the_mean_over_random_orders():
    uncertainty, wrong = np.array([0.1, 0.2, 0.2, 0.2, 0.3]), np.array([0, 1, 0, 0, 1])
    curves = [
        np.cumsum(np.concatenate([wrong[:1], wrong[1:4][list(order)], wrong[4:]])) / np.arange(1, 6)
        for order in itertools.permutations(range(3))
    ]
    _, risk = risk_coverage_curve(uncertainty, wrong)
    np.testing.assert_allclose(risk, np.mean(curves, axis=0))
    area = area_under_risk_coverage(uncertainty, wrong, np.ones((1, 5)))
    assert area[0] == pytest.approx(np.mean(curves))


def test_a_constant_uncertainty_gives_the_error_rate():
    wrong = np.array([1, 0, 0, 1, 0])
    assert area_under_risk_coverage(np.ones(5), wrong, np.ones((1, 5)))[0] == pytest.approx(0.4)


def test_rows_of_equal_uncertainty_count_by_their_weights():
    wrong = np.array([1, 0, 0, 1, 0])
    weights = np.random.default_rng(0).multinomial(5, np.full(5, 0.2), size=20).astype(float)
    found = area_under_risk_coverage(np.ones(5), wrong, weights)
    np.testing.assert_allclose(found, weights @ wrong / 5)  # the error rate of each draw


def test_lengths_must_match():
    with pytest.raises(
        ShapeError, match=r"inside must have one value.*expected \(2,\), got \(3,\)"
    ):
        reliability_features([[0.9, 0.1]] * 2, {"inside": [1, 2, 3]})
