"""The verdict follows behaviour first and relevance second."""

import pytest

from glioma_xai.experiment.verdict import judge


def conditions(**accuracies: float) -> dict[str, object]:
    return {name: {"patient": {"accuracy": {"value": value}}} for name, value in accuracies.items()}


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
