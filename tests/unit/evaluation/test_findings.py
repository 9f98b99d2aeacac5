import numpy as np
import pytest

from assay_evaluation.findings import (
    Outcome,
    cleaning_findings,
    gold_at_kl,
    gold_findings,
    limits,
    paradigm_findings,
    reward_model_findings,
)

ACCURACY = {"good": 0.8, "middling": 0.7, "bad": 0.55}


def outcome(model, center, *, algorithm="dpo", spread=1.0, n=200, seed=0, **more):
    gold = center + spread * np.random.default_rng(seed).normal(size=n)
    return Outcome(algorithm=algorithm, reward_model=model, gold_per_prompt=gold, kl=more.pop("kl", 2.0), **more)


def leaderboard(**intervals):
    models = [
        {"name": name, "accuracy": {"value": (low + high) / 2, "low": low, "high": high, "n": 600}}
        for name, (low, high) in intervals.items()
    ]
    return {
        "n": 600,
        "models": models,
        "baselines": {"longest_wins": {"value": 0.42, "low": 0.38, "high": 0.46, "n": 600}},
        "tests": [],
    }


def test_a_real_difference_is_told_with_interval_n_and_p():
    first = paradigm_findings([outcome("good", 2.0), outcome("bad", 0.0, seed=1)], ACCURACY)[0]
    assert "In this run the better reward model gave the better policy" in first
    assert "n = 200 prompts" in first and "95 % interval" in first and "p = " in first


def test_no_difference_is_called_a_null_result_with_its_p():
    first = paradigm_findings([outcome("good", 0.0), outcome("bad", 0.0, seed=1)], ACCURACY)[0]
    assert "That is a null result" in first
    assert "gave the better policy" not in first
    assert float(first.split("p = ")[1].split(")")[0]) >= 0.05


def test_a_difference_the_wrong_way_round_is_told_as_such():
    first = paradigm_findings([outcome("good", 0.0), outcome("bad", 2.0, seed=1)], ACCURACY)[0]
    assert "WORSE policy" in first


def test_identical_policies_are_a_null_result():
    assert "null result" in paradigm_findings([outcome("good", 1.0), outcome("bad", 1.0)], ACCURACY)[0]


def test_the_order_of_three_policies_is_told_either_way():
    ordered = paradigm_findings([outcome(m, g) for m, g in [("bad", 0.0), ("good", 2.0), ("middling", 1.0)]], ACCURACY)[1]
    assert ordered.endswith(": the same order.")
    assert ordered.index("good") < ordered.index("middling") < ordered.index("bad")
    assert paradigm_findings([outcome(m, g) for m, g in [("bad", 0.0), ("good", 1.0), ("middling", 2.0)]], ACCURACY)[1].endswith(
        "not the same order."
    )


def test_one_reward_model_shows_nothing_about_quality():
    (only,) = paradigm_findings([outcome("good", 1.0)], ACCURACY)
    assert "says nothing about the quality" in only


def test_ppo_is_compared_at_the_same_kl_too():
    rising = [{"kl": float(k), "gold": 0.5 * k} for k in range(5)]
    flat = [{"kl": 2.0 * k, "gold": 0.2 * k} for k in range(5)]
    sentences = paradigm_findings(
        [outcome("good", 2.0, algorithm="ppo", curve=rising, kl=4.0), outcome("bad", 1.0, algorithm="ppo", curve=flat, kl=8.0)], ACCURACY
    )
    matched = next(sentence for sentence in sentences if "same distance" in sentence)
    assert "KL 4.0 nats" in matched
    assert "gold 2.00 with good, 0.40 with bad" in matched


def test_the_gold_at_a_kl_is_read_off_the_curve():
    curve = [{"kl": 0.0, "gold": 0.0}, {"kl": 2.0, "gold": 1.0}]
    assert gold_at_kl(curve, 0.5) == pytest.approx(0.25)
    assert gold_at_kl(curve, 3.0) is None
    assert gold_at_kl([], 1.0) is None


def test_answers_that_shrink_are_pointed_out():
    chosen = [outcome("good", 2.0, words=8.0), outcome("bad", 0.0, seed=1, words=20.0)]
    assert any("shortens answers: 8 words with good, 24 at the start" in s for s in paradigm_findings(chosen, ACCURACY, 24.0))
    assert not any("shortens" in s for s in paradigm_findings(chosen, ACCURACY, 9.0))


def test_a_model_whose_interval_holds_a_half_does_not_beat_a_coin():
    sentences = reward_model_findings(leaderboard(good=(0.7, 0.8), weak=(0.52, 0.57), coin=(0.47, 0.55)))
    assert "better than a coin and than" in sentences[0]
    # 42 % for "longer wins" is 58 % for "shorter wins".
    assert "not shown to be better than “the shorter answer wins” (58.0 %)" in sentences[1]
    assert "not shown to be better than a coin" in sentences[2]


def test_models_that_cannot_be_told_apart_are_named_with_p():
    board = leaderboard(a=(0.6, 0.7), b=(0.59, 0.69))
    board["tests"] = [
        {"first": "a", "second": "b", "first_only": 40, "second_only": 36, "corrected_p_value": 0.73},
        {"first": "a", "second": "c", "first_only": 10, "second_only": 90, "corrected_p_value": 1e-9},
    ]
    sentences = reward_model_findings(board)
    assert "cannot be told apart" in sentences[-2] and "p = 0.730" in sentences[-2]
    assert sentences[-1].startswith("c is more accurate than a")


def test_a_gold_judge_at_a_coin_carries_nothing_over():
    assert "nothing below carries over" in gold_findings({"accuracy": {"value": 0.51, "low": 0.46, "high": 0.56, "n": 300}})[0]
    assert "only that far" in gold_findings({"accuracy": {"value": 0.62, "low": 0.57, "high": 0.67, "n": 300}})[0]
    assert "not measured against people" in gold_findings(None)[0]


def test_cleaning_without_planted_truth_says_it_cannot_know():
    cleaning = {
        "rows_in": 100,
        "categories": {"same": 80, "opposite": 5, "empty": 15},
        "actions": {"keep": 80, "flip": 5, "drop": 15},
        "planted": None,
    }
    sentences = cleaning_findings(cleaning)
    assert "kept 80 as they were (80.0 %" in sentences[0]
    assert "Empty: 15 pairs" in sentences[1]
    assert "not known" in sentences[2]
    one = {"value": 0.9, "low": 0.8, "high": 0.95, "n": 10}
    assert (
        "Empty precision 90.0 %, recall 90.0 %"
        in cleaning_findings({**cleaning, "planted": {"empty": {"precision": one, "recall": one}}})[2]
    )
    assert cleaning_findings({"rows_in": 0, "actions": {}, "categories": {}}) == ["There were no pairs to clean."]


def test_the_limits_name_the_single_seed_and_the_few_models():
    sentences = " ".join(limits([outcome("good", 1.0, algorithm="ppo")], 3))
    assert "one seed" in sentences and "no correlation" in sentences and "same KL" in sentences
    assert "no correlation" not in " ".join(limits([], 8))
