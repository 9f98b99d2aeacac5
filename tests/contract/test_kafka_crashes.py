import signal
import subprocess
import sys
import threading
import uuid
from contextlib import contextmanager
from pathlib import Path

import pytest
from kafka.errors import CommitFailedError, KafkaError
from kafka.structs import ConsumerGroupMetadata, TopicPartition
from support.kafka_topics import answers_in, fresh_topics, numbers_of, pair, publish, read

from assay_cli.broker import LocalBroker
from assay_kit.kafka import EventProducer, KafkaConnection, TransactionalWorker
from assay_kit.kafka_records import encode
from assay_kit.kafka_transactions import TransactionalProducer

MEMBER = Path(__file__).parents[1] / "support" / "kafka_member.py"


@pytest.fixture
def connection(kafka_bootstrap: str) -> KafkaConnection:
    return KafkaConnection(kafka_bootstrap)


@contextmanager
def member(connection, group, source, target, name, seconds):
    """A member in a process of its own; yields it once it has taken its first records."""
    command = [sys.executable, str(MEMBER), connection.bootstrap, group, source.name, target.name, name, str(seconds)]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    try:
        assert process.stdout.readline().startswith("took")
        yield process
    finally:
        process.kill()
        process.wait()
        process.stdout.close()


def encoded(topic, number):
    return encode(topic, str(number), pair(number), producer="test")


def test_a_member_killed_at_work_loses_nothing_and_repeats_nothing(connection):
    source, target = fresh_topics(connection, "in", "out", partitions=4)
    group = f"test-{uuid.uuid4().hex[:8]}"
    publish(connection, source, range(200))
    survivor = TransactionalWorker(
        connection, service="test", group=group, topics=[source], handle=answers_in(target, by="survivor"), max_batch=10
    )
    with member(connection, group, source, target, "victim", 0.2) as victim:
        survivor.start()
        try:
            assert survivor.wait_for_assignment(20)
            assert victim.stdout.readline().startswith("took")
            victim.send_signal(signal.SIGKILL)
            publish(connection, source, range(200, 240))
            records = read(connection, target, 240, timeout_s=40, settle_s=1.0)
        finally:
            survivor.stop()
    assert numbers_of(records) == list(range(240))
    assert {record.message.metadata["by"] for record in records} == {"victim", "survivor"}


def test_a_member_that_slept_through_the_loss_of_its_partitions_writes_nothing(connection):
    source, target = fresh_topics(connection, "in", "out", partitions=1)
    group = f"test-{uuid.uuid4().hex[:8]}"
    publish(connection, source, range(10))
    heir = TransactionalWorker(connection, service="test", group=group, topics=[source], handle=answers_in(target, by="heir"))
    with member(connection, group, source, target, "zombie", 1.0) as zombie:
        zombie.send_signal(signal.SIGSTOP)
        heir.start()
        try:
            first = read(connection, target, 10, timeout_s=40)
            zombie.send_signal(signal.SIGCONT)
            publish(connection, source, range(10, 20))
            records = read(connection, target, 20, timeout_s=40, settle_s=2.0)
        finally:
            heir.stop()
    assert numbers_of(first) == list(range(10))
    assert numbers_of(records) == list(range(20))
    assert {record.message.metadata["by"] for record in records if int(record.message.id) < 10} == {"heir"}


def test_a_transaction_that_is_aborted_is_never_seen_and_moves_no_offset(connection):
    source, target = fresh_topics(connection, "in", "out", partitions=1)
    group = f"test-{uuid.uuid4().hex[:8]}"
    producer = TransactionalProducer(connection, f"test-{group}", client_id="test")
    raw = producer._producer
    raw.begin_transaction()
    raw.send(target.name, key=b"1", value=pair(1).SerializeToString())
    raw.flush(10)
    producer.discard()

    producer = TransactionalProducer(connection, f"test-{group}", client_id="test")
    producer.commit([encoded(target, 2)], {TopicPartition(source.name, 0): 5}, ConsumerGroupMetadata(group_id=group))
    producer.close()
    assert numbers_of(read(connection, target, 1, settle_s=1.0)) == [2]
    assert committed(connection, group, source) == 5


