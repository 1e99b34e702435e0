"""Relevance says, behaviour says: do they agree?"""

import math
from collections.abc import Mapping
from typing import Any

from glioma_xai.metrics.functional.behaviour import CONVINCING, SERIOUS_DROP
from glioma_xai.visualization.contents import Verdict

TOLERATED_CHANGE = 0.05  # of accuracy by patient, by what leaves the tumour as it is
_NO_CUE = "noise_outside"  # says what disturbs a network, not what it decides by
LEARNT = 0.65  # balanced accuracy as trained below which nothing can be said about what decides


def judge(
    behaviour: Mapping[str, Any],
    gaps: Mapping[str, Mapping[str, Any]],
    relevance: Mapping[str, Mapping[str, Any]],
    without_tumour: Mapping[str, Any] | None = None,
) -> Verdict:
    """Compare what the network does with what its relevance shows.

    Args:
        behaviour: Condition to level to score to interval: ``as_trained``, and those that leave the
            tumour as it is.
        gaps: Condition to accuracy by patient as trained less that under it; others are passed by.
            One that rises tells as much as one that falls: the network reads a cue backwards. Noise
            outside the tumour counts only where nothing else could be changed.
        relevance: Relevance score to interval, on the images as trained.
        without_tumour: Conditions that take the tumour away, as ``behaviour``: a trace of the class
            that is left there is told, and does not change the judgement.

    Returns:
        ``bad`` with the word fairwashing in it where relevance is mostly inside the tumour and the
        accuracy changes all the same; ``unknown`` where nothing outside the tumour could be
        changed, or the classes have not been learnt.
    """
    accuracy = {name: _by_patient(scores, "accuracy") for name, scores in behaviour.items()}
    changes = {name: float(gap["value"]) for name, gap in gaps.items() if name in behaviour}
    inside = float(relevance.get("absolute_relevance_mass", {}).get("value", float("nan")))
    looks_right = inside >= CONVINCING
    does = f"Accuracy by patient is {accuracy['as_trained']:.2f} as trained"
    shows = f"{100 * inside:.0f} % of absolute relevance lies in the tumour."
    if math.isnan(inside):
        shows = "Relevance could not be measured against a mask."
    if not changes:
        text = "Nothing outside the tumour could be changed: what the network uses is unknown."
        return Verdict("unknown", text, f"{does}; no other condition could be made.", shows)
    judged = {name: c for name, c in changes.items() if name != _NO_CUE} or changes
    worst = max(judged, key=lambda name: abs(judged[name]))
    does += f" and {accuracy[worst]:.2f} {condition_words(worst)}{_interval(gaps[worst])}."
    does += "".join(map(_trace, (without_tumour or {}).items()))
    balanced = _by_patient(behaviour["as_trained"], "balanced_accuracy")
    if balanced < LEARNT:
        return Verdict("unknown", _not_learnt(behaviour["as_trained"]), does, shows)
    change = abs(judged[worst])
    return Verdict(*_compare(change, looks_right, not math.isnan(inside)), does, shows)


def _by_patient(scores: Mapping[str, Any], name: str, part: str = "value") -> float:
    return float(scores["patient"][name].get(part, math.nan))


def _not_learnt(scores: Mapping[str, Any]) -> str:
    if _by_patient(scores, "auc") < LEARNT:
        return "The network has not learnt to tell the classes."
    return "The network ranks the cases, but does not tell the classes at its threshold."


def _trace(condition: tuple[str, Mapping[str, Any]]) -> str:
    """A sentence, if the classes can be told apart without the tumour."""
    name, scores = condition
    low, high = (_by_patient(scores, "auc", end) for end in ("low", "high"))
    if not (low > 0.5 or high < 0.5):
        return ""
    auc = _by_patient(scores, "auc")
    return f" A trace of the class is left {condition_words(name)} (AUC {auc:.2f})."


def _compare(change: float, looks_right: bool, measured: bool) -> tuple[Any, str]:
    """Judgement and headline."""
    if change > SERIOUS_DROP and looks_right:
        return "bad", "Possible fairwashing: relevance lies in the tumour, the decision does not."
    if change > SERIOUS_DROP and measured:
        text = "The network decides by something outside the tumour, and its relevance shows it."
        return "bad", text
    if change > SERIOUS_DROP:
        return "bad", "The network decides by something outside the tumour."
    if change > TOLERATED_CHANGE:
        return "mixed", "The network decides by the tumour and in part by something else."
    if looks_right:
        return "good", "The network decides by the tumour, and its relevance lies there."
    if measured:
        text = "The network decides by the tumour, although its relevance does not show it."
        return "mixed", text
    return "mixed", "The network does not decide by what was changed outside the tumour."


def _interval(gap: Mapping[str, Any]) -> str:
    """How sure a loss or gain of accuracy is."""
    low, high = (float(gap.get(end, math.nan)) for end in ("low", "high"))
    if math.isnan(low) or math.isnan(high):
        return ""
    value = float(gap["value"])
    word = "loss" if value >= 0 else "gain"
    ends = sorted((low, high)) if value >= 0 else sorted((-low, -high))
    return f" ({word} {abs(value):.2f}, 95 % interval {ends[0]:.2f} to {ends[1]:.2f})"


def condition_words(name: str) -> str:
    """A condition as a reader understands it."""
    return _WORDS.get(name, name.replace("_", " "))


_WORDS = {
    "removed": "with the shortcut removed",
    "swapped": "with the shortcut swapped",
    "exchanged_any": "on another patient's background",
    "exchanged_same_class": "on a background of the same class",
    "exchanged_other_class": "on a background of another class",
    "noise_outside": "with noise outside the tumour",
    "tumour_removed": "with the tumour removed",
    "background_alone": "with a black box over the tumour",
    "background_class": "same class less any class",
}
