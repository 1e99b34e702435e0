"""Settings tested against each other, over runs or over patients."""

import itertools
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
from scipy import stats

from glioma_xai.visualization.contents import Estimate
from glioma_xai.visualization.pooling import Setting


@dataclass(frozen=True)
class Difference:
    """One score of two settings.

    Args:
        first: Letter of the first setting.
        second: Letter of the second.
        score: Path of the score.
        estimate: First minus second.
        p_value: Corrected for the number of tests of this score after Holm (1979).
        test: What was done, in words.
    """

    first: str
    second: str
    score: str
    estimate: Estimate
    p_value: float
    test: str


class Tested(Protocol):
    """What a test of two areas returns."""

    @property
    def difference(self) -> float:
        """First area minus second."""

    @property
    def low(self) -> float:
        """Lower end of the interval."""

    @property
    def high(self) -> float:
        """Upper end of the interval."""

    @property
    def p_value(self) -> float:
        """Two-sided."""


AreaTest = Callable[[Sequence[float], Sequence[float], Sequence[int]], Tested]
"""Scores of two models and the labels of the same patients to a paired test of the areas."""


def compare_settings(
    settings: Sequence[Setting], score: str, *, area_test: AreaTest | None = None
) -> list[Difference]:
    """Test a score between every two settings.

    With two runs or more on either side it is a t test over runs: paired where both settings have
    the same seeds and folds, else Welch's. With one run on either side, an area under the ROC curve
    is tested on the patients that both runs predicted.

    Args:
        settings: What is compared.
        score: Path in ``summary.json``.
        area_test: Paired test of two areas, such as DeLong's.

    Returns:
        The pairs that can be tested; p values are corrected after Holm for their number.
    """
    found = []
    for first, second in itertools.combinations(settings, 2):
        difference = _over_runs(first, second, score)
        if difference is None and area_test is not None and score.endswith("/auc"):
            difference = _over_patients(first, second, score, area_test)
        if difference is not None:
            found.append(difference)
    corrected = holm([difference.p_value for difference in found])
    return [
        Difference(d.first, d.second, d.score, d.estimate, p, d.test)
        for d, p in zip(found, corrected, strict=True)
    ]


def holm(p_values: Sequence[float]) -> list[float]:
    """Correct p values for their number.

    Args:
        p_values: NaN is left out and stays NaN.

    Returns:
        Corrected values in the same order.

    Reference:
        Holm (1979), Scandinavian Journal of Statistics 6:65-70.
    """
    corrected = [math.nan] * len(p_values)
    order = sorted((p, i) for i, p in enumerate(p_values) if not math.isnan(p))
    largest = 0.0
    for rank, (p_value, position) in enumerate(order):
        largest = max(largest, min(1.0, (len(order) - rank) * p_value))
        corrected[position] = largest
    return corrected


def _over_runs(first: Setting, second: Setting, score: str) -> Difference | None:
    a, b = (
        {
            (str(run.seed), run.fold): run.scores[score].value
            for run in setting.runs
            if score in run.scores
        }
        for setting in (first, second)
    )
    kind = "runs" if len({fold for _, fold in a.keys() | b.keys()}) > 1 else "seeds"
    if min(len(a), len(b)) < 2 or np.isnan([*a.values(), *b.values()]).any():
        return None
    if set(a) == set(b):
        result = stats.ttest_rel([a[key] for key in a], [b[key] for key in a])
        test = f"paired t test over {len(a)} {kind}"
    else:
        result = stats.ttest_ind(list(a.values()), list(b.values()), equal_var=False)
        test = f"Welch's t test, {len(a)} and {len(b)} {kind}"
    ends = result.confidence_interval(0.95)
    mean = float(np.mean(list(a.values())) - np.mean(list(b.values())))
    estimate = Estimate(mean, float(ends.low), float(ends.high))
    p_value = 1.0 if list(a.values()) == list(b.values()) else float(result.pvalue)
    return Difference(first.letter, second.letter, score, estimate, p_value, test)


def _over_patients(
    first: Setting, second: Setting, score: str, area_test: AreaTest
) -> Difference | None:
    if len(first.runs) > 1 or len(second.runs) > 1:
        return None
    a, b = (setting.runs[0].patient_probabilities() for setting in (first, second))
    both = sorted(set(a) & set(b))
    if not both or any(a[patient][0] != b[patient][0] for patient in both):
        return None
    labels = [a[patient][0] for patient in both]
    result = area_test([a[p][1] for p in both], [b[p][1] for p in both], labels)
    estimate = Estimate(result.difference, result.low, result.high)
    test = f"DeLong's test on {len(both)} patients, one run each"
    return Difference(first.letter, second.letter, score, estimate, result.p_value, test)
