"""The verdict follows behaviour first and relevance second."""

import pytest

from glioma_xai.experiment.verdict import judge


def conditions(trained: float, swapped: float) -> dict[str, object]:
    return {
        name: {"patient": {"accuracy": {"value": value}}}
        for name, value in {"as_trained": trained, "swapped": swapped}.items()
    }


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
    verdict = judge(conditions(trained, swapped), {"absolute_relevance_mass": {"value": inside}})
    assert verdict.judgement == judgement
    assert words in verdict.headline
    assert f"{swapped:.2f} swapped" in verdict.behaviour


def test_without_masks_relevance_is_not_claimed() -> None:
    verdict = judge(conditions(0.9, 0.9), {"absolute_relevance_mass": {"value": float("nan")}})
    assert verdict.judgement == "mixed"
    assert "could not be measured" in verdict.relevance
