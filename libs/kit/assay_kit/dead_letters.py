"""The dead letters: `python -m assay_kit.dead_letters list|replay [--topic T]`.

`replay` sends each letter's record back to where it came from, as it was, once: the letters of a topic and the offset after
the last one sent back travel in one Kafka transaction, under the group `assay-dead-letters-replay.<topic>`.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from kafka.errors import KafkaError
from kafka.structs import ConsumerGroupMetadata, TopicPartition

from assay.common.v1 import common_pb2
from assay_kit.errors import AssayError, Unavailable
from assay_kit.groups import REPLAY
from assay_kit.kafka_access import KafkaAccess
from assay_kit.kafka_connection import KafkaConnection, partitions_of
from assay_kit.kafka_records import Encoded, Rejected, parse
from assay_kit.kafka_transactions import TransactionalProducer
from assay_kit.settings import ServiceSettings
from assay_kit.topics import ALL_TOPICS, DEAD_LETTERS

REPLAYED_HEADER = "assay-replayed-from"
"""Added to a record sent back: partition and offset of its letter."""
_AT_ONCE = 200  # records in a transaction
_READ_TIMEOUT_S = 30.0


@dataclass(frozen=True)
class StoredLetter:
    """A dead letter and where it is."""

    partition: TopicPartition
    offset: int
    letter: common_pb2.DeadLetter


def letters(connection: KafkaConnection, topic: str = "") -> list[StoredLetter]:
    """All dead letters that are kept, or those of one topic, oldest first.

    Raises:
        Unavailable: the brokers do not answer.
    """
    consumer = connection.consumer(client_id="assay-dead-letters")
    try:
        return [stored for stored in _read(consumer) if topic in ("", stored.letter.topic)]
    except KafkaError as error:
        raise Unavailable(f"the dead letters could not be read: {error!r}") from error
    finally:
        consumer.close(timeout_ms=2_000)


def replay(connection: KafkaConnection, topic: str = "") -> dict[str, int]:
    """Sends the letters of all topics, or of one, back to where they came from, each once; how many, by topic.

    Two replays at once do not send a letter twice: the later one shuts out the earlier.

    Raises:
        Unavailable: the brokers do not answer or refuse; what was sent back is remembered, the rest is still there.
    """
    kept = letters(connection, topic)
    return {name: _replay_topic(connection, name, [one for one in kept if one.letter.topic == name]) for name in _topics_of(kept)}


def replayed_up_to(connection: KafkaConnection, topic: str) -> dict[TopicPartition, int]:
    """The offset after the last letter of a topic that was sent back, by partition of the dead letters.

    Raises:
        Unavailable: the brokers do not answer.
    """
    consumer = connection.consumer(client_id="assay-dead-letters", group=_group(topic))
    try:
        found = {partition: consumer.committed(partition, timeout_ms=10_000) for partition in partitions_of(consumer, DEAD_LETTERS)}
    except KafkaError as error:
        raise Unavailable(f"what was sent back already could not be read: {error!r}") from error
    finally:
        consumer.close(timeout_ms=2_000)
    return {partition: offset or 0 for partition, offset in found.items()}


def _replay_topic(connection: KafkaConnection, topic: str, kept: Sequence[StoredLetter]) -> int:
    # The producer comes first: it settles or shuts out any other replay, so that what is committed is final when it is read.
    producer = TransactionalProducer(connection, _group(topic), client_id="assay-dead-letters")
    try:
        done = replayed_up_to(connection, topic)
        fresh = [one for one in kept if one.offset >= done[one.partition]]
        for at in range(0, len(fresh), _AT_ONCE):
            some = fresh[at : at + _AT_ONCE]
            offsets = {one.partition: one.offset + 1 for one in some}
            producer.commit([_as_it_was(one) for one in some], offsets, ConsumerGroupMetadata(group_id=_group(topic)))
    except KafkaError as error:
        producer.discard()
        raise Unavailable(f"the letters of {topic} could not be sent back: {error!r}") from error
    except BaseException:
        producer.discard()
        raise
    producer.close()
    return len(fresh)


def _as_it_was(stored: StoredLetter) -> Encoded:
    letter = stored.letter
    headers = dict(letter.headers) | {REPLAYED_HEADER: f"{stored.partition.partition}/{stored.offset}"}
    return Encoded(
        topic=letter.topic,
        key=letter.key or None,
        value=letter.payload,
        headers=[(name, text.encode()) for name, text in headers.items()],
    )


def _read(consumer: Any) -> Iterator[StoredLetter]:
    partitions = partitions_of(consumer, DEAD_LETTERS)
    consumer.assign(partitions)
    consumer.seek_to_beginning(*partitions)
    ends = consumer.end_offsets(partitions, timeout_ms=10_000)
    deadline = time.monotonic() + _READ_TIMEOUT_S
    while any(consumer.position(partition, timeout_ms=10_000) < end for partition, end in ends.items()):
        polled = consumer.poll(timeout_ms=500)
        for partition, records in polled.items():
            for raw in records:
                try:
                    yield StoredLetter(partition, raw.offset, parse(DEAD_LETTERS, raw).message)
                except Rejected as error:
                    print(f"{raw.topic}/{raw.partition} offset {raw.offset} is no dead letter: {error}", file=sys.stderr)
        if polled:
            deadline = time.monotonic() + _READ_TIMEOUT_S
        elif time.monotonic() > deadline:
            raise Unavailable(f"the brokers sent no dead letters for {_READ_TIMEOUT_S:g} s")


def _topics_of(kept: Sequence[StoredLetter]) -> list[str]:
    return sorted({one.letter.topic for one in kept})


def _group(topic: str) -> str:
    """Of one topic's letters, so that replaying one topic passes over no other's."""
    return REPLAY + topic


def main(argv: Sequence[str] | None = None) -> int:
    """The command; returns its exit code: 0 done, 2 wrong usage, 3 Kafka does not answer."""
    parser = argparse.ArgumentParser(prog="python -m assay_kit.dead_letters", description="Look at the dead letters, or send them back.")
    parser.add_argument("action", choices=["list", "replay"])
    parser.add_argument("--topic", default="", metavar="TOPIC", help="only letters of this topic")
    parser.add_argument("--json", action="store_true", help="one JSON object a line")
    parser.add_argument("--bootstrap", default=os.environ.get("ASSAY_KAFKA_BOOTSTRAP", ""), help="host:port; default ASSAY_KAFKA_BOOTSTRAP")
    asked = parser.parse_args(argv)
    if not asked.bootstrap:
        parser.error("no broker: give --bootstrap host:port or set ASSAY_KAFKA_BOOTSTRAP")
    names = [topic.name for topic in ALL_TOPICS]
    if asked.topic not in ("", *names):
        parser.error(f"there is no topic {asked.topic}; the topics are {', '.join(names)}")
    access = KafkaAccess.from_settings(ServiceSettings())
    connection = KafkaConnection(asked.bootstrap, access=access)
    try:
        if asked.action == "list":
            _print_letters(connection, asked.topic, as_json=asked.json)
        else:
            _print_replayed(replay(connection, asked.topic), as_json=asked.json)
    except AssayError as error:
        print(error.message, file=sys.stderr)
        return 3
    return 0


def _print_letters(connection: KafkaConnection, topic: str, *, as_json: bool) -> None:
    kept = letters(connection, topic)
    done = {name: replayed_up_to(connection, name) for name in _topics_of(kept)}
    for one in kept:
        letter = one.letter
        sent_back = one.offset < done[letter.topic][one.partition]
        if as_json:
            fields = {
                "letter": one.offset,
                "topic": letter.topic,
                "partition": letter.partition,
                "offset": letter.offset,
                "key": letter.key.decode(errors="replace"),
                "bytes": len(letter.payload),
                "group": letter.consumer_group,
                "refused_at": letter.refused_at.ToJsonString(),
                "replayed": sent_back,
                "error": letter.error,
            }
            print(json.dumps(fields))
        else:
            state = "sent back" if sent_back else "kept"
            where = f"{letter.topic}/{letter.partition} offset {letter.offset}"
            print(f"{letter.refused_at.ToJsonString()}  {where}  {state}  {letter.error}")
    if not as_json:
        print(f"{len(kept)} dead letters")


def _print_replayed(sent: dict[str, int], *, as_json: bool) -> None:
    if as_json:
        print(json.dumps(sent))
        return
    for topic, number in sent.items():
        print(f"{topic}: {number} sent back")
    print(f"{sum(sent.values())} dead letters sent back")


if __name__ == "__main__":
    raise SystemExit(main())