def test_an_open_transaction_is_invisible_until_its_successor_ends_it(connection):
    source, target = fresh_topics(connection, "in", "out", partitions=1)
    group = f"test-{uuid.uuid4().hex[:8]}"
    dead = TransactionalProducer(connection, f"test-{group}", client_id="test")
    dead._producer.begin_transaction()
    dead._producer.send(target.name, key=b"1", value=pair(1).SerializeToString())
    dead._producer.flush(10)
    events = EventProducer(connection, "test")
    events.send(target, "2", pair(2))
    events.close()
    with pytest.raises(TimeoutError):
        read(connection, target, 1, timeout_s=1.0)

    successor = TransactionalProducer(connection, f"test-{group}", client_id="test")
    assert numbers_of(read(connection, target, 1, settle_s=0.5)) == [2]
    with pytest.raises(KafkaError):
        dead.commit([encoded(target, 3)], {TopicPartition(source.name, 0): 1}, ConsumerGroupMetadata(group_id=group))
    dead.discard()
    successor.commit([encoded(target, 4)], {TopicPartition(source.name, 0): 1}, ConsumerGroupMetadata(group_id=group))
    successor.close()
    assert numbers_of(read(connection, target, 2, settle_s=0.5)) == [2, 4]


def test_a_member_of_an_earlier_generation_is_refused_even_with_a_producer_of_its_own(connection):
    source, target = fresh_topics(connection, "in", "out", partitions=2)
    group = f"test-{uuid.uuid4().hex[:8]}"
    publish(connection, source, range(4))
    consumer = connection.consumer(client_id="zombie", group=group)
    consumer.subscribe(topics=[source.name])
    polled = {}
    while not polled:
        polled = consumer.poll(timeout_ms=500)
    then = consumer.group_metadata()
    heir = TransactionalWorker(connection, service="test", group=group, topics=[source], handle=answers_in(target, by="heir"))
    heir.start()
    try:
        while consumer.group_metadata().generation_id == then.generation_id:
            consumer.poll(timeout_ms=200)
        zombie = TransactionalProducer(connection, f"zombie-{group}", client_id="zombie")
        offsets = {partition: records[-1].offset + 1 for partition, records in polled.items()}
        with pytest.raises(CommitFailedError):
            zombie.commit([encoded(target, 99)], offsets, then)
        zombie.discard()
        consumer.close(autocommit=False)
        records = read(connection, target, 4, settle_s=1.0)
    finally:
        heir.stop()
    assert numbers_of(records) == list(range(4))


def test_a_worker_goes_on_when_the_broker_comes_back(tmp_path):
    reports = []
    with LocalBroker(tmp_path / "kafka", report=lambda name, line: reports.append(line)) as broker:
        connection = KafkaConnection(broker.bootstrap)
        source, target = fresh_topics(connection, "in", "out")
        publish(connection, source, range(100))
        answer, begun = answers_in(target), threading.Event()

        def handle(records):
            if len(records) > 1:
                begun.set()
            return answer(records)

        worker = TransactionalWorker(
            connection, service="test", group="test", topics=[source], handle=handle, max_batch=5, longest_pause_s=1.0
        )
        worker.start()
        try:
            assert begun.wait(30)
            os_pid = broker.status.pid
            subprocess.run(["kill", "-9", str(os_pid)], check=True)
            broker_is_back(broker, os_pid)
            publish(connection, source, range(100, 120))
            records = read(connection, target, 120, timeout_s=60, settle_s=1.0)
        finally:
            worker.stop()
        assert numbers_of(records) == list(range(120))
        assert broker.status.restarts == 1
    assert any("SIGKILL" in line for line in reports)


def broker_is_back(broker, former_pid):
    gone = threading.Event()
    while broker.status.pid in (former_pid, None):
        gone.wait(0.05)
    broker.wait_until_ready(60)


def committed(connection, group, topic):
    consumer = connection.consumer(client_id="test", group=group)
    try:
        return consumer.committed(TopicPartition(topic.name, 0), timeout_ms=10_000)
    finally:
        consumer.close()
