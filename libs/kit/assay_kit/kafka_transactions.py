"""One Kafka transaction: outputs and consumed offsets together, or neither."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from kafka.errors import KafkaError, KafkaTimeoutError
from kafka.structs import ConsumerGroupMetadata, OffsetAndMetadata, TopicPartition

from assay_kit.errors import Unavailable
from assay_kit.kafka_connection import KafkaConnection
from assay_kit.kafka_producer import close_at_once
from assay_kit.kafka_records import Encoded

STEP_TIMEOUT_S = 30.0
"""Longest wait for one step of a transaction."""


class TransactionalProducer:
    """Commits outputs with the offsets of what they were made from.

    Making one with the transactional id of another ends the other's open transaction and shuts it out for good. After any
    error it is to be discarded: whether a transaction whose commit was not answered happened is known only after its
    successor was made, by asking for the committed offsets.

    kafka-python's own `send_offsets_to_transaction` and `commit_transaction` wait without limit. The same steps are taken
    here on its transaction manager (kafka-python is pinned), with limits.
    """

    def __init__(
        self, connection: KafkaConnection, transactional_id: str, *, client_id: str, given_up: threading.Event | None = None
    ) -> None:
        """Connects, ends what an earlier producer of this id has left open.

        Raises:
            Unavailable: the brokers do not answer.
        """
        self.transactional_id = transactional_id
        self._given_up = given_up or threading.Event()
        self._producer = connection.producer(client_id=client_id, transactional_id=transactional_id)
        try:
            self._producer.init_transactions()
        except BaseException as error:
            close_at_once(self._producer)
            if isinstance(error, KafkaError):
                raise Unavailable(f"transactions of {transactional_id} could not be begun: {error!r}") from error
            raise

    def commit(self, outputs: Sequence[Encoded], offsets: Mapping[TopicPartition, int], group: ConsumerGroupMetadata) -> None:
        """Writes the outputs and the group's offsets in one transaction.

        Args:
            outputs: What to write.
            offsets: Next offset to read, by partition.
            group: The member that read them, as it was then; if the group has changed since, the brokers refuse.

        Raises:
            KafkaError: nothing was committed, or it is not known; discard this producer.
        """
        manager = self._producer._transaction_manager
        self._producer.begin_transaction()
        sent = [self._producer.send(output.topic, key=output.key, value=output.value, headers=output.headers) for output in outputs]
        self._producer.flush(STEP_TIMEOUT_S)
        for future in sent:
            future.get(timeout=STEP_TIMEOUT_S)
        committed = {partition: OffsetAndMetadata(offset, "", -1) for partition, offset in offsets.items()}
        self._done(lambda: manager.send_offsets_to_transaction(committed, group), STEP_TIMEOUT_S)
        self._done(manager.begin_commit, STEP_TIMEOUT_S)

    def discard(self) -> None:
        """Aborts what is open, if the brokers answer soon, and ends."""
        manager = self._producer._transaction_manager
        try:
            if manager._test_has_ongoing_transaction():
                self._done(manager.begin_abort, 3.0)
        except KafkaError:
            pass  # its successor or the brokers' transaction time-out aborts it
        finally:
            close_at_once(self._producer)

    def close(self) -> None:
        """Ends; nothing may be open."""
        close_at_once(self._producer)

    def _done(self, step: Callable[[], Any], timeout_s: float) -> None:
        result = step()
        self._producer._sender.wakeup()
        deadline = time.monotonic() + timeout_s
        while not result.wait(timeout_ms=200):
            if self._given_up.is_set() or time.monotonic() > deadline:
                raise KafkaTimeoutError(f"the brokers did not answer a step of transaction {self.transactional_id}")
