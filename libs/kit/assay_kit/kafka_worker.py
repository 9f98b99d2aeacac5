"""The Kafka door of a service: read, work, write and commit, each batch in one transaction."""

from __future__ import annotations

import logging
import queue
import threading
import time
from collections.abc import Sequence
from concurrent.futures import Future
from dataclasses import dataclass
from typing import Any

from kafka.errors import CommitFailedError
from kafka.structs import ConsumerGroupMetadata, TopicPartition

from assay_kit.errors import Unavailable
from assay_kit.groups import transactional_ids
from assay_kit.kafka_backoff import Backoff
from assay_kit.kafka_batches import Batch, Handler
from assay_kit.kafka_connection import KafkaConnection
from assay_kit.kafka_metrics import BATCH_SECONDS, LAG, count_from_zero
from assay_kit.kafka_transactions import TransactionalProducer
from assay_kit.topics import Topic

logger = logging.getLogger(__name__)

_POLL_MS = 500
_KEEP_ALIVE_S = 0.5
_REWIND_TIMEOUT_MS = 5_000
_FAILURES_OF_A_SESSION = 5  # to read anything at all, in a row; after them the consumer is made anew


class _GroupChanged(Exception):
    """The partitions of a batch may belong to another member by now: the batch is dropped, nothing has failed."""


@dataclass(frozen=True, kw_only=True)
class _Work:
    """A batch that is with the handler."""

    batch: Batch
    call: Future[None]
    member: ConsumerGroupMetadata
    """This member as it was when it read the batch."""
    since: float


