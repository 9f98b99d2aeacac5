import json
import subprocess
import sys
import threading
import time
import uuid
from contextlib import contextmanager

import pytest
from opentelemetry import trace
from opentelemetry.sdk.trace import TracerProvider
from prometheus_client import REGISTRY
from support.kafka_topics import answers_in, fresh_topics, numbers_of, pair, publish, read

from assay.common.v1 import common_pb2
from assay_kit import dead_letters
from assay_kit.kafka import KafkaConnection, Output, Rejected, TransactionalWorker


@pytest.fixture
def connection(kafka_bootstrap: str) -> KafkaConnection:
    return KafkaConnection(kafka_bootstrap)


@contextmanager
def working(connection, source, handle, *, group=None, **options):
    worker = TransactionalWorker(
        connection,
        service="test",
        group=group or f"test-{uuid.uuid4().hex[:8]}",
        topics=[source],
        handle=handle,
        longest_pause_s=0.5,
        **options,
    )
    worker.start()
    try:
        yield worker
    finally:
        worker.stop()


def metric(name, **labels):
    return REGISTRY.get_sample_value(name, labels) or 0.0


def test_each_record_is_answered_once_and_the_trace_goes_on(connection):
    source, target = fresh_topics(connection, "in", "out")
    trace.set_tracer_provider(TracerProvider())
    publish(connection, source, range(100))
    with working(connection, source, answers_in(target)):
        records = read(connection, target, 100, settle_s=1.0)
    assert numbers_of(records) == list(range(100))
    assert {record.headers["assay-producer"] for record in records} == {"assay-test"}
    assert all(record.headers["traceparent"] for record in records)
    assert metric("assay_kafka_records_total", topic=source.name, outcome="processed") == 100


def test_the_next_member_goes_on_after_the_last_committed_record(connection):
    source, target = fresh_topics(connection, "in", "out")
    group = f"test-{uuid.uuid4().hex[:8]}"
    publish(connection, source, range(20))
    with working(connection, source, answers_in(target, by="first"), group=group):
        read(connection, target, 20)
    publish(connection, source, range(20, 30))
    with working(connection, source, answers_in(target, by="second"), group=group):
        records = read(connection, target, 30, settle_s=0.5)
    by = {int(record.message.id): record.message.metadata["by"] for record in records}
    assert by == {number: "first" if number < 20 else "second" for number in range(30)}
    assert len(records) == 30


def test_while_the_world_fails_the_same_records_come_again_and_nothing_is_written(connection):
    source, target = fresh_topics(connection, "in", "out")
    publish(connection, source, range(10))
    answer, tries = answers_in(target), []

    def handle(records):
        tries.append(len(records))
        if len(tries) < 4:
            raise ConnectionError("the model is away")
        return answer(records)

    with working(connection, source, handle):
        records = read(connection, target, 10, settle_s=0.5)
    assert numbers_of(records) == list(range(10))
    assert len(tries) >= 4
    assert metric("assay_kafka_records_total", topic=source.name, outcome="retried") >= 3
    assert metric("assay_kafka_dead_letters_total", topic=source.name) == 0


def test_a_handler_that_answers_not_once_for_each_record_moves_nothing(connection):
    source, target = fresh_topics(connection, "in", "out", partitions=1)
    publish(connection, source, range(4))
    called = threading.Event()

    def handle(records):
        called.set()
        return [[Output(target, "a", pair(1))]] * (len(records) + 1)

    with working(connection, source, handle):
        assert called.wait(20)
    with pytest.raises(TimeoutError, match="0 did"):
        read(connection, target, 1, timeout_s=1.0)


