import subprocess
import sys

import pytest

from assay.common.v1 import common_pb2
from assay_kit.topics import (
    ALL_TOPICS,
    CLIENTS,
    DEAD_LETTERS,
    MAX_MESSAGE_BYTES,
    OPERATOR,
    QUALITY_CARDS,
    SERVICES,
    as_markdown,
    topic_named,
)


def test_names_are_unique_and_carry_the_version_of_their_contract():
    names = [topic.name for topic in ALL_TOPICS]
    assert len(set(names)) == len(names) == 11
    assert all(name.startswith("assay.") and name.endswith(".v1") for name in names)


def test_each_topic_has_known_writers_and_readers():
    known = {*SERVICES, CLIENTS, OPERATOR}
    for topic in ALL_TOPICS:
        assert topic.producers and topic.consumers, topic.name
        assert known.issuperset(topic.producers + topic.consumers), topic.name


def test_only_quality_cards_are_compacted():
    assert [topic for topic in ALL_TOPICS if topic.compacted] == [QUALITY_CARDS]
    assert QUALITY_CARDS.configs == {"cleanup.policy": "compact"}


def test_a_dead_letter_has_room_for_a_refused_message_of_full_size():
    letter = common_pb2.DeadLetter(topic=QUALITY_CARDS.name, payload=b"x" * MAX_MESSAGE_BYTES, error="e" * 4096)
    assert letter.ByteSize() < DEAD_LETTERS.max_message_bytes
    assert DEAD_LETTERS.configs == {"max.message.bytes": str(2 * MAX_MESSAGE_BYTES)}


def test_an_unknown_name_is_refused_with_the_names_there_are():
    with pytest.raises(KeyError, match=r"assay\.preferences\.raw\.v1"):
        topic_named("assay.preferences.row.v1")


def test_the_module_prints_the_table_for_the_docs():
    printed = subprocess.run([sys.executable, "-m", "assay_kit.topics"], capture_output=True, text=True, check=True).stdout
    assert printed.strip() == as_markdown()
    assert "| `assay.quality.cards.v1` | model fingerprint | `assay.common.v1.QualityCard` | 1 | newest per key |" in printed
