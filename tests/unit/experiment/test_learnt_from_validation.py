"""Threshold, temperature and reliability are learnt from validation and scored elsewhere."""

import numpy as np
import pandas as pd
import pytest

from glioma_xai.experiment.decision import bins_of, decide, score_decision
from glioma_xai.experiment.evaluation import PREDICTION_SCORES
from glioma_xai.experiment.reliability import judge_predictions
from glioma_xai.experiment.report_tables import estimate
from glioma_xai.experiment.result_files import read_validation
from glioma_xai.experiment.scores import score_groups

CLASSES = ("LGG", "HGG")


def table(probabilities: list[float], labels: list[int], *, slices: int = 1) -> pd.DataFrame:
    """One patient a probability, all slices alike."""
    second = np.repeat(probabilities, slices)
    names = [f"{n:03d}" for n in range(len(labels))]
    return pd.DataFrame(
        {
            "patient": np.repeat(names, slices),
            "subject": np.repeat(names, slices),
            "slice": list(range(slices)) * len(labels),
            "site": np.repeat([f"Site{n % 2}" for n in range(len(labels))], slices),
            "label": np.repeat(labels, slices),
            "probability_LGG": 1 - second,
            "probability_HGG": second,
            "prediction": (second >= 0.5).astype(int),
        }
    )


def test_the_threshold_comes_from_validation_and_is_scored_on_test() -> None:
    validation = table([0.1, 0.2, 0.3, 0.4], [0, 0, 1, 1], slices=3)
    decision = decide(validation, CLASSES)
    assert decision.threshold == pytest.approx(0.25)
    assert decision.patients == 4
    test = table([0.1, 0.3, 0.28, 0.9], [0, 0, 1, 1])
    scores = score_decision(decision, test, classes=CLASSES, resamples=50, seed=0)
    assert scores["patient_sensitivity"]["value"] == 1.0  # at 0.5 it is one half
    assert scores["patient_specificity"]["value"] == 0.5


def test_an_overconfident_network_is_softened_and_better_calibrated() -> None:
    rng = np.random.default_rng(0)
    truth = rng.uniform(size=400)
    labels = (rng.uniform(size=400) < truth).astype(int).tolist()
    odds = 3 * np.log(truth / (1 - truth))  # three times too sure
    too_sure = (1 / (1 + np.exp(-odds))).tolist()
    decision = decide(table(too_sure[:200], labels[:200]), CLASSES)
    assert decision.temperature == pytest.approx(3, rel=0.25)
    scores = score_decision(
        decision, table(too_sure[200:], labels[200:]), classes=CLASSES, resamples=50, seed=0
    )
    after, before = scores["slice_ece_after_temperature"]["value"], scores["slice_ece"]["value"]
    assert float(after) < 0.6 * float(before)  # type: ignore[arg-type]


def test_without_validation_only_calibration_as_it_is_can_be_told() -> None:
    decision = decide(None, CLASSES)
    assert "no validation predictions" in decision.note
    scores = score_decision(
        decision, table([0.1, 0.8], [0, 1]), classes=CLASSES, resamples=20, seed=0
    )
    assert set(scores) == {"slice_ece", "patient_ece"}
    separated = decide(table([0.01, 0.99], [0, 1]), CLASSES)
    assert "no error to learn the temperature from" in separated.note


def with_scores(rows: pd.DataFrame, values: np.ndarray) -> pd.DataFrame:
    return rows.assign(**dict.fromkeys(PREDICTION_SCORES, values))


def test_relevance_that_tells_the_errors_beats_confidence() -> None:
    """Confidence is noise; relevance of wrong predictions lies outside."""
    rng = np.random.default_rng(1)
    labels = rng.integers(2, size=300)
    wrong = rng.uniform(size=300) < 0.3
    sure = rng.uniform(0.6, 0.95, size=300)
    second = np.where(labels ^ wrong, sure, 1 - sure)
    inside = np.where(wrong, 0.3, 0.7) + 0.1 * rng.standard_normal(300)
    rows = with_scores(table(second.tolist(), labels.tolist()), inside)
    found = judge_predictions(rows[:150], rows[150:], classes=CLASSES, resamples=100, seed=0)[
        "slice"
    ]
    assert found.errors == int(wrong[:150].sum())
    for method in ("logistic", "neighbours"):
        gain = found.scores[f"{method}_less_confidence"]
        assert float(gain["high"]) < 0  # type: ignore[arg-type]
    values = found.values
    assert ((values >= 0) & (values <= 1)).all()
    assert values[~wrong[150:]].mean() > values[wrong[150:]].mean() + 0.4


