"""Relevance says, behaviour says: do they agree?"""

import math
from collections.abc import Mapping
from typing import Any

from glioma_xai.metrics.functional.behaviour import CONVINCING, SERIOUS_DROP
from glioma_xai.visualization.contents import Verdict

TOLERATED_DROP = 0.05  # of accuracy by patient, under a condition that leaves the tumour as it is
LEARNT = 0.65  # accuracy as trained below which nothing can be said about what it decides by


def judge(
    behaviour: Mapping[str, Any],
    gaps: Mapping[str, Mapping[str, Any]],
    relevance: Mapping[str, Mapping[str, Any]],
) -> Verdict:
    """Compare what the network does with what its relevance shows.

    Args:
        behaviour: Condition to level to score to interval: ``as_trained``, and those that leave the
            tumour as it is.
        gaps: Condition to accuracy by patient as trained less that under it; others are passed by.
        relevance: Relevance score to interval, on the images as trained.

    Returns:
        ``bad`` with the word fairwashing in it where relevance is mostly inside the tumour and the
        accuracy falls all the same; ``unknown`` where nothing outside the tumour could be changed.
    """
    accuracy = {name: float(s["patient"]["accuracy"]["value"]) for name, s in behaviour.items()}
    drops = {name: float(gap["value"]) for name, gap in gaps.items() if name in behaviour}
    inside = float(relevance.get("absolute_relevance_mass", {}).get("value", float("nan")))
    looks_right = inside >= CONVINCING
    does = f"Accuracy by patient is {accuracy['as_trained']:.2f} as trained"
    shows = f"{100 * inside:.0f} % of absolute relevance lies in the tumour."
    if math.isnan(inside):
        shows = "Relevance could not be measured against a mask."
    if not drops:
        text = "Nothing outside the tumour could be changed: what the network uses is unknown."
        return Verdict("unknown", text, f"{does}; no other condition could be made.", shows)
    worst = max(drops, key=drops.__getitem__)
    does += f" and {accuracy[worst]:.2f} {condition_words(worst)}{_interval(gaps[worst])}."
    if accuracy["as_trained"] < LEARNT:
        return Verdict("unknown", "The network has not learnt to tell the classes.", does, shows)
    return Verdict(*_compare(drops[worst], looks_right, not math.isnan(inside)), does, shows)


def _compare(drop: float, looks_right: bool, measured: bool) -> tuple[Any, str]:
    """Judgement and headline."""
    if drop > SERIOUS_DROP and looks_right:
        return "bad", "Possible fairwashing: relevance lies in the tumour, the decision does not."
    if drop > SERIOUS_DROP and measured:
        text = "The network decides by something outside the tumour, and its relevance shows it."
        return "bad", text
    if drop > SERIOUS_DROP:
        return "bad", "The network decides by something outside the tumour."
    if drop > TOLERATED_DROP:
        return "mixed", "The network decides by the tumour and in part by something else."
    if looks_right:
        return "good", "The network decides by the tumour, and its relevance lies there."
    if measured:
        text = "The network decides by the tumour, although its relevance does not show it."
        return "mixed", text
    return "mixed", "The network does not decide by what was changed outside the tumour."


def _interval(gap: Mapping[str, Any]) -> str:
    """How sure a loss of accuracy is."""
    low, high = (float(gap.get(end, math.nan)) for end in ("low", "high"))
    if math.isnan(low) or math.isnan(high):
        return ""
    return f" (loss {gap['value']:.2f}, 95 % interval {low:.2f} to {high:.2f})"


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
