"""Intervals that keep their promise also where observations come in clusters."""

import numpy as np
import pytest
from scipy import stats

from assay_reward.statistics import clustered_rate, effective_size, mean, rank_correlation, rate

CLUSTERS, SIZE = 60, 10
MEMBERS = np.repeat(np.arange(CLUSTERS), SIZE)


def alike(rho: float, seed: int) -> np.ndarray:
    """Normal values of which those of a cluster correlate by rho."""
    draw = np.random.default_rng(seed)
    return np.sqrt(rho) * draw.normal(size=CLUSTERS)[MEMBERS] + np.sqrt(1 - rho) * draw.normal(size=MEMBERS.size)


@pytest.mark.parametrize(("successes", "n"), [(0, 7), (3, 7), (7, 7), (123, 1000)])
def test_a_rate_has_scipys_wilson_interval(successes: int, n: int) -> None:
    expected = stats.binomtest(successes, n).proportion_ci(method="wilson")
    found = rate(successes, n)
    assert found is not None and found.n == n
    assert (found.low, found.high) == (pytest.approx(expected.low, abs=1e-12), pytest.approx(expected.high, abs=1e-12))


def test_there_is_no_rate_of_nothing() -> None:
    assert rate(0, 0) is None
    assert clustered_rate(np.zeros(0), np.zeros(0)) is None
    assert clustered_rate(np.zeros(3), np.zeros(3)) is None


@pytest.mark.parametrize("rho", [0.0, 0.2, 0.8])
def test_clustered_values_are_worth_what_their_correlation_leaves(rho: float) -> None:
    worth = np.mean([effective_size(alike(rho, seed), MEMBERS) for seed in range(200)])
    assert worth == pytest.approx(CLUSTERS * SIZE / (1 + (SIZE - 1) * rho), rel=0.12)


def test_values_that_are_the_same_in_each_cluster_are_worth_one_each_and_single_ones_all() -> None:
    assert effective_size(np.arange(CLUSTERS, dtype=float)[MEMBERS], MEMBERS) == pytest.approx(CLUSTERS)
    assert effective_size(np.ones(MEMBERS.size), MEMBERS) == pytest.approx(CLUSTERS)
    assert effective_size(alike(0.0, 1), np.arange(MEMBERS.size)) == MEMBERS.size
    assert effective_size(np.array([1.0, 2.0, 3.0]), np.zeros(3, dtype=int)) == 1


@pytest.mark.parametrize("rho", [0.0, 0.5])
def test_the_interval_of_a_clustered_rate_holds_the_truth_as_often_as_it_says(rho: float) -> None:
    held = plain = 0
    for seed in range(400):
        hits = (alike(rho, seed) > stats.norm.ppf(0.7)).reshape(CLUSTERS, SIZE).sum(axis=1).astype(float)
        found = clustered_rate(hits, np.full(CLUSTERS, float(SIZE)))
        naive = rate(int(hits.sum()), MEMBERS.size)
        assert found is not None and naive is not None
        held += found.low <= 0.3 <= found.high
        plain += naive.low <= 0.3 <= naive.high
    assert held / 400 > 0.915  # 0.95 within sampling error
    assert rho == 0.0 or plain / 400 < 0.85  # what taking them for independent would promise wrongly


def test_a_rate_of_which_all_agree_counts_each_cluster_once() -> None:
    found, once = clustered_rate(np.zeros(8), np.full(8, 45.0)), rate(0, 8)
    assert found is not None and once is not None
    assert (found.value, found.n, found.high) == (0.0, 360, once.high)


def test_means_and_correlations_of_what_is_worth_too_little_are_none_and_of_what_is_worth_less_are_wider() -> None:
    values = alike(0.5, 3)
    full, less = mean(values), mean(values, 100.0)
    assert full is not None and less is not None and less.high - less.low > full.high - full.low and less.n == full.n
    assert mean(values, 1.5) is None
    other = values + alike(0.0, 4)
    near, far = rank_correlation(values, other), rank_correlation(values, other, 50.0)
    assert near is not None and far is not None and far.low < near.low < near.value == far.value
    assert rank_correlation(values, other, 3.0) is None
