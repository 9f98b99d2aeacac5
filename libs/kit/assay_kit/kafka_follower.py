"""Reading without a group: following a topic from its beginning, and gathering the answers to what one has asked."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from kafka.errors import KafkaError
from kafka.structs import TopicPartition

from assay_kit.errors import Unavailable
from assay_kit.kafka_backoff import Backoff
from assay_kit.kafka_connection import KafkaConnection, partitions_of
from assay_kit.kafka_metrics import RECORDS
from assay_kit.kafka_records import Record, Rejected, parse
from assay_kit.topics import Topic

logger = logging.getLogger(__name__)

_POLL_MS = 200


@dataclass
class _Wait:
    """Somebody waits until all that is in the topic now was delivered."""

    done: threading.Event = field(default_factory=threading.Event)
    until: dict[TopicPartition, int] | None = None


class TopicFollower:
    """Delivers each committed record of a topic, from the first, to a callback, in a thread of its own.

    After a failure of the brokers it goes on where it was. Where the callback raises, the same record comes again after a
    pause. A record that cannot be parsed is logged, counted and passed over: who follows has no say in what others wrote.
    """

    def __init__(self, connection: KafkaConnection, topic: Topic, on_record: Callable[[Record], None]) -> None:
        self._connection = connection
        self._topic = topic
        self._on_record = on_record
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name=f"{topic.name}-follower", daemon=True)
        self._backoff = Backoff()
        self._next: dict[TopicPartition, int] = {}
        self._lock = threading.Lock()
        self._waits: list[_Wait] = []

    def start(self) -> None:
        """Begins; returns at once, also where the brokers do not answer yet."""
        self._thread.start()

    def stop(self) -> None:
        """Ends after the record at work."""
        self._stop.set()
        if self._thread.ident is not None:
            self._thread.join(30.0)

    def caught_up(self, timeout_s: float) -> bool:
        """Waits until all that was in the topic at the time of the call was delivered; whether it was."""
        wait = _Wait()
        with self._lock:
            self._waits.append(wait)
        try:
            return wait.done.wait(timeout_s)
        finally:
            with self._lock:
                self._waits.remove(wait)

    def _run(self) -> None:
        while not self._stop.is_set():
            try:
                self._follow()
            except Exception as error:
                pause = self._backoff.next()
                told = None if isinstance(error, Unavailable) else error
                logger.error("following %s failed, next try in %.1f s: %r", self._topic.name, pause, error, exc_info=told)
                self._stop.wait(pause)

    def _follow(self) -> None:
        consumer = self._connection.consumer(client_id="assay-follower")
        try:
            partitions = partitions_of(consumer, self._topic)
            consumer.assign(partitions)
            for partition in partitions:
                if partition in self._next:
                    consumer.seek(partition, self._next[partition])
                else:
                    consumer.seek_to_beginning(partition)
            while not self._stop.is_set():
                for records in consumer.poll(timeout_ms=_POLL_MS).values():
                    for raw in records:
                        if self._stop.is_set():
                            return
                        self._deliver(raw)
                        self._next[TopicPartition(raw.topic, raw.partition)] = raw.offset + 1
                self._backoff.succeeded()
                self._wake(consumer, partitions)
        finally:
            consumer.close(timeout_ms=2_000)

    def _deliver(self, raw: Any) -> None:
        try:
            record = parse(self._topic, raw)
        except Rejected as error:
            RECORDS.labels(self._topic.name, "unreadable").inc()
            logger.error("%s/%d offset %d is passed over: %s", raw.topic, raw.partition, raw.offset, error.reason)
            return
        self._on_record(record)
        RECORDS.labels(self._topic.name, "processed").inc()

    def _wake(self, consumer: Any, partitions: list[TopicPartition]) -> None:
        with self._lock:
            waits = [wait for wait in self._waits if not wait.done.is_set()]
        for wait in waits:
            if wait.until is None:
                wait.until = dict(consumer.end_offsets(partitions, timeout_ms=5_000))
            if all(consumer.position(partition, timeout_ms=5_000) >= end for partition, end in wait.until.items()):
                wait.done.set()


def collect(
    connection: KafkaConnection,
    topic: Topic,
    *,
    start: Mapping[int, int],
    wanted: Callable[[Record], bool],
    until: Callable[[], bool],
    timeout_s: float,
) -> list[Record]:
    """Gathers records, for callers that publish requests and wait for the answers.

    Args:
        connection: The broker.
        topic: Where the answers are.
        start: Offset to begin at, by partition (`end_offsets` before the requests were published); others from their beginning.
        wanted: Whether a record is one of ours; called once for each record, in the order of each partition.
        until: Whether all is there; asked before the first and after each read.
        timeout_s: Longest wait.

    Returns:
        The wanted records, in the order they were read.

    Raises:
        TimeoutError: not all was there in time; says how many were.
        Unavailable: the brokers do not answer, or there is no such topic.
    """
    found: list[Record] = []
    deadline = time.monotonic() + timeout_s
    consumer = connection.consumer(client_id="assay-collect")
    try:
        partitions = partitions_of(consumer, topic)
        consumer.assign(partitions)
        for partition in partitions:
            if partition.partition in start:
                consumer.seek(partition, start[partition.partition])
            else:
                consumer.seek_to_beginning(partition)
        while not until():
            if time.monotonic() > deadline:
                raise TimeoutError(f"{topic.name}: not all answers came within {timeout_s:g} s, {len(found)} did")
            for records in consumer.poll(timeout_ms=_POLL_MS).values():
                for raw in records:
                    try:
                        record = parse(topic, raw)
                    except Rejected as error:
                        RECORDS.labels(topic.name, "unreadable").inc()
                        logger.error("%s/%d offset %d is passed over: %s", raw.topic, raw.partition, raw.offset, error.reason)
                        continue
                    if wanted(record):
                        found.append(record)
        return found
    except KafkaError as error:
        raise Unavailable(f"Kafka at {connection.bootstrap} failed while {topic.name} was read: {error!r}") from error
    finally:
        consumer.close(timeout_ms=2_000)
