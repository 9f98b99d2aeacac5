"""Rates and correlations with their sample size and 95 % interval; scipy does the work."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from scipy import stats

Floats = npt.NDArray[np.float64]
CONFIDENCE = 0.95
_Z = float(stats.norm.ppf(0.5 + CONFIDENCE / 2))


@dataclass(frozen=True, kw_only=True)
class Estimate:
    """A figure with its uncertainty.

    Attributes:
        value: The point estimate.
        low: Lower bound of the 95 % interval.
        high: Upper bound of the 95 % interval.
        n: Number of observations.
    """

    value: float
    low: float
    high: float
    n: int


def rate(successes: int, n: int) -> Estimate | None:
    """A rate with its Wilson interval; None of nothing."""
    if n == 0:
        return None
    interval = stats.binomtest(successes, n).proportion_ci(CONFIDENCE, method="wilson")
    return Estimate(value=successes / n, low=float(interval.low), high=float(interval.high), n=n)


def mean(values: Floats) -> Estimate | None:
    """The mean of independent observations with its t interval; None below two."""
    if values.size < 2:
        return None
    center = float(values.mean())
    half = float(stats.t.ppf(0.5 + CONFIDENCE / 2, values.size - 1) * values.std(ddof=1) / np.sqrt(values.size))
    return Estimate(value=center, low=center - half, high=center + half, n=int(values.size))


def rank_correlation(first: Floats, second: Floats) -> Estimate | None:
    """Spearman's rank correlation with the interval of Bonett and Wright (2000); None below four items or where one side is constant."""
    if first.size < 4 or np.ptp(first) == 0 or np.ptp(second) == 0:
        return None
    rho = float(stats.spearmanr(first, second).statistic)
    bounded = min(max(rho, -1 + 1e-12), 1 - 1e-12)
    half = _Z * np.sqrt((1 + bounded**2 / 2) / (first.size - 3))
    low, high = np.tanh(np.arctanh(bounded) - half), np.tanh(np.arctanh(bounded) + half)
    return Estimate(value=rho, low=min(rho, float(low)), high=max(rho, float(high)), n=int(first.size))
