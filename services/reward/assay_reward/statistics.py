"""Rates and correlations with their sample size and 95 % interval, also of observations that come in clusters.

Answers of one call are to one prompt: they are alike, and worth less than as many answers to different prompts.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from scipy import stats

Floats = npt.NDArray[np.float64]
Integers = npt.NDArray[np.int64]
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


def rate(successes: int, n: int, effective: float | None = None) -> Estimate | None:
    """A rate with its Wilson interval (Wilson 1927, here of any real size); None of nothing.

    Args:
        successes: Observations that are.
        n: All observations.
        effective: How many independent observations they are worth; n by default.
    """
    if n == 0:
        return None
    worth = n if effective is None else effective
    share, squared = successes / n, _Z**2 / worth
    center = (share + squared / 2) / (1 + squared)
    half = float(np.sqrt(squared * (share * (1 - share) + squared / 4))) / (1 + squared)
    return Estimate(value=share, low=max(center - half, 0.0), high=min(center + half, 1.0), n=n)


def clustered_rate(successes: Floats, sizes: Floats) -> Estimate | None:
    """A rate over clusters, whose observations depend on each other; None of nothing.

    The Wilson interval at the effective size: observations over the design effect, which is the variance of the ratio between clusters
    against that of independent observations (Korn and Graubard 1998). Where all observations agree there is nothing to estimate it from,
    and a cluster counts as one.

    Args:
        successes: Of each cluster, shape (k,).
        sizes: Observations of each cluster, shape (k,).
    """
    successes, sizes = successes[sizes > 0], sizes[sizes > 0]
    k, n = sizes.size, float(sizes.sum())
    if k == 0:
        return None
    share = float(successes.sum()) / n
    effective = float(k)
    if 0 < share < 1 and k > 1:
        between = k / (k - 1) * float(((successes - share * sizes) ** 2).sum()) / n**2
        effective = n / max(between / (share * (1 - share) / n), 1.0)
    return rate(round(successes.sum()), round(n), effective)


def effective_size(values: Floats, clusters: Integers) -> float:
    """How many independent observations clustered ones are worth: n over Kish's design effect (1965, section 5.4).

    1 + (m - 1) rho, with rho the intraclass correlation of the one-way analysis of variance, not below 0, and m the size of the cluster
    that an observation is in, on average.

    Args:
        values: Shape (n,).
        clusters: To which each belongs, shape (n,).
    """
    n = values.size
    _, member, sizes = np.unique(clusters, return_inverse=True, return_counts=True)
    k = sizes.size
    if k < 2 or k == n:
        return float(k)
    means = np.bincount(member, weights=values) / sizes
    between = float((sizes * (means - values.mean()) ** 2).sum()) / (k - 1)
    within = float(((values - means[member]) ** 2).sum()) / (n - k)
    typical = (n - float((sizes**2).sum()) / n) / (k - 1)
    total = between + (typical - 1) * within
    rho = max((between - within) / total, 0.0) if total > 0 else 1.0
    return n / (1 + (float((sizes**2).sum()) / n - 1) * rho)


def mean(values: Floats, effective: float | None = None) -> Estimate | None:
    """The mean with its t interval; None below two observations, or where they are worth less than two.

    Args:
        values: Shape (n,).
        effective: How many independent observations they are worth; n by default.
    """
    worth = float(values.size) if effective is None else effective
    if values.size < 2 or worth < 2:
        return None
    center = float(values.mean())
    half = float(stats.t.ppf(0.5 + CONFIDENCE / 2, worth - 1) * values.std(ddof=1) / np.sqrt(worth))
    return Estimate(value=center, low=center - half, high=center + half, n=int(values.size))


def rank_correlation(first: Floats, second: Floats, effective: float | None = None) -> Estimate | None:
    """Spearman's rank correlation with the interval of Bonett and Wright (2000).

    None below four items, where one side is constant, or where they are worth less than four.

    Args:
        first: Shape (n,).
        second: Shape (n,).
        effective: How many independent observations they are worth; n by default.
    """
    worth = float(first.size) if effective is None else effective
    if first.size < 4 or worth < 4 or np.ptp(first) == 0 or np.ptp(second) == 0:
        return None
    rho = float(stats.spearmanr(first, second).statistic)
    bounded = min(max(rho, -1 + 1e-12), 1 - 1e-12)
    half = _Z * np.sqrt((1 + bounded**2 / 2) / (worth - 3))
    low, high = np.tanh(np.arctanh(bounded) - half), np.tanh(np.arctanh(bounded) + half)
    return Estimate(value=rho, low=min(rho, float(low)), high=max(rho, float(high)), n=int(first.size))
