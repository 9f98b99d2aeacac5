"""Rates, means, correlations and paired tests, each with its sample size and 95 % interval.

scipy and statsmodels do the work; what is here chooses the method and gives it one shape.
"""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from scipy import stats
from statsmodels.stats.multitest import multipletests
from statsmodels.stats.proportion import proportion_confint

Floats = npt.NDArray[np.float64]
CONFIDENCE = 0.95


def decimals(value: float) -> float:
    """Four decimals: what a report can mean, and coarse enough that the rounding of a device never shows (about 1e-7 in a mean)."""
    return round(float(value), 4)


def significant(value: float) -> float:
    """Five significant digits, for figures on a scale of their own such as the spread of a reward model's scores."""
    return float(f"{value:.5g}")


@dataclass(frozen=True, kw_only=True)
class Estimate:
    """A figure with its uncertainty.

    Attributes:
        value: The point estimate.
        low: Lower bound of the 95 % interval; not above `value`.
        high: Upper bound of the 95 % interval; not below `value`.
        n: Number of independent observations.
    """

    value: float
    low: float
    high: float
    n: int

    def as_dict(self) -> dict[str, float | int]:
        """The figure as JSON, rounded as `decimals` says."""
        return {"value": decimals(self.value), "low": decimals(self.low), "high": decimals(self.high), "n": self.n}


@dataclass(frozen=True, kw_only=True)
class PairedTest:
    """A comparison of two models on the same items.

    Attributes:
        first_only: Items on which only the first did better.
        second_only: Items on which only the second did better.
        p_value: Two-sided, exact.
    """

    first_only: int
    second_only: int
    p_value: float


@dataclass(frozen=True, kw_only=True)
class MeanDifference:
    """A difference of means over the same items.

    Attributes:
        estimate: Mean of first minus second, with its t interval.
        p_value: Two-sided paired t test against no difference.
    """

    estimate: Estimate
    p_value: float


def wilson(successes: float, n: int) -> Estimate:
    """A rate with its Wilson interval.

    Args:
        successes: Number of successes in 0..n; a tie may count as half.
        n: Number of trials; 0 gives the interval 0..1 around 0.5.

    Raises:
        ValueError: If successes lie outside 0..n.
    """
    if n == 0:
        return Estimate(value=0.5, low=0.0, high=1.0, n=0)
    if not 0 <= successes <= n:
        raise ValueError(f"successes must lie in 0..{n}, got {successes}")
    low, high = proportion_confint(successes, n, alpha=1 - CONFIDENCE, method="wilson")
    return Estimate(value=successes / n, low=max(0.0, float(low)), high=min(1.0, float(high)), n=n)


def mean(values: Sequence[float] | Floats) -> Estimate:
    """The mean of independent observations with its t interval; one observation has an endless interval.

    Raises:
        ValueError: If there are no values.
    """
    data = np.asarray(values, dtype=np.float64)
    if data.size == 0:
        raise ValueError("the mean of no values is not defined")
    center = float(data.mean())
    if data.size == 1:
        return Estimate(value=center, low=float("-inf"), high=float("inf"), n=1)
    half = float(stats.t.ppf(0.5 + CONFIDENCE / 2, data.size - 1) * data.std(ddof=1) / np.sqrt(data.size))
    return Estimate(value=center, low=center - half, high=center + half, n=int(data.size))


def clustered_mean(values: Sequence[float] | Floats, groups: Sequence[Hashable], *, seed: int, resamples: int = 2000) -> Estimate:
    """The mean with a bootstrap interval that draws whole groups, for items that share a prompt.

    Args:
        values: One value per item, shape (n,).
        groups: Group of each item, length n.
        seed: Seed of the draws.
        resamples: Number of draws.

    Returns:
        The mean over items; `n` is the number of groups.
    """
    data = np.asarray(values, dtype=np.float64)
    names = {name: index for index, name in enumerate(dict.fromkeys(groups))}
    index = np.array([names[group] for group in groups])
    sums = np.bincount(index, weights=data, minlength=len(names))
    counts = np.bincount(index, minlength=len(names)).astype(np.float64)
    draws = np.random.default_rng(seed).integers(0, len(names), size=(resamples, len(names)))
    means = sums[draws].sum(axis=1) / counts[draws].sum(axis=1)
    low, high = np.quantile(means, [(1 - CONFIDENCE) / 2, (1 + CONFIDENCE) / 2])
    center = float(data.mean())
    return Estimate(value=center, low=min(center, float(low)), high=max(center, float(high)), n=len(names))