class TransactionalWorker:
    """Reads topics as a member of a group and answers each batch in one Kafka transaction, its offsets included.

    What is read with `read_committed` behind it sees each answer exactly once, whatever dies: a batch whose transaction did
    not commit is read again, by this member or by the one that takes over, and a member that lost its partitions without
    knowing (a zombie) is refused by the brokers when it commits.

    While the world fails (the handler raises, the brokers are away) the partitions are held and the same records tried
    again, with growing pauses; the member stays in its group meanwhile. A handler may take as long as it likes.
    """

    def __init__(
        self,
        connection: KafkaConnection,
        *,
        service: str,
        group: str,
        topics: Sequence[Topic],
        handle: Handler,
        max_batch: int = 64,
        read_ahead: bool = False,
        drain_s: float = 30.0,
        longest_pause_s: float = 30.0,
    ) -> None:
        """Remembers what to do; `start` begins.

        Args:
            connection: The broker.
            service: Name of the service, for the producer header.
            group: Consumer group; its members share the partitions.
            topics: What to read.
            handle: Maps records to answers, one each, in order; called from one thread, always the same.
            max_batch: Most records in one transaction.
            read_ahead: Gives the handler the next batch while one is committed. Where that commit fails, the handler gets both again, so
                it may see a batch before the one ahead of it was committed: for handlers that only compute.
            drain_s: Longest wait for the batch at work when stopping; after it the batch is given up, uncommitted.
            longest_pause_s: Longest pause between two tries.
        """
        self._connection = connection
        self._service = service
        self._group = group
        self._topics = {topic.name: topic for topic in topics}
        count_from_zero(self._topics)
        self._handle = handle
        self._max_batch = max_batch
        self._read_ahead = read_ahead
        self._drain_s = drain_s
        self._backoff = Backoff(limit_s=longest_pause_s)
        self._transactional_id = transactional_ids(service, group) + connection.instance
        self._stop = threading.Event()
        self._given_up = threading.Event()
        self._assigned = threading.Event()
        self._calls: queue.SimpleQueue[_Work | None] = queue.SimpleQueue()
        self._ahead: _Work | None = None
        self._thread = threading.Thread(target=self._run, name=f"{group}-worker", daemon=True)
        self._handler_thread = threading.Thread(target=self._answer_calls, name=f"{group}-handler", daemon=True)
        self._consumer: Any = None
        self._producer: TransactionalProducer | None = None
        self._rewind: set[TopicPartition] = set()
        self._with_lag: set[TopicPartition] = set()

    def start(self) -> None:
        """Begins reading; returns at once, also where the brokers do not answer yet."""
        self._handler_thread.start()
        self._thread.start()

    def stop(self) -> None:
        """Finishes the batch at work, commits it, leaves the group and ends."""
        self._stop.set()
        if self._thread.ident is None:
            return
        self._thread.join(self._drain_s)
        if self._thread.is_alive():
            logger.error(
                "group %s: the batch at work took longer than %g s to drain; it is given up, uncommitted", self._group, self._drain_s
            )
            self._given_up.set()
            self._thread.join(10.0)
        self._calls.put(None)

    def wait_for_assignment(self, timeout_s: float) -> bool:
        """Waits until this member has partitions; whether it has."""
        return self._assigned.wait(timeout_s)

    def _run(self) -> None:
        while not self._stop.is_set():
            try:
                self._session()
            except Exception as error:
                pause = self._backoff.next()
                logger.error(
                    "group %s: no session with the brokers, next try in %.1f s: %s",
                    self._group,
                    pause,
                    error,
                    exc_info=None if isinstance(error, Unavailable) else error,
                )
                self._stop.wait(pause)

    def _session(self) -> None:
        self._consumer = self._connection.consumer(client_id=f"{self._service}-{self._connection.instance}", group=self._group)
        try:
            self._consumer.subscribe(topics=list(self._topics))
            while not self._stop.is_set() or self._ahead is not None:
                self._step()
        finally:
            self._assigned.clear()
            self._discard_producer()
            self._forget_lag(set())
            self._consumer.close(autocommit=False, timeout_ms=5_000)

    def _step(self) -> None:
        """One round: read a batch, answer it, commit it; or the pause after a failure."""
        work: _Work | None = None
        try:
            self._prepare()
            work, self._ahead = self._ahead or self._read(_POLL_MS), None
            self._report()
            if work is None:
                return
            self._look_ahead()
            self._wait_for(work)
            self._look_ahead()
            self._commit(work)
        except _GroupChanged as change:
            logger.info("group %s: %s", self._group, change)
            self._drop(work, change)
        except Exception as error:
            self._failed(work, error)
        else:
            self._backoff.succeeded()
            work.batch.committed()
            BATCH_SECONDS.labels(self._group).observe(time.monotonic() - work.since)

    def _read(self, timeout_ms: int) -> _Work | None:
        """Reads a batch and hands it to the handler; None where there is nothing."""
        polled = self._consumer.poll(timeout_ms=timeout_ms, max_records=self._max_batch)
        if not polled:
            return None
        work = _Work(batch=Batch.of(polled, self._topics), call=Future(), member=self._consumer.group_metadata(), since=time.monotonic())
        self._calls.put(work)
        return work

    def _look_ahead(self) -> None:
        """Hands over the next batch where it is there already: its handling begins while the one before is committed."""
        if self._read_ahead and self._ahead is None and not self._stop.is_set():
            self._ahead = self._read(0)

    def _drop(self, work: _Work | None, error: Exception) -> None:
        """Gives up a batch and the one behind it: both are read again."""
        for one in (work, self._ahead):
            if one is not None:
                self._rewind |= set(one.batch.offsets)
                one.call.cancel()
                one.call.add_done_callback(lambda _, batch=one.batch: batch.failed(error))  # type: ignore[misc]
        self._ahead = None

    def _prepare(self) -> None:
        """Makes the producer, which settles any open transaction, and only then goes back to what is committed."""
        if self._producer is None:
            self._producer = TransactionalProducer(
                self._connection, self._transactional_id, client_id=f"{self._service}-{self._connection.instance}", given_up=self._given_up
            )
        for partition in sorted(self._rewind):
            if partition in self._consumer.assignment():
                committed = self._consumer.committed(partition, timeout_ms=_REWIND_TIMEOUT_MS)
                if committed is None:
                    self._consumer.seek_to_beginning(partition)
                else:
                    self._consumer.seek(partition, committed)
            self._rewind.discard(partition)

    def _wait_for(self, work: _Work) -> None:
        """Waits until the handler has answered the batch; keeps this member alive in the group for as long as that takes."""
        try:
            while not _finished(work.call, _KEEP_ALIVE_S):
                if self._given_up.is_set():
                    raise _GroupChanged("stopped before the handler had answered; the batch is left to the next member")
                self._keep_alive()
            work.call.result()
        finally:
            self._resume()

    def _commit(self, work: _Work) -> None:
        batch, member = work.batch, work.member
        if member.generation_id < 0 or not member.member_id:
            # Without a generation the brokers could not tell a zombie from a member, and would take its offsets.
            raise _GroupChanged("this member was out of the group when it read; the batch is dropped")
        if self._consumer.group_metadata().generation_id != member.generation_id:
            raise _GroupChanged("partitions were dealt anew while a batch was at work; it is dropped and read again by whoever has them")
        assert self._producer is not None
        try:
            self._producer.commit(batch.encoded(group=self._group, producer=f"assay-{self._service}"), batch.offsets, member)
        except CommitFailedError as error:
            self._discard_producer()
            raise _GroupChanged(f"the brokers refused a batch of a former member: {error}") from error
        except Exception:
            self._discard_producer()
            raise

    def _failed(self, work: _Work | None, error: Exception) -> None:
        self._rewind |= self._consumer.assignment()
        self._drop(work, error)
        pause = self._backoff.next()
        logger.error(
            "group %s: %s, try %d failed, same records again in %.1f s: %r",
            self._group,
            f"{len(work.batch.raw)} records held" if work is not None else "nothing read",
            self._backoff.failures,
            pause,
            error,
            exc_info=error,
        )
        deadline = time.monotonic() + pause
        while not self._stop.wait(min(_KEEP_ALIVE_S, max(0.0, deadline - time.monotonic()))) and time.monotonic() < deadline:
            self._keep_alive()
        self._resume()
        if work is None and self._backoff.failures % _FAILURES_OF_A_SESSION == 0:
            raise error

    def _keep_alive(self) -> None:
        """Polls without taking anything, so that neither heartbeats nor the dealing of partitions wait for us."""
        self._consumer.pause(*self._consumer.assignment())
        for partition, records in self._consumer.poll(timeout_ms=0).items():
            self._consumer.seek(partition, records[0].offset)
            self._consumer.pause(partition)

    def _resume(self) -> None:
        self._consumer.resume(*self._consumer.paused())

    def _answer_calls(self) -> None:
        while (work := self._calls.get()) is not None:
            if not work.call.set_running_or_notify_cancel():
                continue
            try:
                work.batch.answer(self._handle, producer=f"assay-{self._service}")
            except BaseException as error:
                work.call.set_exception(error)
            else:
                work.call.set_result(None)

    def _discard_producer(self) -> None:
        producer, self._producer = self._producer, None
        if producer is not None:
            producer.discard()

    def _report(self) -> None:
        assignment = self._consumer.assignment()
        if assignment:
            self._assigned.set()
        else:
            self._assigned.clear()
        self._forget_lag(assignment)
        for partition in assignment:
            end = self._consumer.highwater(partition)
            if end is not None:
                self._with_lag.add(partition)
                LAG.labels(partition.topic, str(partition.partition)).set(self._behind(partition, end))

    def _behind(self, partition: TopicPartition, end: int) -> int:
        return max(0, int(end) - int(self._consumer.position(partition, timeout_ms=_REWIND_TIMEOUT_MS) or 0))

    def _forget_lag(self, kept: set[TopicPartition]) -> None:
        for partition in self._with_lag - kept:
            LAG.remove(partition.topic, str(partition.partition))
        self._with_lag &= kept


def _finished(call: Future[None], timeout_s: float) -> bool:
    try:
        call.exception(timeout_s)
    except TimeoutError:
        return False
    return True
