"""Looks into the dead letters for messages of our own that a worker could not accept."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping

from assay.common.v1 import common_pb2
from assay_kit.errors import FailedPrecondition
from assay_kit.kafka import KafkaConnection, Record, collect
from assay_kit.topics import DEAD_LETTERS, Topic

STALL_SECONDS = 10.0
_LOOK_SECONDS = 2.0


class RefusalWatch:
    """Asks the dead letters each time that answers stop coming."""

    def __init__(
        self, connection: KafkaConnection, topic: Topic, *, start: Mapping[int, int], ours: Callable[[common_pb2.DeadLetter], str]
    ) -> None:
        """Opens nothing yet.

        Args:
            connection: The broker.
            topic: Where the refused messages were sent.
            start: End of the dead letters before they were sent, by partition.
            ours: What a message was about, in words, where it is ours; else an empty text.
        """
        self._connection = connection
        self._topic = topic
        self._start = start
        self._ours = ours
        self._newest = time.monotonic()

    def answered(self) -> None:
        """Says that an answer has come."""
        self._newest = time.monotonic()

    def check(self) -> None:
        """Looks, where no answer has come for a while.

        Raises:
            FailedPrecondition: A message of ours was refused; says which and why.
            Unavailable: The broker does not answer.
        """
        if time.monotonic() - self._newest < STALL_SECONDS:
            return
        refused: list[tuple[str, str]] = []

        def take(record: Record) -> bool:
            letter = record.message
            if letter is not None and letter.topic == self._topic.name:
                what = self._ours(letter)
                if what:
                    refused.append((what, letter.error))
            return False

        stop = time.monotonic() + _LOOK_SECONDS
        collect(
            self._connection,
            DEAD_LETTERS,
            start=self._start,
            wanted=take,
            until=lambda: bool(refused) or time.monotonic() > stop,
            timeout_s=60,
        )
        if refused:
            what, error = refused[0]
            raise FailedPrecondition(f"{what} was refused: {error}")
        self._newest = time.monotonic()