def test_scores_of_parts_are_learnt_from_only_where_there_are_errors_enough() -> None:
    """Few errors and a part's score that happens to tell them: it must not be believed."""
    labels = np.array([0, 1] * 20)
    second = np.where(labels == 1, 0.9, 0.1)
    second[:3] = 1 - second[:3]
    rows = with_scores(table(second.tolist(), labels.tolist()), np.full(40, 0.5))
    with_part = rows.assign(of_predicted_relevance_on_necrosis=0.0)
    for count, same in ((3, True), (9, False)):
        wrong = rows.index < count
        shifted = [
            frame.assign(prediction=np.where(wrong, 1 - frame["label"], frame["label"]))
            for frame in (rows, with_part)
        ]
        shifted[1]["of_predicted_relevance_on_necrosis"] = (~wrong).astype(float)
        plain, told = (
            judge_predictions(frame, frame, classes=CLASSES, resamples=20, seed=0)["slice"].values
            for frame in shifted
        )
        assert np.allclose(plain, told) == same


def test_without_errors_in_validation_reliability_is_nan_with_a_reason() -> None:
    rows = with_scores(table([0.1, 0.9, 0.2], [0, 1, 0]), np.full(3, 0.5))
    for known, reason in ((rows, "no wrong prediction"), (None, "no validation predictions")):
        for found in judge_predictions(known, rows, classes=CLASSES, resamples=20, seed=0).values():
            assert np.isnan(found.values).all()
            assert reason in found.reason


def test_sites_are_scored_apart_and_the_worst_is_named() -> None:
    probabilities = [0.1, 0.9, 0.9, 0.1] * 3  # the second site is wrong at every other patient
    labels = [0, 0, 1, 1] * 3
    groups = score_groups(table(probabilities, labels), classes=CLASSES, resamples=20, seed=0)
    assert groups["sites"]["Site0"]["accuracy"]["value"] == 1.0  # type: ignore[index]
    assert groups["worst"]["group"] == "Site1"  # type: ignore[index]
    assert groups["worst"]["value"] == 0.0  # type: ignore[index]
    alone = table([0.1], [0])
    assert score_groups(alone, classes=CLASSES, resamples=20, seed=0) == {}


def test_small_and_large_tumours_are_scored_apart() -> None:
    rows = table([0.1, 0.9, 0.9, 0.1] * 3, [0, 0, 1, 1] * 3).assign(site="")
    rows["tumour_pixels"] = np.where(rows["prediction"] == rows["label"], 50.0, 9.0)
    rows.loc[rows.index[-1], "tumour_pixels"] = np.nan  # a wrong one, without a mask
    groups = score_groups(rows, classes=CLASSES, resamples=20, seed=0)
    assert set(groups) == {"tumour_size", "worst_tumour_size"}
    assert groups["tumour_size"]["large"]["accuracy"]["value"] == 1.0  # type: ignore[index]
    assert groups["tumour_size"]["small"]["accuracy"]["samples"] == 5  # type: ignore[index]
    assert groups["worst_tumour_size"]["group"] == "small"  # type: ignore[index]


def test_bins_show_what_calibration_error_is_the_mean_of() -> None:
    rng = np.random.default_rng(0)
    rows = table(rng.uniform(size=60).tolist(), rng.integers(2, size=60).tolist(), slices=2)
    decision = decide(rows, CLASSES)
    bins = bins_of(decision, rows, CLASSES)
    scores = score_decision(decision, rows, classes=CLASSES, resamples=20, seed=0)
    for key, name in (
        ("slice", "slice_ece"),
        ("patient_after_temperature", "patient_ece_after_temperature"),
    ):
        found = bins[key]
        count = sum(one["count"] for one in found)
        error = sum(one["count"] * abs(one["confidence"] - one["accuracy"]) for one in found)
        assert error / count == pytest.approx(scores[name]["value"])
        assert all(one["low"] < one["confidence"] <= one["high"] for one in found)


def test_validation_rows_are_read_back_with_ids_as_they_are(tmp_path) -> None:
    assert read_validation(tmp_path) is None
    rows = table([0.1, 0.9], [0, 1]).assign(level="slice", split="validation", site="")
    other = rows.assign(split="test")
    pd.concat([rows, other]).to_csv(tmp_path / "predictions.csv", index=False)
    again = read_validation(tmp_path)
    assert again is not None
    assert again["patient"].tolist() == ["000", "001"]
    assert again["site"].tolist() == ["", ""]
    assert decide(again, CLASSES) == decide(rows, CLASSES)


def test_estimates_of_differences_are_no_shares() -> None:
    fields = {"value": -0.1, "low": -0.2, "high": 0.0, "method": "bootstrap"}
    assert not estimate(fields, share=False).share
    assert estimate(fields).note == "bootstrap"
