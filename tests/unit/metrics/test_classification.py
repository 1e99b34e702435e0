"""Classification scores against scikit-learn and torchmetrics, and the patient level."""

import math

import numpy as np
import pytest
import torch
from scipy.special import softmax
from sklearn import metrics as sklearn_metrics
from torchmetrics.functional.classification import multiclass_calibration_error

from glioma_xai.errors import CohortError, ShapeError
from glioma_xai.metrics.functional import classification
from glioma_xai.metrics.functional.calibration import apply_temperature, fit_temperature
from glioma_xai.metrics.functional.decisions import (
    aggregate_by_patient,
    choose_threshold,
    predict,
)


def sample(classes=2, *, rows=60, seed=0, decimals=1):
    generator = np.random.default_rng(seed)
    labels = generator.integers(0, classes, rows)
    logits = generator.normal(size=(rows, classes)) + np.eye(classes)[labels]
    probabilities = softmax(np.round(logits, decimals), axis=1)  # rounding makes ties
    weights = generator.multinomial(rows, np.full(rows, 1 / rows), size=4).astype(float)
    return probabilities, labels, weights


def _binary(probabilities, labels, weights):
    predicted = (probabilities[:, 1] >= 0.5).astype(int)
    options = {"sample_weight": weights}
    return {
        "accuracy": sklearn_metrics.accuracy_score(labels, predicted, **options),
        "balanced_accuracy": sklearn_metrics.balanced_accuracy_score(labels, predicted, **options),
        "sensitivity": sklearn_metrics.recall_score(labels, predicted, **options),
        "specificity": sklearn_metrics.recall_score(labels, predicted, pos_label=0, **options),
        "auc": sklearn_metrics.roc_auc_score(labels, probabilities[:, 1], **options),
        "average_precision": sklearn_metrics.average_precision_score(
            labels, probabilities[:, 1], **options
        ),
        "brier": sklearn_metrics.brier_score_loss(labels, probabilities[:, 1], **options),
    }


def _several(probabilities, labels, weights):
    predicted = probabilities.argmax(axis=1)
    options = {"sample_weight": weights}
    members = np.eye(probabilities.shape[1])[labels]
    return {
        "accuracy": sklearn_metrics.accuracy_score(labels, predicted, **options),
        "balanced_accuracy": sklearn_metrics.balanced_accuracy_score(labels, predicted, **options),
        "auc": sklearn_metrics.roc_auc_score(labels, probabilities, multi_class="ovr", **options),
        "average_precision": sklearn_metrics.average_precision_score(
            members, probabilities, **options
        ),
        "brier": sklearn_metrics.brier_score_loss(labels, probabilities, **options),
    }


@pytest.mark.parametrize("classes", [2, 3])
def test_weighted_scores_equal_scikit_learn(classes):
    probabilities, labels, weights = sample(classes)
    sklearn_scores = _binary if classes == 2 else _several
    for row in weights:
        for name, expected in sklearn_scores(probabilities, labels, row).items():
            found = getattr(classification, name)(probabilities, labels, weights)
            position = next(
                i for i, other in enumerate(weights) if other is row or (other == row).all()
            )
            assert found[position] == pytest.approx(expected, abs=1e-12), name


@pytest.mark.parametrize("classes", [2, 3])
def test_calibration_error_equals_torchmetrics(classes):
    probabilities, labels, _ = sample(classes, decimals=6)
    expected = multiclass_calibration_error(
        torch.tensor(probabilities), torch.tensor(labels), num_classes=classes, n_bins=15
    )
    found = classification.classification_scores(probabilities, labels)["ece"]
    assert found == pytest.approx(expected.item(), abs=1e-6)


def test_weights_mean_copies_of_rows():
    probabilities, labels, weights = sample()
    for row in weights:
        copies = np.repeat(np.arange(len(row)), row.astype(int))
        scores = classification.classification_scores(probabilities[copies], labels[copies])
        for name in ("accuracy", "auc", "average_precision", "brier"):
            found = getattr(classification, name)(probabilities, labels, row[None])[0]
            assert found == pytest.approx(scores[name], abs=1e-12)


def test_an_absent_class_is_nan():
    probabilities, labels, _ = sample()
    scores = classification.classification_scores(probabilities, np.ones_like(labels))
    undefined = {name for name, score in scores.items() if math.isnan(score)}
    assert undefined == {"balanced_accuracy", "auc", "average_precision", "specificity"}
    intervals = classification.classification_intervals(
        probabilities, np.ones_like(labels), [str(i) for i in range(60)], resamples=50
    )
    assert {name for name, found in intervals.items() if math.isnan(found.low)} == undefined


