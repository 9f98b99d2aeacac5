"""Three Kafka nodes with TLS, passwords and rights: each user does its work, and nothing else; a node may die meanwhile."""

from __future__ import annotations

import threading
import time
import uuid
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from kafka import KafkaProducer
from kafka.errors import (
    GroupAuthorizationFailedError,
    KafkaError,
    KafkaTimeoutError,
    TopicAuthorizationFailedError,
    TransactionalIdAuthorizationFailedError,
)
from kafka.structs import TopicPartition
from support.certificates import Authority
from support.secure_kafka import NODES, SecureKafka

from assay_kit import dead_letters
from assay_kit.acls import USERS, rules_of
from assay_kit.errors import Unavailable
from assay_kit.groups import GROUPS, Group, transactional_ids
from assay_kit.kafka import EventProducer, KafkaConnection, Output, Record, Rejected, TopicFollower, TransactionalWorker, collect
from assay_kit.topics import ALL_TOPICS, DEAD_LETTERS, JOBS_EVENTS, OPERATOR, QUALITY_CARDS, REWARDS_REQUESTED, REWARDS_SCORED, Topic

GROUP_NAMES = (*(group.name for group in GROUPS), "assay-dead-letters-replay.x", "assay-clients-x", "x")
TRANSACTIONAL_IDS = (*(f"{transactional_ids(group.service, group.name)}0" for group in GROUPS), "assay-dead-letters-replay.x", "x")


@pytest.fixture(scope="module")
def kafka(tmp_path_factory: pytest.TempPathFactory) -> Iterator[SecureKafka]:
    with SecureKafka(tmp_path_factory.mktemp("secure-kafka")) as kafka:
        kafka.create_topics()
        yield kafka


def as_user(kafka: SecureKafka, user: str, **options: Any) -> KafkaConnection:
    return kafka.connection(kafka.name_of(user), **options)


def publish(connection: KafkaConnection, topic: Topic, keys: Sequence[str]) -> None:
    producer = EventProducer(connection, "test")
    for key in keys:
        producer.send(topic, key, topic.message())
    producer.close()


def keys_in(connection: KafkaConnection, topic: Topic, mark: str, number: int, *, settle_s: float = 0.0) -> list[str]:
    """Keys that begin with the mark, in what is committed: the first `number`, and what comes within `settle_s` seconds after them."""
    seen: list[str] = []
    until_s: list[float] = []

    def wanted(record: Record) -> bool:
        if record.key.decode().startswith(mark):
            seen.append(record.key.decode())
        return True

    def until() -> bool:
        if len(seen) >= number and not until_s:
            until_s.append(time.monotonic() + settle_s)
        return bool(until_s) and time.monotonic() >= until_s[0]

    collect(connection, topic, start={}, wanted=wanted, until=until, timeout_s=90)
    return seen


@pytest.mark.parametrize("group", GROUPS, ids=lambda group: group.name)
def test_a_service_answers_in_transactions_as_its_own_user(kafka: SecureKafka, group: Group) -> None:
    mark = uuid.uuid4().hex[:8]
    answers = next(topic for topic in ALL_TOPICS if group.service in topic.producers and "clients" in topic.consumers)

    def handle(records: Sequence[Record]) -> list[list[Output] | Rejected]:
        return [
            Rejected("not for us") if record.key.endswith(b"0") else [Output(answers, record.key.decode(), answers.message())]
            for record in records
        ]

    worker = TransactionalWorker(
        as_user(kafka, group.service, instance="0"), service=group.service, group=group.name, topics=[group.topic], handle=handle
    )
    worker.start()
    try:
        publish(as_user(kafka, "clients"), group.topic, [f"{mark}-{number}" for number in range(12)])
        answered = keys_in(as_user(kafka, "clients"), answers, mark, 10)
        refused = keys_in(as_user(kafka, OPERATOR), DEAD_LETTERS, mark, 2)
    finally:
        worker.stop()
    assert sorted(answered + refused) == sorted(f"{mark}-{number}" for number in range(12))
    assert sorted(refused) == [f"{mark}-0", f"{mark}-10"]


