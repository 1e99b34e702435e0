"""What a network decides by: scores of the same samples under conditions that spare the tumour.

Conditions are made elsewhere (shortcut removed or swapped, backgrounds exchanged within a class or
between classes) and arrive as probabilities of the same rows in the same order.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import partial

import numpy as np
from numpy.typing import ArrayLike

from glioma_xai.errors import ShapeError
from glioma_xai.metrics.functional.classification import Score, accuracy
from glioma_xai.metrics.functional.decisions import check_predictions
from glioma_xai.metrics.functional.intervals import PairedTest, bootstrap_difference

SERIOUS_DROP = 0.15  # of accuracy, where nothing but the background has changed
CONVINCING = 0.5  # share of absolute relevance in the tumour from which a picture looks right


@dataclass(frozen=True)
class Drift:
    """Whether relevance kept its place while behaviour got worse, over the epochs of a run.

    Args:
        epoch: First epoch, counted from 0, from which behaviour stays below its best while
            relevance does not fall; None if there is none.
        lost: Best behaviour less the last.
        gained: Last relevance less that at the best behaviour.
        words: The same in a sentence.
    """

    epoch: int | None
    lost: float
    gained: float
    words: str


def score_gap(
    probabilities_a: ArrayLike,
    probabilities_b: ArrayLike,
    labels: ArrayLike,
    patients: Sequence[str],
    *,
    score: Score = accuracy,
    resamples: int = 2000,
    seed: int = 0,
    level: float = 0.95,
) -> PairedTest:
    """How much better a network is under one condition than under another, with its interval.

    With a on backgrounds of the same class and b on backgrounds of a random class this is the gap
    between mixed-same and mixed-random: what the background contributes. With a as trained and b
    with the shortcut swapped it is what the shortcut contributes.

    Args:
        probabilities_a: First condition, (N, K).
        probabilities_b: Second condition, (N, K), the same rows in the same order.
        labels: Class index, (N,).
        patients: Patient of each row, (N,).
        score: A score of ``classification``; bind a threshold with ``functools.partial``.
        resamples: Draws of the bootstrap by patient.
        seed: Of the bootstrap.
        level: Confidence level.

    Returns:
        First score minus second; NaN where the score is undefined. If no decision differs, the
        bootstrap would claim certainty; the interval of an accuracy is then the exact one for no
        success in as many trials as there are patients (Clopper and Pearson 1934), on both sides.

    Raises:
        ShapeError: If the conditions do not have the same rows.

    Reference:
        Xiao, Engstrom, Ilyas and Madry (2021), ICLR, "Noise or signal: the role of image
        backgrounds in object recognition" (mixed-same, mixed-rand).
    """
    first, classes = check_predictions(probabilities_a, labels)
    second = np.asarray(probabilities_b, dtype=np.float64)
    if second.shape != first.shape:
        raise ShapeError(
            f"two conditions must have the same rows: expected {first.shape}, got {second.shape}. "
            "Predict the same samples in the same order under both."
        )
    test = bootstrap_difference(
        partial(score, first, classes),
        partial(score, second, classes),
        patients,
        resamples=resamples,
        seed=seed,
        level=level,
    )
    if score is accuracy and test.low == test.high == 0.0:
        bound = 1 - (0.5 - level / 2) ** (1 / len(set(patients)))
        return replace(test, low=-bound, high=bound, method="no patient differs, exact bound")
    return test


def fairwashing(accuracy: float, exchanged_accuracy: float, inside: float) -> bool:
    """Whether relevance lies in the tumour while accuracy falls on other backgrounds.

    Unlike :func:`find_drift` it looks at one epoch, and so finds a network that has never decided
    by the tumour.

    Args:
        accuracy: On the images as they are.
        exchanged_accuracy: On backgrounds of patients of another class. Of backgrounds of any
            patients half carry the cue of the image's own class, and show half of the fall.
        inside: Share of absolute relevance in the tumour.

    Returns:
        False where one of them is NaN.
    """
    return accuracy - exchanged_accuracy > SERIOUS_DROP and inside >= CONVINCING


def find_drift(
    behaviour: Sequence[float],
    relevance: Sequence[float],
    *,
    tolerance: float = 0.05,
    steadiness: float = 0.05,
) -> Drift:
    """Whether a run hid its reasons: behaviour falls while relevance stays high or rises.

    Args:
        behaviour: A score by epoch that falls when the network decides by something else, such as
            validation accuracy with exchanged backgrounds. Epochs with NaN are passed over.
        relevance: Share of relevance inside the tumour by epoch.
        tolerance: Loss of behaviour that is put down to noise.
        steadiness: Change of relevance up to which it counts as kept. What is kept below
            one half has convinced nobody, and hides nothing.

    Returns:
        The drift, in numbers and in words; all NaN if nothing was measured.

    Raises:
        ShapeError: If the two differ in length.
    """
    does, shows = np.asarray(behaviour, dtype=float), np.asarray(relevance, dtype=float)
    if does.shape != shows.shape:
        raise ShapeError(
            f"behaviour and relevance must have one value an epoch: expected {does.shape}, got "
            f"{shows.shape}. Read both from the same metrics.csv."
        )
    known = np.flatnonzero(np.isfinite(does) & np.isfinite(shows))
    if not len(known):
        return Drift(None, math.nan, math.nan, "Behaviour and relevance were not both measured.")
    best = known[does[known].argmax()]
    last = known[-1]
    lost, gained = float(does[best] - does[last]), float(shows[last] - shows[best])
    if lost <= tolerance:
        return Drift(None, lost, gained, "Behaviour holds to the last epoch.")
    numbers = f"behaviour falls from {does[best]:.2f} to {does[last]:.2f}"
    if gained < -steadiness:
        words = f"From epoch {best} on {numbers}, and relevance leaves the tumour with it."
        return Drift(None, lost, gained, words)
    if shows[last] < CONVINCING and gained <= steadiness:
        words = f"From epoch {best} on {numbers}; relevance never showed the tumour."
        return Drift(None, lost, gained, words)
    after = known[known >= best]
    held = after[does[after] >= does[best] - tolerance]
    epoch = int(after[after > held[-1]][0])
    words = (
        f"Possible fairwashing: from epoch {epoch} on {numbers}, while relevance inside the "
        f"tumour goes from {shows[best]:.2f} to {shows[last]:.2f}."
    )
    return Drift(epoch, lost, gained, words)