def test_intervals_know_the_patient():
    probabilities, labels, _ = sample(rows=40)
    alone = classification.classification_intervals(
        probabilities, labels, [str(i) for i in range(40)], resamples=300
    )
    assert alone["auc"].method == "delong"
    assert alone["accuracy"].method == alone["sensitivity"].method == "wilson"
    assert alone["brier"].method == "bootstrap"
    copied = classification.classification_intervals(
        np.repeat(probabilities, 5, axis=0),
        np.repeat(labels, 5),
        np.repeat([str(i) for i in range(40)], 5).tolist(),
        resamples=300,
    )
    assert copied["auc"].method == "bootstrap"
    assert copied["auc"].samples == 40
    for name in ("auc", "accuracy", "brier"):
        width = [found[name].high - found[name].low for found in (alone, copied)]
        assert width[1] == pytest.approx(width[0], rel=0.25)  # copies add no information


def test_a_perfect_area_of_slices_counts_patients():
    probabilities = np.repeat([[0.9, 0.1], [0.2, 0.8]], 6, axis=0)
    labels = np.repeat([0, 1], 6)
    found = classification.classification_intervals(
        probabilities, labels, list("aabbccddeeff"), resamples=50
    )["auc"]
    assert (found.method, found.samples) == ("separated", 6)
    assert found.low == pytest.approx(0.025 ** (1 / 3))


def test_aggregation_is_the_mean_over_slices():
    found = aggregate_by_patient([[0.2, 0.8], [0.9, 0.1], [0.6, 0.4]], [1, 0, 1], ["b", "a", "b"])
    assert found.patients.tolist() == ["a", "b"]
    np.testing.assert_allclose(found.probabilities, [[0.9, 0.1], [0.4, 0.6]])
    assert found.labels.tolist() == [0, 1]
    assert found.slices.tolist() == [1, 2]
    with pytest.raises(CohortError, match=r"patient b must have one label.*got \[0, 1\]. Correct"):
        aggregate_by_patient([[0.2, 0.8]] * 3, [1, 0, 0], ["b", "a", "b"])


def test_threshold_is_youdens():
    probabilities, labels, _ = sample(rows=80)
    found = choose_threshold(probabilities, labels)
    alarms, hits, cuts = sklearn_metrics.roc_curve(labels, probabilities[:, 1])
    predicted = predict(probabilities, threshold=found)
    youden = 2 * sklearn_metrics.balanced_accuracy_score(labels, predicted) - 1
    assert youden == pytest.approx((hits - alarms).max(), abs=1e-12)
    assert len(cuts) > 5


def test_threshold_lies_in_the_middle_of_the_gap():
    probabilities = np.array([[0.9, 0.1], [0.8, 0.2], [0.4, 0.6], [0.2, 0.8]])
    assert choose_threshold(probabilities, [0, 0, 1, 1]) == pytest.approx(0.4)
    assert math.isnan(choose_threshold(probabilities, [1, 1, 1, 1]))
    with pytest.raises(ShapeError, match="needs two classes"):
        choose_threshold(np.full((2, 3), 1 / 3), [0, 1])


def test_temperature_is_recovered():
    generator = np.random.default_rng(0)
    logits = generator.normal(size=(20_000, 2)) * 2
    chosen = generator.random(20_000) < softmax(logits, axis=1)[:, 1]
    assert fit_temperature(logits * 3, chosen.astype(int)) == pytest.approx(3.0, rel=0.05)
    np.testing.assert_allclose(apply_temperature(logits * 3, 3.0), softmax(logits, axis=1))


def test_temperature_takes_log_probabilities_and_lowers_the_likelihood_loss():
    probabilities, labels, _ = sample(3, decimals=4)
    logits = np.log(probabilities) + 5.0
    temperature = fit_temperature(logits, labels)
    assert temperature == pytest.approx(fit_temperature(np.log(probabilities), labels), rel=1e-4)
    losses = [
        sklearn_metrics.log_loss(labels, apply_temperature(logits, t))
        for t in (temperature * 0.9, temperature, temperature * 1.1)
    ]
    assert losses[1] == min(losses)


def test_errors_say_how_to_fix():
    with pytest.raises(ShapeError, match=r"expected \(N, classes\) and \(N,\), got \(3,\)"):
        classification.classification_scores([0.1, 0.2, 0.3], [0, 1, 1])
    with pytest.raises(ShapeError, match=r"expected 0 to 1, got 0 to 2. Compare data.classes"):
        classification.classification_scores([[0.5, 0.5]] * 2, [0, 2])
