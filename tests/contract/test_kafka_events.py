import re
import socket

import pytest
from opentelemetry.sdk.trace import TracerProvider
from support.kafka_topics import fresh_topics, numbers_of, pair, publish, read, topic_of

from assay.common.v1 import common_pb2
from assay_kit.errors import Unavailable
from assay_kit.kafka import EventProducer, KafkaConnection, MessageTooLarge, TopicFollower, collect, end_offsets, ensure_topics
from assay_kit.topics import ALL_TOPICS, PREFERENCES_RAW


@pytest.fixture
def connection(kafka_bootstrap: str) -> KafkaConnection:
    return KafkaConnection(kafka_bootstrap)


def test_what_is_sent_is_read_in_the_order_of_its_key(connection):
    [topic] = fresh_topics(connection, "order")
    producer = EventProducer(connection, "test")
    for number in range(60):
        producer.send(topic, f"key {number % 3}", pair(number))
    producer.close()
    records = read(connection, topic, 60)
    assert numbers_of(records) == list(range(60))
    for key in range(3):
        assert [int(r.message.id) for r in records if r.key == f"key {key}".encode()] == list(range(key, 60, 3))


def test_headers_name_type_and_producer_and_carry_the_trace_of_the_sender(connection):
    [topic] = fresh_topics(connection, "headers")
    producer = EventProducer(connection, "somebody")
    producer.send(topic, "a", pair(1), {"colour": "grün"})
    with TracerProvider().get_tracer("test").start_as_current_span("asking") as span:
        producer.send(topic, "a", pair(2))
    producer.close()
    without, within = (record.headers for record in read(connection, topic, 2))
    assert without == {"colour": "grün", "assay-message-type": "assay.common.v1.PreferencePair", "assay-producer": "somebody"}
    assert within["traceparent"].split("-")[1] == f"{span.get_span_context().trace_id:032x}"


@pytest.mark.parametrize("megabytes", [1, 10])
def test_a_message_that_is_too_large_is_refused_with_topic_size_and_limit(connection, megabytes):
    [topic] = fresh_topics(connection, "large")
    producer = EventProducer(connection, "test")
    with pytest.raises(MessageTooLarge, match=re.escape(topic.name)) as caught:
        producer.send(topic, "a", common_pb2.PreferencePair(id="0", chosen="x" * (megabytes * 1_048_576)))
    assert caught.value.limit == 1_048_576 and caught.value.size > megabytes * 1_048_576
    assert str(caught.value.size) in str(caught.value) and "1048576" in str(caught.value)
    assert caught.value.violations[0][0] == "message"
    producer.send(topic, "a", pair(1))
    producer.close()
    assert numbers_of(read(connection, topic, 1)) == [1]


def test_a_message_just_below_the_limit_arrives(connection):
    [topic] = fresh_topics(connection, "full")
    producer = EventProducer(connection, "test")
    producer.send(topic, "a", common_pb2.PreferencePair(id="7", chosen="x" * (1_048_576 - 400)))
    producer.close()
    [record] = read(connection, topic, 1)
    assert len(record.message.chosen) == 1_048_576 - 400


def test_a_message_of_another_class_is_refused(connection):
    producer = EventProducer(connection, "test")
    with pytest.raises(TypeError, match=r"takes assay\.common\.v1\.PreferencePair, not assay\.common\.v1\.Message"):
        producer.send(PREFERENCES_RAW, "a", common_pb2.Message(content="hello"))


def test_sending_to_brokers_that_are_away_says_where_they_should_be():
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{taken.getsockname()[1]}"
        producer = EventProducer(KafkaConnection(address, bootstrap_timeout_s=1.0), "test")
        with pytest.raises(Unavailable, match=address):
            producer.send(PREFERENCES_RAW, "a", pair(1))


def test_a_topic_that_is_not_there_is_named(connection):
    with pytest.raises(Unavailable, match=r"no topic test\.nowhere\.v1"):
        end_offsets(connection, topic_of("test.nowhere.v1"))


def test_topics_are_made_as_the_table_says_and_making_them_twice_changes_nothing(connection):
    ensure_topics(connection)
    ensure_topics(connection)
    admin = connection.admin()
    try:
        found = {topic["name"]: len(topic["partitions"]) for topic in admin.describe_topics([topic.name for topic in ALL_TOPICS])}
    finally:
        admin.close()
    assert found == {topic.name: topic.partitions for topic in ALL_TOPICS}


def test_a_follower_sees_the_whole_topic_and_then_what_comes(connection):
    [topic] = fresh_topics(connection, "follow")
    publish(connection, topic, range(20))
    seen = []
    follower = TopicFollower(connection, topic, lambda record: seen.append(int(record.message.id)))
    follower.start()
    try:
        assert follower.caught_up(20)
        assert sorted(seen) == list(range(20))
        publish(connection, topic, range(20, 30))
        assert follower.caught_up(20)
        assert sorted(seen) == list(range(30))
    finally:
        follower.stop()


def test_a_follower_gives_the_same_record_again_when_the_callback_fails(connection):
    [topic] = fresh_topics(connection, "stumble", partitions=1)
    publish(connection, topic, range(3))
    seen, failures = [], [RuntimeError("not yet")]

    def take(record):
        if record.message.id == "1" and failures:
            raise failures.pop()
        seen.append(int(record.message.id))

    follower = TopicFollower(connection, topic, take)
    follower.start()
    try:
        assert follower.caught_up(20)
    finally:
        follower.stop()
    assert seen == [0, 1, 2]


def test_a_follower_passes_over_what_it_cannot_parse_and_is_told_of_deletions(connection, caplog):
    topic = topic_of("test.cards.v1", partitions=1, compacted=True)
    ensure_topics(connection, (topic,))
    raw = connection.producer(client_id="raw")
    raw.send(topic.name, key=b"a", value=b"\xff\xff\xff")
    raw.flush(10)
    raw.close(timeout=5)
    producer = EventProducer(connection, "test")
    producer.send(topic, "a", pair(1))
    producer.send(topic, "a", None)
    producer.close()
    seen = []
    follower = TopicFollower(connection, topic, seen.append)
    follower.start()
    try:
        assert follower.caught_up(20)
    finally:
        follower.stop()
    assert [record.message and record.message.id for record in seen][-2:] == ["1", None]
    assert "is no assay.common.v1.PreferencePair" in caplog.text


def test_answers_are_gathered_from_where_the_asking_began(connection):
    [topic] = fresh_topics(connection, "answers")
    publish(connection, topic, range(10))
    start = end_offsets(connection, topic)
    assert sum(start.values()) == 10
    publish(connection, topic, range(10, 16))
    found = []

    def wanted(record):
        even = int(record.message.id) % 2 == 0
        found.extend([record] * even)
        return even

    records = collect(connection, topic, start=start, wanted=wanted, until=lambda: len(found) == 3, timeout_s=20)
    assert numbers_of(records) == [10, 12, 14]


def test_gathering_gives_up_in_time_and_says_how_many_came(connection):
    [topic] = fresh_topics(connection, "few")
    publish(connection, topic, range(2))
    with pytest.raises(TimeoutError, match=r"within 2 s, 2 did"):
        collect(connection, topic, start={}, wanted=lambda _: True, until=lambda: False, timeout_s=2)