def sign_test(first: Sequence[float] | Floats, second: Sequence[float] | Floats) -> PairedTest:
    """Exact McNemar test of two models on the same items.

    With outcomes 0 and 1 this is McNemar's exact test; a tie may be 0.5, and then items are counted by which model did better.

    Raises:
        ValueError: If the lengths differ.
    """
    a, b = np.asarray(first, dtype=np.float64), np.asarray(second, dtype=np.float64)
    if a.shape != b.shape:
        raise ValueError(f"a paired test needs equal lengths, got {a.size} and {b.size}")
    first_only, second_only = int((a > b).sum()), int((a < b).sum())
    discordant = first_only + second_only
    p_value = float(stats.binomtest(first_only, discordant).pvalue) if discordant else 1.0
    return PairedTest(first_only=first_only, second_only=second_only, p_value=p_value)


def paired_difference(first: Sequence[float] | Floats, second: Sequence[float] | Floats) -> MeanDifference:
    """Mean of first minus second over the same items, with the paired t test.

    Raises:
        ValueError: If the lengths differ or there are fewer than two items.
    """
    a, b = np.asarray(first, dtype=np.float64), np.asarray(second, dtype=np.float64)
    if a.shape != b.shape or a.size < 2:
        raise ValueError(f"a paired difference needs two items or more on both sides, got {a.size} and {b.size}")
    difference = a - b
    estimate = mean(difference)
    if float(difference.std()) <= 1e-12 * max(1.0, abs(estimate.value)):
        return MeanDifference(estimate=estimate, p_value=1.0 if abs(estimate.value) <= 1e-12 else 0.0)
    return MeanDifference(estimate=estimate, p_value=float(stats.ttest_rel(a, b).pvalue))


def holm(p_values: Sequence[float]) -> list[float]:
    """P-values corrected for their number by Holm's method, in the same order."""
    if not p_values:
        return []
    return [float(p) for p in multipletests(list(p_values), method="holm")[1]]


def spearman(first: Sequence[float] | Floats, second: Sequence[float] | Floats) -> Estimate | None:
    """Spearman's rank correlation with the interval of Bonett and Wright (2000).

    Returns:
        None where it is not defined: fewer than four items, or one side constant.
    """
    a, b = np.asarray(first, dtype=np.float64), np.asarray(second, dtype=np.float64)
    if a.size < 4 or np.ptp(a) == 0 or np.ptp(b) == 0:
        return None
    rho = float(stats.spearmanr(a, b).statistic)
    bounded = min(max(rho, -1 + 1e-12), 1 - 1e-12)
    half = float(stats.norm.ppf(0.5 + CONFIDENCE / 2)) * np.sqrt((1 + bounded**2 / 2) / (a.size - 3))
    low, high = np.tanh(np.arctanh(bounded) - half), np.tanh(np.arctanh(bounded) + half)
    return Estimate(value=rho, low=min(rho, float(low)), high=max(rho, float(high)), n=int(a.size))


def within_group_spearman(first: Floats, second: Floats, groups: Sequence[Hashable]) -> Estimate | None:
    """Spearman's correlation inside each group, averaged over groups, with the t interval over groups.

    Groups of fewer than three items, or where one side is constant, are left out.

    Returns:
        None where fewer than two groups remain; `n` is the number of groups that remain.
    """
    rhos = []
    for members in group_indices(groups):
        a, b = first[members], second[members]
        if a.size >= 3 and np.ptp(a) > 0 and np.ptp(b) > 0:
            rhos.append(float(stats.spearmanr(a, b).statistic))
    return mean(rhos) if len(rhos) >= 2 else None


def group_indices(groups: Sequence[Hashable]) -> list[npt.NDArray[np.int64]]:
    """Indices of the items of each group, groups in the order of their first item."""
    members: dict[Hashable, list[int]] = {}
    for index, group in enumerate(groups):
        members.setdefault(group, []).append(index)
    return [np.array(indices, dtype=np.int64) for indices in members.values()]
