import numpy as np

from assay_data.conversations import Message
from assay_evaluation.samples import Answer, PromptSamples, from_row, to_row
from assay_evaluation.stages.label import best_and_worst, random_pairs


def prompt_samples(number: int, n: int = 4) -> PromptSamples:
    return PromptSamples(
        prompt_id=f"p{number}",
        prompt=(Message("user", f"Question {number}?"),),
        answers=tuple(Answer(text=f"answer {number} {i}", tokens=(i,), log_prob=-1.0) for i in range(n)),
    )


def test_the_better_sample_is_the_chosen_one_and_none_is_used_twice():
    samples = [prompt_samples(i, 6) for i in range(3)]
    scores = [np.arange(6.0) for _ in samples]
    pairs = random_pairs(samples, scores, count=0, seed=1)
    assert len(pairs) == 9
    assert all(int(pair.chosen[-1]) > int(pair.rejected[-1]) for pair in pairs)
    used = [text for pair in pairs for text in (pair.chosen, pair.rejected)]
    assert len(used) == len(set(used))


def test_each_prompt_gives_one_pair_before_any_gives_two():
    samples = [prompt_samples(i) for i in range(5)]
    pairs = random_pairs(samples, [np.arange(4.0)] * 5, count=7, seed=0)
    assert len(pairs) == 7
    assert len({pair.prompt for pair in pairs[:5]}) == 5


def test_the_pairs_are_the_same_for_the_same_seed_only():
    samples, scores = [prompt_samples(i, 8) for i in range(4)], [np.arange(8.0)] * 4
    first = [pair.id for pair in random_pairs(samples, scores, count=0, seed=0)]
    assert first == [pair.id for pair in random_pairs(samples, scores, count=0, seed=0)]
    assert first != [pair.id for pair in random_pairs(samples, scores, count=0, seed=1)]


def test_samples_that_a_judge_cannot_tell_apart_make_no_pair():
    assert random_pairs([prompt_samples(0)], [np.zeros(4)], count=0, seed=0) == []
    assert list(best_and_worst([prompt_samples(0)], [np.zeros(4)])) == []


def test_best_and_worst_takes_the_two_ends():
    (pair,) = best_and_worst([prompt_samples(0)], [np.array([0.3, 2.0, -1.0, 0.0])])
    assert (pair.chosen, pair.rejected) == ("answer 0 1", "answer 0 2")
    assert pair.metadata["score_chosen"] == "2.000000"


def test_samples_survive_the_file():
    samples = prompt_samples(3)
    assert from_row(to_row(samples)) == samples
