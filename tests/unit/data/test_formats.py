import pytest

from assay_data.conversations import Message, PreferencePair
from assay_data.formats import RowError, pair_of
from assay_data.pairs import pair_to_dict

QUESTION = "\n\nHuman: How are you?\n\nAssistant:"


def test_an_hh_transcript_is_split_at_its_markers_and_not_at_blank_lines():
    before = "\n\nHuman: Two questions.\n\nFirst: why?\n\nAssistant: Because.\n\nSecond part.\n\nHuman: I see\n\nAssistant:"
    pair = pair_of({"chosen": f"{before} Good.\n\nMore good.", "rejected": f"{before} Bad."})
    assert [turn.role for turn in pair.prompt] == ["user", "assistant", "user"]
    assert pair.prompt[0].content == "Two questions.\n\nFirst: why?"
    assert pair.prompt[1].content == "Because.\n\nSecond part."
    assert (pair.chosen, pair.rejected, pair.rejected_prompt) == ("Good.\n\nMore good.", "Bad.", ())


def test_the_last_turn_of_a_transcript_may_be_empty():
    pair = pair_of({"chosen": f"{QUESTION} ", "rejected": QUESTION})
    assert (pair.chosen, pair.rejected) == ("", "")
    assert pair.prompt == (Message("user", "How are you?"),)


def test_the_two_contexts_of_a_transcript_may_differ():
    pair = pair_of({"chosen": "\n\nHuman: A?\n\nAssistant: a", "rejected": "\n\nHuman: B?\n\nAssistant: b"})
    assert pair.prompt == (Message("user", "A?"),)
    assert pair.rejected_prompt == (Message("user", "B?"),)


def test_words_that_only_look_like_markers_are_text():
    pair = pair_of({"chosen": f"{QUESTION} He said: Human: no\nAssistant: yes", "rejected": f"{QUESTION} b"})
    assert pair.chosen == "He said: Human: no\nAssistant: yes"


@pytest.mark.parametrize(
    "row",
    [
        {"prompt": "Why?", "chosen": "Because.", "rejected": "No."},
        {"prompt": [{"role": "user", "content": "Why?"}], "chosen": "Because.", "rejected": "No."},
        {
            "prompt": [{"role": "user", "content": "Why?"}],
            "chosen": [{"role": "assistant", "content": "Because."}],
            "rejected": [{"role": "assistant", "content": "No."}],
        },
        {
            "chosen": [{"role": "user", "content": "Why?"}, {"role": "assistant", "content": "Because."}],
            "rejected": [{"role": "user", "content": "Why?"}, {"role": "assistant", "content": "No."}],
        },
        {
            "prompt": "Why?",
            "chosen": [{"role": "user", "content": "Why?"}, {"role": "assistant", "content": "Because."}],
            "rejected": [{"role": "user", "content": "Why?"}, {"role": "assistant", "content": "No."}],
        },
        {"prompt": "\n\nHuman: Why?\n\nAssistant:", "chosen": "Because.", "rejected": "No."},
        {"chosen": "\n\nHuman: Why?\n\nAssistant: Because.", "rejected": "\n\nHuman: Why?\n\nAssistant: No."},
    ],
)
def test_every_format_of_one_pair_gives_that_pair(row):
    assert pair_of(row) == PreferencePair((Message("user", "Why?"),), "Because.", "No.")


def test_the_projects_own_format_gives_back_all_of_a_pair():
    pair = PreferencePair(
        (Message("system", "Be kind."), Message("user", "Why?")), "Because.", "", (Message("user", "Who?"),), "s", "test", {"k": "v"}
    )
    back = pair_of(pair_to_dict(pair), source="other", split="train")
    assert back == pair and back.id == pair.id and dict(back.metadata) == {"k": "v"}


@pytest.mark.parametrize(
    ("row", "field", "right"),
    [
        ({"chosen": "x"}, "rejected", "both chosen and rejected"),
        ({"chosen": None, "rejected": "x"}, "chosen", "missing"),
        ([1], "", "a JSON object"),
        ({"chosen": "no marker", "rejected": "none here"}, "chosen", "Human:"),
        ({"chosen": f"{QUESTION} a", "rejected": "plain"}, "rejected", "Human:"),
        ({"chosen": "\n\nHuman: a\n\nAssistant: b\n\nHuman: c", "rejected": f"{QUESTION} a"}, "chosen", "ends with the Assistant's answer"),
        ({"prompt": "Why?", "chosen": 3, "rejected": "x"}, "chosen", "a number"),
        ({"prompt": [{"role": "robot", "content": "x"}], "chosen": "a", "rejected": "b"}, "prompt[0].role", "one of system"),
        ({"prompt": [{"role": "user"}], "chosen": "a", "rejected": "b"}, "prompt[0].content", "a text is wanted"),
        ({"prompt": 7, "chosen": "a", "rejected": "b"}, "prompt", "not a number"),
        ({"chosen": [{"role": "user", "content": "x"}], "rejected": [{"role": "user", "content": "x"}]}, "chosen", "assistant's answer"),
        ({"prompt": "a", "chosen": "b", "rejected": "c", "metadata": "d"}, "metadata", "an object"),
    ],
)
def test_a_row_that_is_no_pair_is_refused_with_field_and_remedy(row, field, right):
    with pytest.raises(RowError) as caught:
        pair_of(row)
    assert caught.value.field == field
    assert right in caught.value.message
