"""Relevance says, behaviour says: do they agree?"""

from collections.abc import Mapping
from typing import Any

from glioma_xai.visualization.contents import Verdict

TOLERATED_DROP = 0.05  # of accuracy by patient, under a condition that leaves the tumour as it is
SERIOUS_DROP = 0.15
LEARNT = 0.65  # accuracy as trained below which nothing can be said about what it decides by
INSIDE = 0.5  # share of absolute relevance in the tumour from which a picture looks convincing


def judge(behaviour: Mapping[str, Any], relevance: Mapping[str, Mapping[str, Any]]) -> Verdict:
    """Compare what the network does with what its relevance shows.

    Args:
        behaviour: Condition to level to score to interval, with ``as_trained`` among them.
        relevance: Relevance score to interval, on the images as trained.

    Returns:
        ``bad`` with the word fairwashing in it where relevance is mostly inside the tumour and the
        accuracy falls all the same.
    """
    accuracy = {name: float(s["patient"]["accuracy"]["value"]) for name, s in behaviour.items()}
    trained = accuracy.pop("as_trained")
    worst = min(accuracy, key=accuracy.__getitem__)
    drop = trained - accuracy[worst]
    inside = float(relevance.get("absolute_relevance_mass", {}).get("value", float("nan")))
    looks_right = inside >= INSIDE
    condition = worst.replace("_", " ")
    does = f"Accuracy by patient is {trained:.2f} as trained and {accuracy[worst]:.2f} {condition}."
    shows = f"{100 * inside:.0f} % of absolute relevance lies in the tumour."
    if inside != inside:
        shows = "Relevance could not be measured against a mask."
    if trained < LEARNT:
        return Verdict("unknown", "The network has not learnt to tell the classes.", does, shows)
    if drop > SERIOUS_DROP and looks_right:
        text = "Possible fairwashing: relevance lies in the tumour, but the decision does not."
        return Verdict("bad", text, does, shows)
    if drop > SERIOUS_DROP:
        text = "The network decides by something outside the tumour, and its relevance shows it."
        return Verdict("bad", text, does, shows)
    if drop > TOLERATED_DROP:
        text = "The network decides by the tumour and in part by something else."
        return Verdict("mixed", text, does, shows)
    if looks_right:
        text = "The network decides by the tumour, and its relevance lies there."
        return Verdict("good", text, does, shows)
    text = "The network decides by the tumour, although its relevance does not show it."
    return Verdict("mixed", text, does, shows)
