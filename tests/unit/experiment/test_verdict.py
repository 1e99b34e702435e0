"""The verdict follows behaviour first and relevance second."""

import pytest

from glioma_xai.experiment.verdict import judge


def scores(accuracy: float, balanced: float | None = None, auc: float | None = None) -> object:
    values = {
        "accuracy": accuracy,
        "balanced_accuracy": accuracy if balanced is None else balanced,
        "auc": accuracy if auc is None else auc,
    }
    around = {"low": -0.05, "high": 0.05}
    return {
        "patient": {
            name: {"value": value, **{end: value + step for end, step in around.items()}}
            for name, value in values.items()
        }
    }


def conditions(**accuracies: float) -> dict[str, object]:
    return {name: scores(value) for name, value in accuracies.items()}


def gaps(**drops: float) -> dict[str, dict[str, float]]:
    return {name: {"value": value} for name, value in drops.items()}


@pytest.mark.parametrize(
    ("trained", "swapped", "inside", "judgement", "words"),
    [
        (0.92, 0.91, 0.94, "good", "decides by the tumour, and its relevance lies there"),
        (1.00, 0.00, 0.97, "bad", "Possible fairwashing"),
        (1.00, 0.00, 0.18, "bad", "decides by something outside the tumour"),
        (0.92, 0.83, 0.94, "mixed", "in part by something else"),
        (0.92, 0.91, 0.30, "mixed", "although its relevance does not show it"),
        (0.55, 0.50, 0.94, "unknown", "not learnt"),
        (0.75, 0.85, 0.94, "mixed", "in part by something else"),  # a cue that is read backwards
        (0.73, 0.89, 0.94, "bad", "Possible fairwashing"),
    ],
)
def test_verdict(trained: float, swapped: float, inside: float, judgement: str, words: str) -> None:
    verdict = judge(
        conditions(as_trained=trained, swapped=swapped, exchanged_any=trained),
        gaps(swapped=trained - swapped, exchanged_any=0.0),
        {"absolute_relevance_mass": {"value": inside}},
    )
    assert verdict.judgement == judgement
    assert words in verdict.headline
    assert f"{swapped:.2f} with the shortcut swapped" in verdict.behaviour


def test_what_noise_disturbs_is_no_reason() -> None:
    drops = {"exchanged_any": 0.02, "noise_outside": 0.2}
    found = conditions(as_trained=0.92, exchanged_any=0.9, noise_outside=0.72)
    inside = {"absolute_relevance_mass": {"value": 0.9}}
    assert judge(found, gaps(**drops), inside).judgement == "good"
    alone = conditions(as_trained=0.92, noise_outside=0.72)
    assert judge(alone, gaps(noise_outside=0.2), inside).judgement == "bad"


def test_the_interval_of_the_loss_is_told() -> None:
    loss = {"swapped": {"value": 0.08, "low": 0.0, "high": 0.21}}
    verdict = judge(conditions(as_trained=1.0, swapped=0.92), loss, {})
    assert "(loss 0.08, 95 % interval 0.00 to 0.21)" in verdict.behaviour


def test_conditions_without_the_tumour_do_not_count() -> None:
    verdict = judge(
        conditions(as_trained=0.9, swapped=0.9),
        gaps(swapped=0.0, tumour_removed=0.4, background_class=0.3),
        {"absolute_relevance_mass": {"value": 0.9}},
    )
    assert verdict.judgement == "good"


def test_without_masks_relevance_is_not_claimed() -> None:
    nothing = {"absolute_relevance_mass": {"value": float("nan")}}
    verdict = judge(conditions(as_trained=0.9, removed=0.9), gaps(removed=0.0), nothing)
    assert verdict.judgement == "mixed"
    assert "could not be measured" in verdict.relevance
    verdict = judge(conditions(as_trained=0.9, removed=0.5), gaps(removed=0.4), nothing)
    assert verdict.headline == "The network decides by something outside the tumour."


def test_where_nothing_could_be_changed_nothing_is_claimed() -> None:
    verdict = judge(conditions(as_trained=0.95), {}, {"absolute_relevance_mass": {"value": 0.9}})
    assert verdict.judgement == "unknown"
    assert "Nothing outside the tumour could be changed" in verdict.headline


def test_the_interval_of_a_gain_is_told() -> None:
    gain = {"swapped": {"value": -0.11, "low": -0.2, "high": -0.02}}
    verdict = judge(conditions(as_trained=0.75, swapped=0.86), gain, {})
    assert "(gain 0.11, 95 % interval 0.02 to 0.20)" in verdict.behaviour


@pytest.mark.parametrize(
    ("auc", "words"), [(0.5, "has not learnt"), (0.99, "does not tell the classes at its thresh")]
)
def test_one_answer_for_all_is_not_learnt(auc: float, words: str) -> None:
    """Three quarters of the patients are of one class."""
    behaviour = {name: scores(0.75, balanced=0.5, auc=auc) for name in ("as_trained", "swapped")}
    inside = {"absolute_relevance_mass": {"value": 0.9}}
    verdict = judge(behaviour, gaps(swapped=0.0), inside)
    assert verdict.judgement == "unknown"
    assert words in verdict.headline


def test_a_trace_of_the_class_without_the_tumour_is_told() -> None:
    told = judge(
        conditions(as_trained=0.9, swapped=0.9),
        gaps(swapped=0.0),
        {"absolute_relevance_mass": {"value": 0.9}},
        {"tumour_removed": scores(0.5, auc=0.04), "background_alone": scores(0.5, auc=0.52)},
    )
    assert told.judgement == "good"
    assert "A trace of the class is left with the tumour removed (AUC 0.04)." in told.behaviour
    assert "black box" not in told.behaviour
