"""Intervals and paired tests against loops, the literature and simulation."""

import math

import numpy as np
import pytest

from glioma_xai.errors import ShapeError
from glioma_xai.metrics.functional.delong import delong_interval, delong_test
from glioma_xai.metrics.functional.intervals import (
    bootstrap_difference,
    bootstrap_interval,
    wilson_interval,
)
from tests.reference import metrics as reference

# Hanley and McNeil (1982), Radiology 143:29-36, table 1:
# ratings 1 to 5 of 58 normal and 51 abnormal CT
HANLEY = (
    np.repeat([1, 2, 3, 4, 5] * 2, [33, 6, 6, 11, 2, 3, 2, 2, 11, 33]),
    np.repeat([0, 1], [58, 51]),
)
# DeLong et al. (1988), Biometrics 44:837-845, the 43 complete patients as printed in the SAS/STAT
# manual, example "Comparing ROC curves": albumin, total protein, K-G score, died
OVARIAN = np.array(
    [
        [3.0, 5.8, 10, 0], [3.2, 6.3, 5, 1], [3.9, 6.8, 3, 1], [2.8, 4.8, 6, 0], [3.2, 5.8, 3, 1],
        [0.9, 4.0, 5, 0], [2.5, 5.7, 8, 0], [1.6, 5.6, 5, 1], [3.8, 5.7, 5, 1], [3.7, 6.7, 6, 1],
        [3.2, 5.4, 4, 1], [3.8, 6.6, 6, 1], [4.1, 6.6, 5, 1], [3.6, 5.7, 5, 1], [4.3, 7.0, 4, 1],
        [3.6, 6.7, 4, 0], [2.3, 4.4, 6, 1], [4.2, 7.6, 4, 0], [4.0, 6.6, 6, 0], [3.5, 5.8, 6, 1],
        [3.8, 6.8, 7, 1], [3.0, 4.7, 8, 0], [4.5, 7.4, 5, 1], [3.7, 7.4, 5, 1], [3.1, 6.6, 6, 1],
        [4.1, 8.2, 6, 1], [4.3, 7.0, 5, 1], [4.3, 6.5, 4, 1], [3.2, 5.1, 5, 1], [2.6, 4.7, 6, 1],
        [3.3, 6.8, 6, 0], [1.7, 4.0, 7, 0], [3.7, 6.1, 5, 1], [3.3, 6.3, 7, 1], [4.2, 7.7, 6, 1],
        [3.5, 6.2, 5, 1], [2.9, 5.7, 9, 0], [2.1, 4.8, 7, 1], [2.8, 6.2, 8, 0], [4.0, 7.0, 7, 1],
        [3.3, 5.7, 6, 1], [3.7, 6.9, 5, 1], [3.6, 6.6, 5, 1],
    ]
)  # fmt: skip


def test_delong_interval_of_hanley_and_mcneil():
    found = delong_interval(*HANLEY)
    # Stata manual, roctab on the same table: area .8932, 95 % interval .83295 to .95339
    assert found.value == pytest.approx(0.8932, abs=5e-5)
    assert (found.low, found.high) == pytest.approx((0.83295, 0.95339), abs=5e-6)


def test_delong_test_of_delong():
    albumin, protein, score, died = OVARIAN.T
    # SAS/STAT manual: areas .7366 [.5549, .9182], .6478 [.4518, .8439], .7258 [.5243, .9273];
    # against K-G: difference .0108, chi-square .0127, p .9102; -.0780, .5554, .4561
    areas = [delong_interval(values, died) for values in (albumin, protein, 10 - score)]
    assert [area.value for area in areas] == pytest.approx([0.7366, 0.6478, 0.7258], abs=5e-5)
    assert [area.low for area in areas] == pytest.approx([0.5549, 0.4518, 0.5243], abs=5e-5)
    for values, difference, chi_square, p_value in (
        (albumin, 0.0108, 0.0127, 0.9102),
        (protein, -0.0780, 0.5554, 0.4561),
    ):
        test = delong_test(values, 10 - score, died)
        assert test.difference == pytest.approx(difference, abs=5e-5)
        assert test.statistic**2 == pytest.approx(chi_square, abs=5e-5)
        assert test.p_value == pytest.approx(p_value, abs=5e-5)


@pytest.mark.parametrize("seed", range(3))
def test_delong_equals_the_loop(seed):
    generator = np.random.default_rng(seed)
    labels = generator.integers(0, 2, 30)
    scores = generator.integers(0, 8, (2, 30)) + labels  # with ties
    areas, covariance = reference.delong(scores.tolist(), labels.tolist())
    test = delong_test(*scores, labels)
    variance = covariance[0][0] + covariance[1][1] - 2 * covariance[0][1]
    assert test.difference == pytest.approx(areas[0] - areas[1], abs=1e-12)
    assert test.statistic == pytest.approx((areas[0] - areas[1]) / math.sqrt(variance), abs=1e-9)
    interval = delong_interval(scores[0], labels)
    half = 1.959963984540054 * math.sqrt(covariance[0][0])
    assert interval.low == pytest.approx(areas[0] - half, abs=1e-9)


