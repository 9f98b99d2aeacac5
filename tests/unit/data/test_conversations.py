import pickle

import pytest

from assay.common.v1 import common_pb2
from assay_data.conversations import Message, PreferencePair, prompt_key
from assay_data.wire import from_proto, to_proto

HELLO = (Message("user", "Hello?"),)
LONGER = (*HELLO, Message("assistant", "Hi."), Message("user", "How are you?"))


def test_the_id_is_a_hash_of_the_content_and_of_nothing_else():
    pair = PreferencePair(HELLO, "Hi.", "Go away.")
    assert len(pair.id) == 32 and int(pair.id, 16) >= 0
    assert PreferencePair(HELLO, "Hi.", "Go away.", source="elsewhere", split="test", metadata={"a": "b"}).id == pair.id
    others = [
        PreferencePair(HELLO, "Hi!", "Go away."),
        PreferencePair(HELLO, "Go away.", "Hi."),
        PreferencePair(LONGER, "Hi.", "Go away."),
        PreferencePair(HELLO, "Hi.", "Go away.", rejected_prompt=LONGER),
        PreferencePair((Message("system", "Hello?"),), "Hi.", "Go away."),
    ]
    assert len({pair.id, *(other.id for other in others)}) == 6


def test_ids_and_keys_stay_what_they_are():
    assert PreferencePair(HELLO, "Hi.", "Go away.").id == "65deebb75d0fa65697c2f77326207d70"
    assert prompt_key(HELLO) == prompt_key(PreferencePair(HELLO, "a", "b")) == "e23f2253007d184af3b5b20686647a06"


def test_a_pair_turned_round_twice_is_the_pair():
    pair = PreferencePair(HELLO, "Hi.", "Go away.", rejected_prompt=LONGER, source="s", metadata={"a": "b"})
    turned = pair.turned_round()
    assert (turned.chosen, turned.rejected, turned.prompt, turned.rejected_prompt) == ("Go away.", "Hi.", LONGER, HELLO)
    assert turned.turned_round() == pair
    assert turned.turned_round().id == pair.id


def test_a_pair_and_the_pair_turned_round_have_one_prompt_key():
    pair = PreferencePair(LONGER, "Fine.", "Bad.", rejected_prompt=(*HELLO, Message("assistant", "Yes?"), Message("user", "How are you?")))
    assert prompt_key(pair) == prompt_key(pair.turned_round())
    assert prompt_key(PreferencePair(LONGER, "x", "y")) != prompt_key(PreferencePair(HELLO, "x", "y"))


def test_the_wire_carries_all_of_a_pair():
    pair = PreferencePair(LONGER, "Fine.", "", rejected_prompt=HELLO, source="s", split="test", metadata={"planted": "yes"})
    message = to_proto(pair)
    assert message.id == pair.id
    back = from_proto(common_pb2.PreferencePair.FromString(message.SerializeToString()))
    assert back == pair
    assert dict(back.metadata) == {"planted": "yes"}


def test_the_wire_names_the_message_whose_role_is_not_set():
    message = common_pb2.PreferencePair(prompt=[common_pb2.Message(role=common_pb2.ROLE_USER), common_pb2.Message(content="x")])
    with pytest.raises(ValueError, match=r"^prompt\[1\]\.role: 0 is no role; one of ROLE_SYSTEM"):
        from_proto(message)


def test_a_pair_survives_pickling():
    pair = PreferencePair(HELLO, "Hi.", "Go away.")
    assert pickle.loads(pickle.dumps(pair)) == pair
