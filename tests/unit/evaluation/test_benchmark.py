import numpy as np
import pytest

from assay_evaluation.benchmark import Comparisons, ModelScores, OnPolicyScores, run_benchmark


def comparisons(n: int, chosen_words: float = 10, rejected_words: float = 5) -> Comparisons:
    return Comparisons(
        ids=[f"pair-{i}" for i in range(n)],
        prompts=[f"prompt-{i // 2}" for i in range(n)],
        chosen_words=np.full(n, chosen_words),
        rejected_words=np.full(n, rejected_words),
    )


def scores(name: str, chosen, rejected) -> ModelScores:
    chosen, rejected = np.asarray(chosen, dtype=float), np.asarray(rejected, dtype=float)
    return ModelScores(
        name=name, fingerprint=name * 2, chosen=chosen, rejected=rejected, chosen_tokens=chosen + 5, rejected_tokens=rejected + 5
    )


def test_a_tie_counts_as_half():
    board = run_benchmark(comparisons(4), [scores("m", [1, 1, 0, 1], [0, 1, 1, 0])])
    assert board.models[0].accuracy.value == (1 + 0.5 + 0 + 1) / 4
    assert board.models[0].ties == 1


def test_models_stand_by_accuracy_whatever_the_order_they_are_given_in():
    good, bad = scores("good", [1] * 40, [0] * 40), scores("bad", [0] * 40, [1] * 40)
    for given in ([good, bad], [bad, good]):
        assert [model.name for model in run_benchmark(comparisons(40), given).models] == ["good", "bad"]


def test_turning_all_pairs_round_turns_accuracy_round():
    rng = np.random.default_rng(0)
    chosen, rejected = rng.normal(0.5, 1, 200), rng.normal(0, 1, 200)
    forward = run_benchmark(comparisons(200), [scores("m", chosen, rejected)]).models[0].accuracy
    backward = run_benchmark(comparisons(200), [scores("m", rejected, chosen)]).models[0].accuracy
    assert forward.value == pytest.approx(1 - backward.value)
    assert forward.low == pytest.approx(1 - backward.high)


def test_the_longest_wins_baseline_is_right_where_the_better_answer_is_longer():
    right = run_benchmark(comparisons(30, 10, 5), [scores("m", [1] * 30, [0] * 30)])
    wrong = run_benchmark(comparisons(30, 5, 10), [scores("m", [1] * 30, [0] * 30)])
    assert (right.longest_wins.value, wrong.longest_wins.value) == (1.0, 0.0)
    assert right.coin.value == 0.5
    assert right.coin.low < 0.5 < right.coin.high


def test_every_two_models_are_tested_and_corrected():
    rng = np.random.default_rng(1)
    models = [scores(name, rng.normal(shift, 1, 120), rng.normal(0, 1, 120)) for name, shift in [("a", 3), ("b", 0.1), ("c", 0)]]
    board = run_benchmark(comparisons(120), models)
    by_pair = {(test.first, test.second): test for test in board.tests}
    assert set(by_pair) == {("a", "b"), ("a", "c"), ("b", "c")}
    assert by_pair["a", "b"].corrected_p_value < 0.001
    assert by_pair["b", "c"].corrected_p_value > 0.05
    assert all(test.corrected_p_value >= test.p_value for test in board.tests)


def test_a_score_that_is_the_length_shows_as_length_correlation():
    lengths = np.arange(50, dtype=float)
    model = ModelScores(
        name="long", fingerprint="f", chosen=lengths, rejected=lengths[::-1], chosen_tokens=lengths, rejected_tokens=lengths[::-1]
    )
    assert run_benchmark(comparisons(50), [model]).models[0].length_correlation == pytest.approx(1.0)


def test_the_rank_correlation_is_measured_within_prompts():
    gold = np.tile([1.0, 2.0, 3.0, 4.0], 5)
    prompts = [f"p{i // 4}" for i in range(20)]
    on_policy = {"m": OnPolicyScores(prompts=prompts, proxy=gold + np.repeat(np.arange(5) * -100.0, 4), gold=gold)}
    model = run_benchmark(comparisons(4), [scores("m", [1] * 4, [0] * 4)], on_policy=on_policy).models[0]
    assert model.on_policy_rank_correlation is not None
    assert model.on_policy_rank_correlation.value == pytest.approx(1.0)
    assert model.within_prompt_std is not None
    assert model.within_prompt_std < 0.02


def test_no_pairs_and_scores_that_do_not_fit_are_refused():
    with pytest.raises(ValueError, match="at least one"):
        run_benchmark(comparisons(0), [])
    with pytest.raises(ValueError, match="3 and 3 scores for 4"):
        run_benchmark(comparisons(4), [scores("m", [1] * 3, [0] * 3)])
    with pytest.raises(ValueError, match="not finite"):
        run_benchmark(comparisons(2), [scores("m", [1, float("nan")], [0, 0])])