def test_a_handler_slower_than_the_session_stays_in_the_group(connection, monkeypatch):
    monkeypatch.setattr("assay_kit.kafka_connection.SESSION_TIMEOUT_MS", 6_000)
    source, target = fresh_topics(connection, "in", "out")
    publish(connection, source, range(10))
    answer, calls = answers_in(target), []

    def handle(records):
        calls.append([record.message.id for record in records])
        if len(calls) == 1:
            time.sleep(7)
        return answer(records)

    with working(connection, source, handle):
        records = read(connection, target, 10, settle_s=0.5)
    assert numbers_of(records) == list(range(10))
    assert sum(map(len, calls)) == 10


def test_poison_goes_to_the_dead_letters_its_neighbours_pass_and_replay_sends_it_back_once(connection, kafka_bootstrap):
    source, target = fresh_topics(connection, "in", "out", partitions=1)
    raw = connection.producer(client_id="raw")
    raw.send(source.name, key=b"5", value=pair(5).SerializeToString())
    raw.send(source.name, key=b"bad", value=b"\xff\xffno protobuf", headers=[("odd", b"\xe9")])
    raw.send(source.name, key=b"6", value=pair(6).SerializeToString(), headers=[("assay-message-type", b"assay.common.v1.Message")])
    raw.send(source.name, key=b"7", value=pair(7).SerializeToString())
    raw.flush(10)
    raw.close(timeout=5)
    seven_is_known = threading.Event()

    def handle(records):
        return [
            Rejected("7 is not known yet")
            if record.message.id == "7" and not seven_is_known.is_set()
            else [Output(target, record.message.id, pair(int(record.message.id)))]
            for record in records
        ]

    group = f"test-{uuid.uuid4().hex[:8]}"
    with working(connection, source, handle, group=group):
        assert numbers_of(read(connection, target, 1)) == [5]
        stored = letters_of(connection, source, 3)
        assert [one.letter.key for one in stored] == [b"bad", b"6", b"7"]
        poison = stored[0].letter
        assert (poison.topic, poison.partition, poison.offset) == (source.name, 0, 1)
        assert poison.payload == b"\xff\xffno protobuf" and poison.headers["odd"] == "é" and poison.consumer_group == group
        assert "is no assay.common.v1.PreferencePair" in poison.error
        assert "says assay.common.v1.Message" in stored[1].letter.error
        assert stored[2].letter.error == "7 is not known yet"
        assert metric("assay_kafka_dead_letters_total", topic=source.name) == 3

    seven_is_known.set()
    assert dead_letters.replay(connection, source.name) == {source.name: 3}
    assert dead_letters.replay(connection, source.name) == {source.name: 0}
    with working(connection, source, handle, group=group):
        assert numbers_of(read(connection, target, 2, settle_s=1.0)) == [5, 7]
        again = letters_of(connection, source, 5)[3:]
        assert [one.letter.headers["assay-replayed-from"] for one in again] == [f"0/{stored[0].offset}", f"0/{stored[1].offset}"]

    command = [sys.executable, "-m", "assay_kit.dead_letters", "list", "--json", "--bootstrap", kafka_bootstrap]
    lines = [json.loads(line) for line in subprocess.run(command, capture_output=True, text=True, check=True).stdout.splitlines()]
    mine = [line for line in lines if line["topic"] == source.name]
    assert [line["replayed"] for line in mine] == [True, True, True, False, False]


def letters_of(connection, source, number):
    deadline = time.monotonic() + 20
    while len(stored := dead_letters.letters(connection, source.name)) < number:
        assert time.monotonic() < deadline, f"only {len(stored)} letters came"
    return stored


def test_an_answer_that_is_too_large_sends_its_record_to_the_dead_letters(connection):
    source, target = fresh_topics(connection, "in", "out", partitions=1)
    publish(connection, source, range(2))

    def handle(records):
        return [
            [
                Output(
                    target,
                    "a",
                    common_pb2.PreferencePair(id=record.message.id, chosen="x" * (2_000_000 if record.message.id == "0" else 1)),
                )
            ]
            for record in records
        ]

    with working(connection, source, handle):
        assert numbers_of(read(connection, target, 1)) == [1]
        [stored] = letters_of(connection, source, 1)
    assert stored.letter.error.startswith("the answer is too large: message: 2000") and "at most 1048576" in stored.letter.error


