import time
import uuid

import pytest
from support.kafka_topics import answers_in, fresh_topics, numbers_of, publish, read

from assay_kit.kafka import KafkaConnection, TransactionalWorker
from assay_kit.kafka_transactions import TransactionalProducer


@pytest.fixture
def connection(kafka_bootstrap: str) -> KafkaConnection:
    return KafkaConnection(kafka_bootstrap)


def ahead(connection, source, handle, **options):
    group = f"test-{uuid.uuid4().hex[:8]}"
    return TransactionalWorker(
        connection,
        service="test",
        group=group,
        topics=[source],
        handle=handle,
        read_ahead=True,
        max_batch=10,
        longest_pause_s=0.5,
        **options,
    )


def test_the_next_batch_is_handled_while_one_is_committed(connection, monkeypatch):
    source, target = fresh_topics(connection, "in", "out")
    publish(connection, source, range(60))
    answer, handled, seen = answers_in(target), [], []
    commit = TransactionalProducer.commit

    def handle(records):
        answers = answer(records)
        handled.append(len(records))
        return answers

    def slow_commit(self, outputs, offsets, group):
        until, before = time.monotonic() + 20, len(handled)
        while len(seen) < 2 and len(handled) == before and time.monotonic() < until:
            time.sleep(0.01)
        seen.append(len(handled) - before)
        commit(self, outputs, offsets, group)

    monkeypatch.setattr(TransactionalProducer, "commit", slow_commit)
    worker = ahead(connection, source, handle)
    worker.start()
    try:
        records = read(connection, target, 60, settle_s=0.5)
    finally:
        worker.stop()
    assert numbers_of(records) == list(range(60)) and len(records) == 60
    assert max(seen[:2]) == 1


def test_where_a_commit_fails_both_batches_come_again_and_each_answer_is_seen_once(connection, monkeypatch):
    source, target = fresh_topics(connection, "in", "out")
    publish(connection, source, range(100))
    commit, tries = TransactionalProducer.commit, []

    def failing_commit(self, outputs, offsets, group):
        tries.append(len(outputs))
        if len(tries) in (2, 4, 5):
            raise ConnectionError("the broker is away")
        commit(self, outputs, offsets, group)

    monkeypatch.setattr(TransactionalProducer, "commit", failing_commit)
    worker = ahead(connection, source, answers_in(target))
    worker.start()
    try:
        records = read(connection, target, 100, settle_s=1.0)
    finally:
        worker.stop()
    assert len(tries) > 5
    assert numbers_of(records) == list(range(100)) and len(records) == 100


def test_stopping_commits_what_was_begun_and_the_next_member_goes_on(connection):
    source, target = fresh_topics(connection, "in", "out")
    publish(connection, source, range(100))
    group, answer, batches = f"test-{uuid.uuid4().hex[:8]}", answers_in(target), []

    def handle(records):
        batches.append(len(records))
        time.sleep(0.2)
        return answer(records)

    def member():
        return TransactionalWorker(connection, service="test", group=group, topics=[source], handle=handle, read_ahead=True, max_batch=10)

    first = member()
    first.start()
    read(connection, target, 10)
    first.stop()
    begun = sum(batches)
    assert len(read(connection, target, begun, settle_s=0.5)) == begun < 100
    second = member()
    second.start()
    try:
        records = read(connection, target, 100, settle_s=0.5)
    finally:
        second.stop()
    assert numbers_of(records) == list(range(100)) and len(records) == 100 and sum(batches) == 100
