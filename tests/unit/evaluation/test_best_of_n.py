import itertools

import numpy as np
import pytest

from assay_evaluation.best_of_n import best_of_n_kl, curve, expected_of_chosen, sizes


def by_enumeration(proxy, value, n):
    picks = []
    for subset in itertools.combinations(range(len(proxy)), n):
        best = max(proxy[i] for i in subset)
        picks.append(np.mean([value[i] for i in subset if proxy[i] == best]))
    return np.mean(picks)


@pytest.mark.parametrize("n", [1, 2, 3, 5, 7])
def test_the_estimate_is_the_mean_over_all_subsets(n):
    rng = np.random.default_rng(n)
    proxy, value = rng.normal(size=7), rng.normal(size=7)
    assert expected_of_chosen(proxy, value, n) == pytest.approx(by_enumeration(proxy, value, n))


def test_samples_with_equal_scores_share_their_weight():
    value = np.array([1.0, 2.0, 6.0])
    assert expected_of_chosen(np.zeros(3), value, 3) == pytest.approx(3.0)
    assert expected_of_chosen(np.zeros(3), value, 2) == pytest.approx(3.0)


def test_choosing_by_gold_itself_never_gets_worse_with_n():
    gold = list(np.random.default_rng(0).normal(size=(20, 16)))
    values = [point.gold.value for point in curve(gold, gold)]
    assert values == sorted(values)
    assert values[-1] == pytest.approx(np.mean([g.max() for g in gold]))


def test_choosing_by_the_opposite_of_gold_gets_worse_with_n():
    gold = list(np.random.default_rng(0).normal(size=(20, 16)))
    values = [point.gold.value for point in curve([-g for g in gold], gold)]
    assert values == sorted(values, reverse=True)


def test_the_kl_is_the_closed_form():
    assert best_of_n_kl(1) == 0
    assert best_of_n_kl(16) == pytest.approx(np.log(16) - 15 / 16)


def test_sizes_are_powers_of_two_and_the_whole():
    assert sizes(16) == [1, 2, 4, 8, 16]
    assert sizes(12) == [1, 2, 4, 8, 12]
    assert sizes(1) == [1]


def test_one_prompt_or_scores_that_do_not_fit_are_refused():
    with pytest.raises(ValueError, match="two prompts"):
        curve([np.zeros(4)], [np.zeros(4)])
    with pytest.raises(ValueError, match="proxy and a gold"):
        curve([np.zeros(4), np.zeros(3)], [np.zeros(4), np.zeros(4)])
