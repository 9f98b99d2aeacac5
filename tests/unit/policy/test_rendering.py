import pytest
from support.tiny_models import tiny_tokenizer

from assay_data.conversations import Message
from assay_kit.errors import InvalidArgument
from assay_policy.rendering import Renderer, cut


def test_a_prompt_is_open_for_the_assistants_turn():
    turns = [Message("user", "Hi"), Message("assistant", "Hello"), Message("user", "How?")]
    assert Renderer(tiny_tokenizer()).text(turns) == "\n\nHuman: Hi\n\nAssistant: Hello<|eos|>\n\nHuman: How?\n\nAssistant:"


def test_the_tokens_of_a_prompt_are_those_of_its_text_and_no_more():
    tokenizer = tiny_tokenizer()
    turns = [Message("user", "Hi there")]
    assert tokenizer.decode(Renderer(tokenizer).ids(turns)) == "\n\nHuman: Hi there\n\nAssistant:"


@pytest.mark.parametrize(
    ("written", "read"), [(" Fine.<|eos|>", "Fine."), ("  two", " two"), ("none", "none"), (" <|eos|>", ""), ("<|bos|> x", "x")]
)
def test_an_answer_has_no_special_tokens_and_not_the_templates_space(written: str, read: str):
    tokenizer = tiny_tokenizer()
    assert Renderer(tokenizer).answer(tokenizer(written)["input_ids"]) == read


def test_an_answer_is_cut_before_the_first_stop_text():
    tokenizer = tiny_tokenizer()
    assert Renderer(tokenizer).answer(tokenizer(" one two three")["input_ids"], ["three", " two"]) == "one"
    assert cut("abc", ["x"]) == "abc"


@pytest.mark.parametrize("stop", ["\n\nHuman:", "é", "日本"])
def test_a_stop_text_is_seen_with_the_token_that_completes_it_and_not_before(stop: str):
    tokenizer = tiny_tokenizer()
    stopped = Renderer(tokenizer).stop_test([stop, "never"])
    assert stopped is not None
    ids = tokenizer("A long answer that goes on and on " * 5 + stop)["input_ids"]
    seen = [stopped(ids[:length]) for length in range(1, len(ids) + 1)]
    assert seen == [False] * (len(ids) - 1) + [True]


def test_there_is_no_stop_test_without_stop_texts():
    assert Renderer(tiny_tokenizer()).stop_test([]) is None


def test_a_tokenizer_without_a_template_is_refused():
    tokenizer = tiny_tokenizer()
    tokenizer.chat_template = None
    with pytest.raises(InvalidArgument, match="no chat template"):
        Renderer(tokenizer)


def test_what_the_template_refuses_is_the_conversations_fault():
    tokenizer = tiny_tokenizer()
    tokenizer.chat_template = "{{ raise_exception('system turns are not supported') }}"
    with pytest.raises(InvalidArgument, match="system turns are not supported") as refused:
        Renderer(tokenizer).ids([Message("system", "x")])
    assert refused.value.violations[0][0] == "conversation"
