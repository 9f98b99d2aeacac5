from assay_data.conversations import Message, PreferencePair
from assay_evaluation.planted import planted_truth
from assay_evaluation.stages.split import held_out_prompts, reduced


def pair(question: str = "Why?", **fields) -> PreferencePair:
    prompt = (Message("user", "Hello"), Message("assistant", "Hi"), Message("user", question))
    return PreferencePair(prompt=prompt, chosen=fields.pop("chosen", "Because."), rejected=fields.pop("rejected", "No."), **fields)


def test_the_last_human_turn_alone_is_kept():
    short = reduced(pair("How?"), "last_turn")
    assert short is not None
    assert short.prompt == (Message("user", "How?"),)
    assert reduced(pair("How?"), "whole") == pair("How?")


def test_pairs_without_one_context_or_with_an_empty_answer_cannot_be_used():
    assert reduced(pair(rejected_prompt=(Message("user", "Else"),)), "whole") is None
    assert reduced(pair(chosen=" "), "last_turn") is None
    assert reduced(PreferencePair(prompt=(), chosen="a", rejected="b"), "whole") is None


def test_whole_prompts_are_held_out_by_the_seed_and_not_by_the_order():
    pairs = [pair(f"Question {i // 2}?", chosen=f"answer {i}") for i in range(40)]
    held = held_out_prompts(pairs, 5, seed=0)
    assert len(held) == 5
    assert held == held_out_prompts(reversed(pairs), 5, seed=0)
    assert held != held_out_prompts(pairs, 5, seed=1)


def test_precision_and_recall_are_counted_against_what_was_planted():
    pairs = [pair(metadata={"planted_category": category}) for category in ("SAME", "SAME", "EMPTY", "EMPTY")]
    rows = [{"category": category} for category in ("same", "empty", "empty", "same")]
    truth = planted_truth(pairs, rows)
    assert truth is not None
    assert truth["empty"]["precision"]["value"] == 0.5
    assert truth["empty"]["recall"] == truth["same"]["recall"]
    assert planted_truth([pair()], [{"category": "same"}]) is None
