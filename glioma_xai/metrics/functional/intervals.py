"""How far a measured number can be trusted: confidence intervals and paired tests.

Slices of one patient resemble each other, so the patient is what is drawn: a bootstrap draws
patients, and the formulas for independent samples (DeLong, Wilson) are for one row a patient.

Where one class is absent, a score that needs both is NaN and so are the ends of its interval.
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy import stats

Array = NDArray[np.float64]
WeightedScore = Callable[[Array], Array]
"""Weights of the rows, (R, N), to one score for each of the R rows of weights, (R,)."""


@dataclass(frozen=True)
class Interval:
    """A number and the range that covers the true one in a stated share of repetitions.

    Args:
        value: The score on the data; NaN if it is undefined there.
        low: Lower end; NaN if unknown.
        high: Upper end; NaN if unknown.
        method: ``delong``, ``wilson``, ``bootstrap`` (drawn by patient), or ``separated``: an AUC
            of 0 or 1 with the bound that ``separated_interval`` describes.
        samples: What was independent, mostly patients.
        level: Confidence level.
        undefined: Share of the bootstrap's draws on which the score was undefined, left out.
    """

    value: float
    low: float
    high: float
    method: str
    samples: int
    level: float = 0.95
    undefined: float = 0.0


@dataclass(frozen=True)
class PairedTest:
    """The difference of two scores on the same samples.

    Args:
        difference: First minus second.
        low: Lower end of the interval of the difference.
        high: Upper end.
        statistic: z; NaN for the bootstrap.
        p_value: Two-sided; NaN where the variance of the difference is 0 and the difference is not.
        method: ``delong`` or ``bootstrap``.
    """

    difference: float
    low: float
    high: float
    statistic: float
    p_value: float
    method: str


def wilson_interval(hits: float, trials: int, *, level: float = 0.95) -> Interval:
    """Interval of a proportion of independent trials; never empty, also at 0 and at 1.

    Args:
        hits: Successes; not an integer where a proportion of clusters is meant.
        trials: Independent trials; with 0 all three numbers are NaN.
        level: Confidence level.

    Returns:
        The proportion and its interval in [0, 1].

    Reference:
        Wilson (1927), Journal of the American Statistical Association 22:209-212.
    """
    if trials == 0:
        return Interval(np.nan, np.nan, np.nan, "wilson", 0, level)
    z = float(stats.norm.ppf(0.5 + level / 2))
    share = hits / trials
    centre = (share + z**2 / (2 * trials)) / (1 + z**2 / trials)
    half = z / (1 + z**2 / trials) * np.sqrt(share * (1 - share) / trials + (z / (2 * trials)) ** 2)
    low, high = max(0.0, float(centre - half)), min(1.0, float(centre + half))
    return Interval(share, low, high, "wilson", trials, level)


def bootstrap_interval(
    score: WeightedScore,
    patients: ArrayLike,
    *,
    resamples: int = 2000,
    seed: int = 0,
    level: float = 0.95,
    proportion: bool = False,
) -> Interval:
    """Percentile interval of any weighted score, drawing patients with replacement.

    A patient drawn twice counts twice: each draw is a row of whole-number weights, so a score that
    takes weights is computed for all draws at once.

    Args:
        score: Weights (R, N) to scores (R,).
        patients: Which patient a row belongs to, (N,), of any type.
        resamples: Draws.
        seed: Same seed, same interval.
        level: Confidence level.
        proportion: The score is a share of rows. If no draw differs from another, the bootstrap
            would claim certainty; the interval is then Wilson's with the patients as trials, and
            NaN for a score that is no proportion.

    Returns:
        The score on the data and its interval; draws that leave it undefined are left out and their
        share is stated. NaN ends if it is undefined on the data, or with fewer than two patients.
    """
    rows, count = _rows_of_patients(patients)
    value = float(score(np.ones((1, len(rows))))[0]) if count else np.nan
    if count < 2 or np.isnan(value):
        return Interval(value, np.nan, np.nan, "bootstrap", count, level)
    draws = _draw(score, rows, count, resamples, seed)
    defined = draws[~np.isnan(draws)]
    if not len(defined):
        return Interval(value, np.nan, np.nan, "bootstrap", count, level, undefined=1.0)
    if np.ptp(defined) < 1e-12:  # a perfect score, mostly
        ends = wilson_interval(value * count, count, level=level) if proportion else None
        low, high = (ends.low, ends.high) if ends else (np.nan, np.nan)
        return Interval(value, low, high, "wilson" if ends else "bootstrap", count, level)
    low, high = np.quantile(defined, [0.5 - level / 2, 0.5 + level / 2])
    undefined = 1 - len(defined) / resamples
    return Interval(value, float(low), float(high), "bootstrap", count, level, undefined)


def bootstrap_difference(
    score_a: WeightedScore,
    score_b: WeightedScore,
    patients: ArrayLike,
    *,
    resamples: int = 2000,
    seed: int = 0,
    level: float = 0.95,
) -> PairedTest:
    """Difference of two scores on the same rows, each draw of patients serving both.

    Args:
        score_a: Weights (R, N) to scores (R,), as in :func:`bootstrap_interval`.
        score_b: The second score, on the same rows in the same order.
        patients: Which patient a row belongs to, (N,).
        resamples: Draws.
        seed: Same seed, same interval.
        level: Confidence level.

    Returns:
        First minus second with a percentile interval; p is twice the smaller share of draws on
        either side of 0, counting the data as one more draw.
    """
    rows, count = _rows_of_patients(patients)
    ones = np.ones((1, len(rows)))
    difference = float((score_a(ones) - score_b(ones))[0]) if count else np.nan
    if count < 2 or np.isnan(difference):
        return PairedTest(difference, np.nan, np.nan, np.nan, np.nan, "bootstrap")
    draws = _draw(lambda weights: score_a(weights) - score_b(weights), rows, count, resamples, seed)
    draws = draws[~np.isnan(draws)]
    if not len(draws):
        return PairedTest(difference, np.nan, np.nan, np.nan, np.nan, "bootstrap")
    low, high = np.quantile(draws, [0.5 - level / 2, 0.5 + level / 2])
    side = min(np.sum(draws <= 0), np.sum(draws >= 0))
    p_value = float(min(1.0, 2 * (side + 1) / (len(draws) + 1)))
    return PairedTest(difference, float(low), float(high), np.nan, p_value, "bootstrap")


def _rows_of_patients(patients: ArrayLike) -> tuple[NDArray[np.intp], int]:
    names, rows = np.unique(np.asarray(patients), return_inverse=True)
    return rows, len(names)


def _draw(
    score: WeightedScore, rows: NDArray[np.intp], count: int, resamples: int, seed: int
) -> Array:
    generator = np.random.default_rng(seed)
    chunk = max(1, min(resamples, 2_000_000 // len(rows)))  # 16 MB of weights at a time
    draws = []
    for start in range(0, resamples, chunk):
        size = min(chunk, resamples - start)
        counts = generator.multinomial(count, np.full(count, 1 / count), size=size)
        draws.append(score(counts[:, rows].astype(np.float64)))
    return np.concatenate(draws)
