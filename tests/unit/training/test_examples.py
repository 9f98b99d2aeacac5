from collections.abc import Sequence

import pytest
from transformers import PreTrainedTokenizerFast

from assay_data.conversations import Message, PreferencePair
from assay_training.examples import Encoded, as_turns, chosen_and_rejected, encode, render, token_ids
from assay_training.flips import flipped
from assay_training.tokenizer import EOS, train_tokenizer

TEXTS = ["\n\nHuman: How do I bake bread?\n\nAssistant: Mix flour and water, and let it rise.", "\n\nHuman: Why?\n\nAssistant: Who knows."]


@pytest.fixture(scope="module")
def tokenizer() -> PreTrainedTokenizerFast:
    return train_tokenizer(TEXTS, vocab_size=340, max_context_tokens=128)


PROMPT = (
    Message("system", "Be kind."),
    Message("user", " How do I bake bread? "),
    Message("assistant", "Why?"),
    Message("user", "Hunger."),
)


@pytest.mark.parametrize("answer", ["Mix flour.", " Mix flour. ", ":) 😀", "1. a\n2. b", ""])
def test_prompt_and_answer_are_the_tokens_of_the_whole_conversation(tokenizer: PreTrainedTokenizerFast, answer: str) -> None:
    (example,) = encode(tokenizer, [(PROMPT, answer)])
    turns = [*as_turns(PROMPT), {"role": "assistant", "content": answer}]
    assert example.ids == tokenizer.apply_chat_template(turns, return_dict=False)
    assert example.prompt_ids == tokenizer.apply_chat_template(as_turns(PROMPT), add_generation_prompt=True, return_dict=False)
    assert example.answer_ids[-1] == tokenizer.eos_token_id


def test_what_was_generated_is_scored_as_the_tokens_that_were_generated(tokenizer: PreTrainedTokenizerFast) -> None:
    (example,) = encode(tokenizer, [(PROMPT, "Mix flour and water.")])
    generated = tokenizer.decode(example.answer_ids, skip_special_tokens=True)
    assert generated.startswith(" ")
    assert encode(tokenizer, [(PROMPT, generated)]) == [example]


def test_every_answer_of_the_assistant_ends_with_the_end_mark(tokenizer: PreTrainedTokenizerFast) -> None:
    (text,) = render(tokenizer, [as_turns(PROMPT)], generation=True)
    assert text == f"\n\nSystem: Be kind.\n\nHuman: How do I bake bread?\n\nAssistant: Why?{EOS}\n\nHuman: Hunger.\n\nAssistant:"


def test_the_tokenizer_depends_on_the_texts_alone_and_knows_every_byte(tokenizer: PreTrainedTokenizerFast) -> None:
    again = train_tokenizer(TEXTS, vocab_size=340, max_context_tokens=128)
    assert again.get_vocab() == tokenizer.get_vocab() and len(again) <= 340
    text = "ñ \x00 漢字 😀"
    assert tokenizer.decode(token_ids(tokenizer, [text])[0]) == text


def test_the_oldest_of_the_prompt_goes_first_and_the_answer_is_cut_last() -> None:
    example = Encoded(list(range(10)), [100, 101, 102])
    assert example.fitted(20) == example
    assert example.fitted(8) == Encoded([5, 6, 7, 8, 9], [100, 101, 102])
    long = Encoded(list(range(10)), list(range(100, 140)))
    cut = long.fitted(16)
    assert cut == Encoded([6, 7, 8, 9], list(range(100, 112)))


def test_a_reward_model_sees_answers_whole() -> None:
    example = Encoded(list(range(10)), list(range(100, 112)))
    assert example.with_whole_answer(16) == Encoded([6, 7, 8, 9], list(range(100, 112)))
    assert example.with_whole_answer(12) == Encoded([], list(range(100, 112)))
    assert example.with_whole_answer(30) == example
    with pytest.raises(ValueError, match="12 tokens"):
        example.with_whole_answer(11)


def pair(number: int, **fields: Sequence[Message]) -> PreferencePair:
    return PreferencePair((Message("user", f"q{number}"),), f"good {number}", f"bad {number}", **fields)  # type: ignore[arg-type]


def test_an_answer_with_a_context_of_its_own_keeps_it() -> None:
    own = (Message("user", "other"),)
    chosen, rejected = chosen_and_rejected([pair(1, rejected_prompt=own), pair(2)])
    assert chosen == [((Message("user", "q1"),), "good 1"), ((Message("user", "q2"),), "good 2")]
    assert rejected == [(own, "bad 1"), ((Message("user", "q2"),), "bad 2")]


def test_flips_are_exactly_as_many_as_asked_and_decided_by_the_seed() -> None:
    pairs = [pair(number) for number in range(100)]
    noisy, count = flipped(pairs, rate=0.25, seed=5)
    turned = {index for index, (before, after) in enumerate(zip(pairs, noisy, strict=True)) if after == before.turned_round()}
    assert count == len(turned) == 25
    assert flipped(pairs, rate=0.25, seed=5) == (noisy, 25)
    assert flipped(pairs, rate=0.25, seed=6) != (noisy, 25)
    worse, _ = flipped(pairs, rate=0.4, seed=5)
    assert turned < {index for index, after in enumerate(worse) if after != pairs[index]}
    assert flipped(pairs, rate=0.0, seed=5) == (pairs, 0)
