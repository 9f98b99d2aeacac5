"""Topics of a test's own on the real broker, and what is read back from them."""

import time
import uuid
from collections.abc import Callable

from assay.common.v1 import common_pb2
from assay_kit.kafka import EventProducer, KafkaConnection, Output, Record, collect, ensure_topics
from assay_kit.topics import CLIENTS, DEAD_LETTERS, Topic


def topic_of(name: str, *, partitions: int = 3, compacted: bool = False) -> Topic:
    return Topic(
        name=name,
        key="number",
        message=common_pb2.PreferencePair,
        partitions=partitions,
        compacted=compacted,
        producers=(CLIENTS,),
        consumers=(CLIENTS,),
    )


def fresh_topics(connection: KafkaConnection, *names: str, partitions: int = 3) -> list[Topic]:
    mark = uuid.uuid4().hex[:8]
    topics = [topic_of(f"test.{name}.{mark}.v1", partitions=partitions) for name in names]
    ensure_topics(connection, (*topics, DEAD_LETTERS))
    return topics


def pair(number: int, **metadata: str) -> common_pb2.PreferencePair:
    return common_pb2.PreferencePair(id=str(number), chosen="yes", rejected="no", metadata=metadata)


def publish(connection: KafkaConnection, topic: Topic, numbers: range) -> None:
    producer = EventProducer(connection, "test")
    for number in numbers:
        producer.send(topic, str(number), pair(number))
    producer.close()


def answers_in(topic: Topic, **metadata: str) -> Callable[[list[Record]], list[list[Output]]]:
    """A handler that answers each pair with the same pair in another topic."""

    def handle(records: list[Record]) -> list[list[Output]]:
        return [[Output(topic, record.message.id, pair(int(record.message.id), **metadata))] for record in records]

    return handle


def read(connection: KafkaConnection, topic: Topic, number: int, *, timeout_s: float = 30.0, settle_s: float = 0.0) -> list[Record]:
    """The first `number` committed records of a topic, and what comes within `settle_s` seconds after them."""
    seen: list[Record] = []
    settled_at: list[float] = []

    def wanted(record: Record) -> bool:
        seen.append(record)
        return True

    def until() -> bool:
        if len(seen) >= number and not settled_at:
            settled_at.append(time.monotonic() + settle_s)
        return bool(settled_at) and time.monotonic() >= settled_at[0]

    return collect(connection, topic, start={}, wanted=wanted, until=until, timeout_s=timeout_s)


def numbers_of(records: list[Record]) -> list[int]:
    return sorted(int(record.message.id) for record in records)
