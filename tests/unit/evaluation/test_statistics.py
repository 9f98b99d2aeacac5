import numpy as np
import pytest

from assay_evaluation.statistics import (
    clustered_mean,
    holm,
    mean,
    paired_difference,
    sign_test,
    spearman,
    wilson,
    within_group_spearman,
)


def test_wilson_gives_the_textbook_interval():
    # Newcombe 1998, Statistics in Medicine 17:857, table I: 81 of 263.
    estimate = wilson(81, 263)
    assert (round(estimate.low, 4), round(estimate.high, 4)) == (0.2553, 0.3662)


def test_wilson_of_none_of_twenty_stays_within_zero_and_one():
    estimate = wilson(0, 20)
    assert estimate.low == 0.0
    assert estimate.high == pytest.approx(0.1611, abs=1e-4)


def test_wilson_of_nothing_says_nothing():
    assert wilson(0, 0).as_dict() == {"value": 0.5, "low": 0.0, "high": 1.0, "n": 0}


def test_wilson_refuses_more_successes_than_trials():
    with pytest.raises(ValueError, match=r"0\.\.3"):
        wilson(4, 3)


def test_the_mean_has_students_interval():
    estimate = mean([1.0, 2.0, 3.0, 4.0, 5.0])
    assert estimate.value == 3.0
    assert estimate.high - 3.0 == pytest.approx(2.776445 * np.sqrt(2.5 / 5), abs=1e-5)


def test_the_mean_of_nothing_is_refused():
    with pytest.raises(ValueError, match="no values"):
        mean([])


def test_a_clustered_interval_is_wider_where_items_of_a_group_agree():
    values = np.repeat(np.tile([0.0, 1.0], 25), 8)
    groups = np.repeat(np.arange(50), 8)
    clustered = clustered_mean(values, list(groups), seed=0)
    independent = wilson(float(values.sum()), values.size)
    assert clustered.n == 50
    assert clustered.high - clustered.low > 2 * (independent.high - independent.low)


def test_a_clustered_interval_is_the_same_for_the_same_seed():
    values, groups = np.random.default_rng(0).normal(size=40), [i // 4 for i in range(40)]
    assert clustered_mean(values, groups, seed=3) == clustered_mean(values, groups, seed=3)
    assert clustered_mean(values, groups, seed=3) != clustered_mean(values, groups, seed=4)


def test_mcnemar_counts_discordant_items_and_is_exact():
    first = [1] * 9 + [0] * 1 + [1] * 20
    second = [0] * 9 + [1] * 1 + [1] * 20
    test = sign_test(first, second)
    assert (test.first_only, test.second_only) == (9, 1)
    assert test.p_value == pytest.approx(22 / 1024)


def test_mcnemar_of_equal_models_is_one():
    assert sign_test([1, 0, 1], [1, 0, 1]).p_value == 1.0


def test_a_tie_counts_as_worse_than_a_win_and_better_than_a_loss():
    test = sign_test([0.5, 0.5, 1.0], [0.0, 1.0, 1.0])
    assert (test.first_only, test.second_only) == (1, 1)


def test_paired_tests_refuse_unequal_lengths():
    with pytest.raises(ValueError, match="equal lengths"):
        sign_test([1.0], [1.0, 0.0])
    with pytest.raises(ValueError, match="two items"):
        paired_difference([1.0], [0.0])


def test_the_paired_difference_is_positive_where_the_first_is_better():
    difference = paired_difference([2.0, 3.0, 4.0, 5.0], [1.0, 2.5, 3.0, 3.5])
    assert difference.estimate.value == 1.0
    assert difference.estimate.low > 0
    assert difference.p_value < 0.05


def test_a_difference_that_never_varies_is_certain():
    assert paired_difference([1.0, 1.0], [1.0, 1.0]).p_value == 1.0
    assert paired_difference([2.0, 2.0], [1.0, 1.0]).p_value == 0.0


def test_holm_multiplies_the_smallest_most_and_keeps_the_order():
    assert holm([0.04, 0.01, 0.03]) == pytest.approx([0.06, 0.03, 0.06])
    assert holm([]) == []


def test_spearman_is_one_for_any_rising_relation():
    estimate = spearman([1, 2, 3, 4, 5, 6], [1, 8, 27, 64, 125, 216])
    assert estimate is not None
    assert estimate.value == pytest.approx(1.0)


def test_spearman_is_not_defined_for_a_constant():
    assert spearman([1, 1, 1, 1, 1], [1, 2, 3, 4, 5]) is None
    assert spearman([1, 2, 3], [1, 2, 3]) is None


def test_spearman_has_the_interval_of_bonett_and_wright():
    rng = np.random.default_rng(0)
    x = rng.normal(size=50)
    estimate = spearman(x, x + rng.normal(size=50))
    assert estimate is not None
    half = 1.959964 * np.sqrt((1 + estimate.value**2 / 2) / 47)
    assert estimate.low == pytest.approx(np.tanh(np.arctanh(estimate.value) - half), abs=1e-5)


def test_correlation_within_groups_ignores_what_lies_between_them():
    # Between groups the relation rises, within each it falls.
    first = np.array([1.0, 2, 3, 11, 12, 13])
    second = np.array([3.0, 2, 1, 13, 12, 11])
    estimate = within_group_spearman(first, second, ["a"] * 3 + ["b"] * 3)
    assert estimate is not None
    assert (estimate.value, estimate.n) == (-1.0, 2)


def test_correlation_within_groups_leaves_out_groups_without_spread():
    estimate = within_group_spearman(np.array([1.0, 1, 1, 1, 2, 3]), np.array([1.0, 2, 3, 1, 2, 3]), ["a"] * 3 + ["b"] * 3)
    assert estimate is None