def test_evaluation_publishes_cards_and_events_and_those_who_may_follow_them(kafka: SecureKafka) -> None:
    mark = uuid.uuid4().hex[:8]
    told: dict[str, threading.Event] = {user: threading.Event() for user in QUALITY_CARDS.consumers}

    def hear(user: str) -> Any:
        return lambda record: told[user].set() if record.key.decode() == mark else None

    followers = [TopicFollower(as_user(kafka, user), QUALITY_CARDS, hear(user)) for user in told]
    for follower in followers:
        follower.start()
    try:
        publish(as_user(kafka, "evaluation"), QUALITY_CARDS, [mark])
        assert all(event.wait(30) for event in told.values())
    finally:
        for follower in followers:
            follower.stop()
    for user in JOBS_EVENTS.producers:
        publish(as_user(kafka, user), JOBS_EVENTS, [f"{mark}-{user}"])
    assert len(keys_in(as_user(kafka, "clients"), JOBS_EVENTS, mark, len(JOBS_EVENTS.producers))) == 3


def test_the_operator_lists_the_dead_letters_and_sends_them_back(kafka: SecureKafka) -> None:
    mark = uuid.uuid4().hex[:8]
    worker = TransactionalWorker(
        as_user(kafka, "reward", instance="0"),
        service="reward",
        group="assay-reward",
        topics=[REWARDS_REQUESTED],
        handle=lambda records: [Rejected("no such model") for _ in records],
    )
    worker.start()
    publish(as_user(kafka, "clients"), REWARDS_REQUESTED, [mark])
    operator = as_user(kafka, OPERATOR)
    assert keys_in(operator, DEAD_LETTERS, mark, 1) == [mark]
    worker.stop()
    assert mark in [stored.letter.key.decode() for stored in dead_letters.letters(operator, REWARDS_REQUESTED.name)]
    assert dead_letters.replay(operator, REWARDS_REQUESTED.name)[REWARDS_REQUESTED.name] >= 1
    assert dead_letters.replay(operator, REWARDS_REQUESTED.name)[REWARDS_REQUESTED.name] == 0


def allowed(user: str, resource: str, name: str, operation: str) -> bool:
    """What the table says."""
    return any(
        rule.resource == resource and operation in rule.operations and (name.startswith(rule.name) if rule.prefix else name == rule.name)
        for rule in rules_of(user)
    )


def test_what_is_in_no_rule_is_refused(kafka: SecureKafka) -> None:
    """Each user tries everything; what went through is what the table says."""
    for topic in ALL_TOPICS:  # something to be read in each partition of each
        producer = kafka.connection("admin").producer(client_id="test")
        for partition in range(topic.partitions):
            producer.send(topic.name, key=b"there", value=topic.message().SerializeToString(), partition=partition)
        producer.flush(10)
        producer.close()
    with ThreadPoolExecutor(len(USERS)) as pool:
        done = dict(zip(USERS, pool.map(lambda user: tried(kafka, user), USERS), strict=True))
    for user in USERS:
        expected = {("topic", topic.name, "Read") for topic in ALL_TOPICS if allowed(user, "topic", topic.name, "Read")}
        expected |= {("topic", topic.name, "Write") for topic in ALL_TOPICS if allowed(user, "topic", topic.name, "Write")}
        expected |= {("group", name, "Read") for name in GROUP_NAMES if allowed(user, "group", name, "Read")}
        expected |= {("transactionalId", name, "Write") for name in TRANSACTIONAL_IDS if allowed(user, "transactionalId", name, "Write")}
        assert done[user] == expected, user


def tried(kafka: SecureKafka, user: str) -> set[tuple[str, str, str]]:
    """What a user could do of everything there is to do."""
    done: set[tuple[str, str, str]] = set()
    connection = as_user(kafka, user)
    # Idempotent it would send nothing more once it was refused.
    producer = KafkaProducer(
        bootstrap_servers=kafka.bootstrap.split(","), enable_idempotence=False, max_block_ms=2_000, **connection.access.options()
    )
    for topic in ALL_TOPICS:
        try:
            producer.send(topic.name, key=b"tried", value=b"").get(10)
            done.add(("topic", topic.name, "Write"))
        except (TopicAuthorizationFailedError, KafkaTimeoutError):  # who may not even see it waits for it to come
            pass
        if can_read(connection, topic):
            done.add(("topic", topic.name, "Read"))
    producer.close()
    seen = next(name for kind, name, _ in sorted(done) if kind == "topic")
    for group in GROUP_NAMES:
        consumer = connection.consumer(client_id="test", group=group)
        try:
            consumer.committed(TopicPartition(seen, 0), timeout_ms=10_000)
            done.add(("group", group, "Read"))
        except GroupAuthorizationFailedError:
            pass
        consumer.close()
    for name in TRANSACTIONAL_IDS:
        transactional = connection.producer(client_id="test", transactional_id=name)
        try:
            transactional.init_transactions()
            done.add(("transactionalId", name, "Write"))
        except TransactionalIdAuthorizationFailedError:
            pass
        transactional._sender.force_close()
        transactional.close(timeout=0)
    admin = connection.admin()
    for forbidden in (
        lambda: admin.create_topics({f"of.{user}": {"num_partitions": 1}}),
        lambda: admin.delete_topics([seen]),
        lambda: admin.create_partitions({seen: 99}),
    ):
        with pytest.raises(KafkaError, match="uthorization"):
            forbidden()
    admin.close()
    return done


