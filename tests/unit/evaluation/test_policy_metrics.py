import numpy as np
import pytest

from assay_evaluation.policy_metrics import PolicySamples, distinct, measure


def samples(gold, *, log_prob=-10.0, reference=-10.0, text="one two") -> PolicySamples:
    gold = np.asarray(gold, dtype=float)
    return PolicySamples(
        texts=[[text] * gold.shape[1]] * gold.shape[0],
        gold=gold,
        log_prob=np.full(gold.shape, log_prob),
        reference_log_prob=np.full(gold.shape, reference),
    )


def test_a_policy_that_is_better_on_every_prompt_wins_everywhere():
    metrics = measure(samples([[2.0], [3.0], [4.0], [5.0], [6.5], [7.0]]), samples([[1.0], [1.5], [1.0], [1.5], [1.0], [1.5]]))
    assert metrics.win_rate is not None and metrics.win_rate.value == 1.0
    assert metrics.win_p_value == pytest.approx(2 / 64)
    assert metrics.gain is not None and metrics.gain.estimate.low > 0


def test_a_tie_is_half_a_win():
    metrics = measure(samples([[1.0], [1.0]]), samples([[1.0], [0.0]]))
    assert metrics.win_rate is not None and metrics.win_rate.value == 0.75


def test_the_reference_is_not_compared_with_itself():
    figures = measure(samples([[1.0], [2.0]]), None).as_dict()
    assert "win_rate" not in figures
    assert figures["gold"]["n"] == 2


def test_the_kl_is_the_mean_difference_of_log_probabilities():
    metrics = measure(samples([[1.0], [2.0]], log_prob=-8.0, reference=-11.5), None)
    assert metrics.kl.value == 3.5


def test_answers_of_one_prompt_are_one_observation():
    metrics = measure(samples([[0.0, 2.0], [1.0, 3.0]]), None)
    assert metrics.gold.n == 2
    assert list(metrics.gold_per_prompt) == [1.0, 2.0]


def test_a_policy_that_repeats_itself_has_low_distinct_n():
    assert distinct(["a b c d"], 1) == 1.0
    assert distinct(["a a a a", "a a a a"], 1) == 1 / 8
    assert distinct(["a b a b"], 2) == 2 / 3
    assert distinct(["", "a"], 2) == 0.0