def test_a_record_of_full_size_fits_the_dead_letters(connection):
    source, target = fresh_topics(connection, "in", "out", partitions=1)
    raw = connection.producer(client_id="raw")
    raw.send(source.name, key=b"full", value=b"\xff" * (1_048_576 - 200))
    raw.flush(10)
    raw.close(timeout=5)
    with working(connection, source, answers_in(target)):
        [stored] = letters_of(connection, source, 1)
    assert len(stored.letter.payload) == 1_048_576 - 200


def test_two_members_share_the_partitions_and_one_takes_all_when_the_other_leaves(connection, kafka_bootstrap):
    source, target = fresh_topics(connection, "in", "out", partitions=4)
    group = f"test-{uuid.uuid4().hex[:8]}"
    publish(connection, source, range(40))
    with working(connection, source, answers_in(target, by="first"), group=group, max_batch=5):
        read(connection, target, 40)
        with working(KafkaConnection(kafka_bootstrap), source, answers_in(target, by="second"), group=group, max_batch=5) as second:
            assert second.wait_for_assignment(20)
            publish(connection, source, range(40, 140))
            shared = read(connection, target, 140)
        publish(connection, source, range(140, 180))
        records = read(connection, target, 180, settle_s=0.5)
    assert numbers_of(records) == list(range(180))
    assert {record.message.metadata["by"] for record in shared if int(record.message.id) >= 40} == {"first", "second"}
    assert {record.message.metadata["by"] for record in records if int(record.message.id) >= 140} == {"first"}


def test_lag_is_what_is_not_processed_yet_and_ends_at_zero(connection):
    source, target = fresh_topics(connection, "in", "out", partitions=1)
    publish(connection, source, range(30))
    answer, held, goes_on = answers_in(target), threading.Event(), threading.Event()

    def handle(records):
        held.set()
        assert goes_on.wait(20)
        return answer(records)

    with working(connection, source, handle, max_batch=10):
        assert held.wait(20)
        # The batch at work was read already; the 20 behind it are what waits.
        assert metric("assay_kafka_consumer_lag", topic=source.name, partition="0") == 20
        goes_on.set()
        read(connection, target, 30)
        deadline = time.monotonic() + 10
        while metric("assay_kafka_consumer_lag", topic=source.name, partition="0") > 0:
            assert time.monotonic() < deadline
    assert REGISTRY.get_sample_value("assay_kafka_consumer_lag", {"topic": source.name, "partition": "0"}) is None


def test_stopping_finishes_the_batch_at_work(connection):
    source, target = fresh_topics(connection, "in", "out", partitions=1)
    publish(connection, source, range(5))
    answer, begun = answers_in(target), threading.Event()

    def handle(records):
        begun.set()
        time.sleep(1.0)
        return answer(records)

    with working(connection, source, handle):
        assert begun.wait(20)
    assert numbers_of(read(connection, target, 5)) == list(range(5))


def test_stopping_gives_up_a_batch_that_takes_too_long_and_leaves_it_to_the_next(connection):
    source, target = fresh_topics(connection, "in", "out", partitions=1)
    publish(connection, source, range(5))
    group, begun, end = f"test-{uuid.uuid4().hex[:8]}", threading.Event(), threading.Event()

    def stuck(records):
        begun.set()
        end.wait(30)
        return answers_in(target, by="stuck")(records)

    with working(connection, source, stuck, group=group, drain_s=1.0):
        assert begun.wait(20)
        began = time.monotonic()
    assert time.monotonic() - began < 8
    end.set()
    with working(connection, source, answers_in(target, by="next"), group=group):
        records = read(connection, target, 5, settle_s=0.5)
    assert [record.message.metadata["by"] for record in records] == ["next"] * 5
