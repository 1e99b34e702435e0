"""Areas under ROC curves of independent samples: DeLong's interval and paired test."""

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy import stats

from glioma_xai.errors import ShapeError
from glioma_xai.metrics.functional.intervals import Array, Interval, PairedTest


def delong_interval(scores: ArrayLike, labels: ArrayLike, *, level: float = 0.95) -> Interval:
    """Area under the ROC curve with DeLong's interval, for independent samples.

    At an area of 0 or 1 DeLong's variance is 0, which would claim certainty: there the interval is
    that of :func:`separated_interval`.

    Args:
        scores: Higher for the positive class, (N,).
        labels: 0 or 1, (N,).
        level: Confidence level.

    Returns:
        The area and its interval, cut to [0, 1]; NaN if a class is absent, NaN ends if one has a
        single sample and the area is neither 0 nor 1.

    Raises:
        ShapeError: If the lengths differ.

    Reference:
        DeLong, DeLong and Clarke-Pearson (1988), Biometrics 44:837-845; Sun and Xu (2014), IEEE
        Signal Processing Letters 21:1389-1393, for the computation by ranks.
    """
    values, positive = _binary(scores, labels)
    samples = len(positive)
    rarer = int(min(positive.sum(), samples - positive.sum()))
    if rarer == 0:
        return Interval(np.nan, np.nan, np.nan, "delong", samples, level)
    area, covariance = _delong(values[None], positive)
    auc = float(area[0])
    if auc in (0.0, 1.0):
        return separated_interval(auc, rarer, samples, level=level)
    half = float(stats.norm.ppf(0.5 + level / 2) * np.sqrt(covariance[0, 0]))
    low, high = np.clip([auc - half, auc + half], 0.0, 1.0)
    return Interval(auc, float(low), float(high), "delong", samples, level)


def separated_interval(auc: float, rarer: int, samples: int, *, level: float = 0.95) -> Interval:
    """Interval of an area of 0 or 1, where neither DeLong's formula nor a bootstrap has one.

    Args:
        auc: 0 or 1.
        rarer: Independent samples (patients) of the rarer class.
        samples: Independent samples of both.
        level: Confidence level.

    Returns:
        The open end is Clopper and Pearson's bound for ``rarer`` hits out of as many trials.

    Reference:
        Clopper and Pearson (1934), Biometrika 26:404-413.
    """
    bound = float(((1 - level) / 2) ** (1 / rarer))
    low, high = (bound, 1.0) if auc == 1.0 else (0.0, 1 - bound)
    return Interval(auc, low, high, "separated", samples, level)


def delong_test(
    scores_a: ArrayLike, scores_b: ArrayLike, labels: ArrayLike, *, level: float = 0.95
) -> PairedTest:
    """Whether two areas under the ROC curve differ, both read on the same independent samples.

    Args:
        scores_a: Of the first model, (N,).
        scores_b: Of the second, (N,), in the same order.
        labels: 0 or 1, (N,).
        level: Confidence level of the interval of the difference.

    Returns:
        Area of the first minus area of the second; all NaN if a class is absent. Two models that
        rank alike give difference 0 and p 1.

    Raises:
        ShapeError: If the lengths differ.

    Reference:
        DeLong, DeLong and Clarke-Pearson (1988), Biometrics 44:837-845.
    """
    first, positive = _binary(scores_a, labels)
    second, _ = _binary(scores_b, labels)
    if positive.all() or not positive.any():
        return PairedTest(np.nan, np.nan, np.nan, np.nan, np.nan, "delong")
    area, covariance = _delong(np.stack([first, second]), positive)
    difference = float(area[0] - area[1])
    deviation = float(np.sqrt(max(0.0, covariance[0, 0] + covariance[1, 1] - 2 * covariance[0, 1])))
    if deviation < 1e-12:  # rounding leaves a little above 0
        p_value = 1.0 if abs(difference) < 1e-12 else np.nan
        return PairedTest(difference, difference, difference, np.nan, p_value, "delong")
    z = difference / deviation
    half = float(stats.norm.ppf(0.5 + level / 2)) * deviation
    p_value = float(2 * stats.norm.sf(abs(z)))
    return PairedTest(difference, difference - half, difference + half, z, p_value, "delong")


def _binary(scores: ArrayLike, labels: ArrayLike) -> tuple[Array, NDArray[np.bool_]]:
    values = np.asarray(scores, dtype=np.float64)
    positive = np.asarray(labels) == 1
    if values.shape != positive.shape or values.ndim != 1:
        raise ShapeError(
            f"scores and labels must be two lists of one length: expected {positive.shape}, got "
            f"{values.shape}. Pass the probability of the positive class only."
        )
    return values, positive


def _delong(scores: Array, positive: NDArray[np.bool_]) -> tuple[Array, Array]:
    """Areas (M,) and their covariance (M, M) for M models' scores (M, N)."""
    cases, controls = scores[:, positive], scores[:, ~positive]
    m, n = cases.shape[1], controls.shape[1]
    together = stats.rankdata(np.concatenate([cases, controls], axis=1), axis=1)
    # how many controls a case outranks, and how many cases outrank a control; ties count half
    of_cases = (together[:, :m] - stats.rankdata(cases, axis=1)) / n
    of_controls = 1 - (together[:, m:] - stats.rankdata(controls, axis=1)) / m
    covariance = _covariance(of_cases) / m + _covariance(of_controls) / n
    return of_cases.mean(axis=1), covariance


def _covariance(components: Array) -> Array:
    if components.shape[1] < 2:  # one sample of a class: its part of the variance is unknown
        return np.full((len(components), len(components)), np.nan)
    return np.atleast_2d(np.cov(components))