def can_read(connection: KafkaConnection, topic: Topic) -> bool:
    consumer = connection.consumer(client_id="test")
    try:
        consumer.assign([TopicPartition(topic.name, 0)])
        if topic.name not in consumer.topics():
            return False
        consumer.seek_to_beginning()
        deadline = time.monotonic() + 20
        while time.monotonic() < deadline:
            if consumer.poll(timeout_ms=500):
                return True
        raise AssertionError(f"neither read {topic.name} nor was refused")
    except TopicAuthorizationFailedError:
        return False
    finally:
        consumer.close()


def test_a_service_that_was_refused_once_goes_on_with_what_it_may(kafka: SecureKafka) -> None:
    mark = uuid.uuid4().hex[:8]
    producer = EventProducer(as_user(kafka, "reward"), "test")
    producer.send(REWARDS_REQUESTED, mark, REWARDS_REQUESTED.message())
    with pytest.raises(Unavailable, match=f"to {REWARDS_REQUESTED.name}: TopicAuthorizationFailed"):
        producer.flush()
    producer.send(REWARDS_SCORED, mark, REWARDS_SCORED.message())
    producer.close()
    assert keys_in(as_user(kafka, "clients"), REWARDS_SCORED, mark, 1) == [mark]


def test_who_is_not_let_in_is_told_why(kafka: SecureKafka, tmp_path: Path) -> None:
    with pytest.raises(Unavailable, match="does not let user assay-reward in: Authentication failed .* invalid credentials") as wrong:
        kafka.connection("assay-reward", "a-wrong-password", bootstrap_timeout_s=2.0).producer(client_id="test")
    assert "\n" not in str(wrong.value) and "a-wrong-password" not in str(wrong.value)
    with pytest.raises(Unavailable, match="does not let user nobody in: Authentication failed"):
        kafka.connection("nobody", bootstrap_timeout_s=2.0).consumer(client_id="test")
    (tmp_path / "ca.crt").write_bytes(Authority("another").certificate)
    elsewhere = replace(kafka.access("assay-reward"), tls_dir=tmp_path)
    with pytest.raises(Unavailable, match="certificate verify failed"):
        KafkaConnection(kafka.bootstrap, access=elsewhere, bootstrap_timeout_s=2.0).admin()


def test_a_node_dies_under_a_worker_and_every_answer_is_there_once(kafka: SecureKafka) -> None:
    mark = uuid.uuid4().hex[:8]
    keys = [f"{mark}-{number}" for number in range(300)]
    half = threading.Event()
    handled = 0

    def handle(records: Sequence[Record]) -> list[list[Output]]:
        nonlocal handled
        handled += len(records)
        if handled >= 100:
            half.set()
        time.sleep(0.05)
        return [[Output(REWARDS_SCORED, record.key.decode(), REWARDS_SCORED.message())] for record in records]

    worker = TransactionalWorker(
        as_user(kafka, "reward", instance="0"),
        service="reward",
        group="assay-reward",
        topics=[REWARDS_REQUESTED],
        handle=handle,
        max_batch=10,
        longest_pause_s=2.0,
    )
    publish(as_user(kafka, "clients"), REWARDS_REQUESTED, keys[:200])
    worker.start()
    try:
        assert half.wait(60)
        leader = kafka.leader_of(REWARDS_SCORED.name)
        kafka.kill_node(leader)
        publish(as_user(kafka, "clients"), REWARDS_REQUESTED, keys[200:])  # two of three replicas are enough to write
        answered = keys_in(as_user(kafka, "clients"), REWARDS_SCORED, mark, len(keys), settle_s=3.0)
    finally:
        worker.stop()
    assert sorted(answered) == sorted(keys)
    kafka.start_node(leader)
    kafka.wait_for_node(leader)
    assert leader in NODES and kafka.leader_of(REWARDS_SCORED.name) in NODES
