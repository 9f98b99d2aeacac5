"""Writing events: idempotent, not part of a transaction."""

from __future__ import annotations

import logging
import threading
from collections.abc import Mapping
from typing import Any

from google.protobuf.message import Message
from kafka.errors import AuthorizationError, KafkaError

from assay_kit.errors import Unavailable
from assay_kit.kafka_connection import KafkaConnection
from assay_kit.kafka_metrics import RECORDS
from assay_kit.kafka_records import encode
from assay_kit.topics import Topic

logger = logging.getLogger(__name__)


class EventProducer:
    """Sends single records; safe to share between threads. Connects with the first `send`."""

    def __init__(self, connection: KafkaConnection, client_id: str) -> None:
        self._connection = connection
        self._client_id = client_id
        self._lock = threading.Lock()
        self._producer: Any = None
        self._closed = False
        self._failures: list[str] = []
        self._refused = False
        """Whether the producer was refused a right: an idempotent one sends nothing more after that."""

    def send(self, topic: Topic, key: str, message: Message | None, headers: Mapping[str, str] | None = None) -> None:
        """Hands one record over for sending; returns before it is written. `flush` tells whether it was.

        Args:
            topic: Where to.
            key: Key; records of one key keep their order. Empty: any partition.
            message: Value, of the topic's class; None deletes the key from a compacted topic.
            headers: Further headers; trace context, message type and producer are added.

        Raises:
            MessageTooLarge: the record is larger than the topic takes.
            TypeError: the message is not of the topic's class.
            Unavailable: the brokers do not answer, or there is no such topic.
        """
        encoded = encode(topic, key, message, producer=self._client_id, headers=headers)
        producer = self._connected()
        try:
            future = producer.send(encoded.topic, key=encoded.key, value=encoded.value, headers=encoded.headers)
        except KafkaError as error:
            raise Unavailable(f"could not send to {topic.name}: {error}") from error
        RECORDS.labels(topic.name, "failed")  # shown as 0, so that the first failure is an increase
        future.add_callback(lambda _: RECORDS.labels(topic.name, "sent").inc())
        future.add_errback(self._failed, topic.name)

    def flush(self, timeout_s: float = 30.0) -> None:
        """Waits until all that was handed over is written.

        Raises:
            Unavailable: something was not written (since the last `flush`); names topic and reason.
        """
        with self._lock:
            producer = self._producer
        if producer is not None:
            try:
                producer.flush(timeout_s)
            except KafkaError as error:
                raise Unavailable(f"Kafka at {self._connection.bootstrap} took not all records within {timeout_s:g} s: {error}") from error
        with self._lock:
            failures, self._failures = self._failures, []
            refused, self._refused = self._refused, False
            if refused and self._producer is producer:
                self._producer = None  # the next one may have been given the right meanwhile
        if refused and producer is not None:
            close_at_once(producer)
        if failures:
            raise Unavailable(f"{len(failures)} records were not written, the first {failures[0]}")

    def close(self, timeout_s: float = 10.0) -> None:
        """Writes what was handed over and disconnects.

        Raises:
            Unavailable: something was not written.
        """
        with self._lock:
            self._closed = True
        try:
            self.flush(timeout_s)
        finally:
            with self._lock:
                producer, self._producer = self._producer, None
            if producer is not None:
                close_at_once(producer)

    def _connected(self) -> Any:
        with self._lock:
            if self._closed:
                raise Unavailable("the producer is closed")
            if self._producer is None:
                self._producer = self._connection.producer(client_id=self._client_id)
            return self._producer

    def _failed(self, topic: str, error: BaseException) -> None:
        logger.error("a record for %s was not written: %s", topic, error)
        RECORDS.labels(topic, "failed").inc()
        with self._lock:
            self._failures.append(f"to {topic}: {error!r}")
            self._refused = self._refused or isinstance(error, AuthorizationError)


def close_at_once(producer: Any) -> None:
    """Ends a kafka-python producer without waiting for what is not written; flush before, where that matters.

    Its own `close` waits for ever on brokers that are gone, and leaves its thread running where it is told not to.
    """
    producer._sender.force_close()
    producer._sender.join(2.0)
    producer.close(timeout=0)