def test_an_area_of_one_does_not_claim_certainty():
    found = delong_interval([0.1, 0.2, 0.3, 0.8, 0.9], [0, 0, 0, 1, 1])
    assert (found.value, found.high, found.method) == (1.0, 1.0, "separated")
    assert found.low == pytest.approx(0.025**0.5)  # Clopper-Pearson, 2 of 2
    reverse = delong_interval([0.9, 0.8, 0.1], [0, 0, 1])
    assert (reverse.low, reverse.high) == pytest.approx((0.0, 0.975))


def test_one_class_alone_is_nan():
    for found in (delong_interval([0.1, 0.9], [1, 1]), delong_test([0.1], [0.2], [0])):
        assert math.isnan(found.low)
        assert math.isnan(found.high)
    single = delong_interval([0.1, 0.5, 0.9], [0, 1, 0])
    assert single.value == 0.5
    assert math.isnan(single.low)


def test_models_that_rank_alike_do_not_differ():
    labels, scores = np.array([0, 1, 0, 1, 1]), np.array([0.1, 0.4, 0.5, 0.8, 0.9])
    test = delong_test(scores, scores**2, labels)
    assert (test.difference, test.p_value) == (0.0, 1.0)


def test_wilson_of_newcombe():
    # Newcombe (1998), Statistics in Medicine 17:857-872, table I, method 3
    for hits, trials, low, high in (
        (81, 263, 0.2553, 0.3662),
        (15, 148, 0.0624, 0.1605),
        (0, 20, 0.0, 0.1611),
        (1, 29, 0.0061, 0.1718),
    ):
        found = wilson_interval(hits, trials)
        assert (found.low, found.high) == pytest.approx((low, high), abs=5e-5)
    assert math.isnan(wilson_interval(0, 0).low)


def test_bootstrap_covers_the_mean_of_clusters():
    """Rows of a patient are copies: an interval that drew rows would be three times too narrow."""
    covered, trials = 0, 100
    for trial in range(trials):
        values = np.repeat(np.random.default_rng(trial).normal(size=40), 9)
        found = bootstrap_interval(
            lambda weights, values=values: weights @ values / weights.sum(axis=1),
            np.repeat(np.arange(40), 9),
            resamples=400,
        )
        covered += found.low <= 0 <= found.high
    assert 0.86 <= covered / trials <= 1.0


def test_bootstrap_is_seeded_and_states_undefined_draws():
    labels = np.array([1.0, 0.0, 0.0, 0.0])

    def share_of_first(weights):
        present = weights @ labels
        return np.where(present > 0, 1.0 + weights[:, 1], np.nan)

    first = bootstrap_interval(share_of_first, list("abcd"), resamples=4000, seed=1)
    assert first == bootstrap_interval(share_of_first, list("abcd"), resamples=4000, seed=1)
    assert first != bootstrap_interval(share_of_first, list("abcd"), resamples=4000, seed=2)
    assert first.undefined == pytest.approx(0.75**4, abs=0.03)  # the patient is never drawn


def test_bootstrap_of_a_perfect_proportion_falls_back_to_patients():
    found = bootstrap_interval(
        lambda weights: np.ones(len(weights)), list("aaabbbcccd"), proportion=True
    )
    wilson = wilson_interval(4, 4)
    assert (found.low, found.high, found.method, found.samples) == (wilson.low, 1.0, "wilson", 4)
    assert math.isnan(bootstrap_interval(lambda weights: np.ones(len(weights)), list("ab")).low)


def test_bootstrap_without_a_defined_draw_has_no_interval():
    def only_on_the_data(weights):
        return np.where((weights == 1).all(axis=1) & (len(weights) == 1), 0.5, np.nan)

    found = bootstrap_interval(only_on_the_data, list("abc"), resamples=20)
    assert (found.value, found.undefined) == (0.5, 1.0)
    assert math.isnan(found.low)
    test = bootstrap_difference(only_on_the_data, only_on_the_data, list("abc"), resamples=20)
    assert math.isnan(test.p_value)


def test_bootstrap_with_one_patient_has_no_interval():
    found = bootstrap_interval(lambda weights: weights.mean(axis=1), ["a", "a"])
    assert found.value == 1.0
    assert math.isnan(found.low)


def test_paired_bootstrap_is_narrower_than_unpaired():
    generator = np.random.default_rng(0)
    hard = generator.normal(size=200)
    a, b = hard + 0.1, hard + generator.normal(size=200) * 0.1
    score = [lambda w, v=v: w @ v / w.sum(axis=1) for v in (a, b)]
    test = bootstrap_difference(*score, np.arange(200))
    assert test.difference == pytest.approx(np.mean(a - b))
    deviation = np.std(a - b, ddof=1) / math.sqrt(200)
    assert test.high - test.low == pytest.approx(2 * 1.96 * deviation, rel=0.1)
    assert test.p_value < 0.01
    same = bootstrap_difference(score[0], score[0], np.arange(200))
    assert (same.difference, same.p_value) == (0.0, 1.0)


def test_lengths_must_match():
    with pytest.raises(ShapeError, match=r"expected \(3,\), got \(2, 2\)"):
        delong_interval([[0.1, 0.9], [0.2, 0.8]], [0, 1, 1])
