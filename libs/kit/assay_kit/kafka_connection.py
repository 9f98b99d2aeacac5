"""How clients of the broker are made: one place for addresses, limits and time-outs."""

from __future__ import annotations

import logging
import threading
import uuid
from pathlib import Path
from typing import Any

from kafka import KafkaAdminClient, KafkaConsumer, KafkaProducer
from kafka.errors import KafkaConfigurationError, KafkaError, TopicAlreadyExistsError
from kafka.structs import TopicPartition

from assay_kit.errors import Unavailable
from assay_kit.kafka_access import KafkaAccess
from assay_kit.kafka_network import Network
from assay_kit.settings import ServiceSettings
from assay_kit.topics import ALL_TOPICS, MAX_MESSAGE_BYTES, Topic

logger = logging.getLogger(__name__)

SESSION_TIMEOUT_MS = 10_000
"""A member that sends no heartbeat for so long is dead, and its partitions go to the others."""
TRANSACTION_TIMEOUT_MS = 15_000
"""The broker aborts a transaction that is open for longer, so that a dead worker never blocks readers for long."""
LARGEST_REQUEST_BYTES = 2 * MAX_MESSAGE_BYTES + 65_536
"""Largest request sent and largest partition fetched at once; a dead letter must fit."""

_PLAINTEXT = KafkaAccess()


class KafkaConnection:
    """Where the broker is and who is talking to it. Opens nothing by itself; safe to share between threads."""

    def __init__(
        self,
        bootstrap: str,
        *,
        access: KafkaAccess = _PLAINTEXT,
        instance: str = "",
        create_topics: bool = False,
        bootstrap_timeout_s: float = 10.0,
    ) -> None:
        """Remembers how to connect.

        Args:
            bootstrap: Comma-separated host:port of the brokers.
            access: TLS and user; neither by default.
            instance: Names this process among its equals, and should be the same after a restart, so that a transaction
                left open by a crash is aborted at once; a random one by default.
            create_topics: Create missing topics of the table before the first client is made.
            bootstrap_timeout_s: How long to wait for the brokers' first answer.
        """
        self.bootstrap = bootstrap
        self.access = access
        self.instance = instance or uuid.uuid4().hex[:12]
        self.bootstrap_timeout_s = bootstrap_timeout_s
        self._create_topics = create_topics
        self._lock = threading.Lock()

    @classmethod
    def from_settings(cls, settings: ServiceSettings) -> KafkaConnection:
        """The connection of a service; an instance that is not given is kept in the service's data folder, which belongs to one process."""
        return cls(
            settings.kafka_bootstrap,
            access=KafkaAccess.from_settings(settings),
            instance=settings.instance or _kept_instance(settings.data_dir / "kafka-instance"),
            create_topics=settings.kafka_create_topics,
        )

    def producer(self, *, client_id: str, transactional_id: str | None = None) -> Any:
        """A kafka-python producer: idempotent, all replicas acknowledge; transactional with an id.

        Raises:
            Unavailable: the brokers do not answer.
        """
        options: dict[str, Any] = {}
        if transactional_id is not None:
            options = {"transactional_id": transactional_id, "transaction_timeout_ms": TRANSACTION_TIMEOUT_MS}
        return self._made(
            KafkaProducer,
            client_id=client_id,
            enable_idempotence=True,
            linger_ms=5,
            batch_size=65_536,
            max_request_size=LARGEST_REQUEST_BYTES,
            max_block_ms=10_000,
            request_timeout_ms=10_000,
            delivery_timeout_ms=60_000,
            allow_auto_create_topics=False,
            metrics_enabled=False,
            **options,
        )

    def consumer(self, *, client_id: str, group: str | None = None) -> Any:
        """A kafka-python consumer: read_committed, from the earliest record, never committing by itself.

        Raises:
            Unavailable: the brokers do not answer.
        """
        return self._made(
            KafkaConsumer,
            client_id=client_id,
            group_id=group,
            isolation_level="read_committed",
            auto_offset_reset="earliest",
            enable_auto_commit=False,
            session_timeout_ms=SESSION_TIMEOUT_MS,
            heartbeat_interval_ms=2_000,
            request_timeout_ms=10_000,
            max_partition_fetch_bytes=LARGEST_REQUEST_BYTES,
            metadata_max_age_ms=30_000,
            allow_auto_create_topics=False,
            metrics_enabled=False,
        )

    def create_topics_if_told(self) -> None:
        """Creates the missing topics, once for each connection, where the settings say so."""
        with self._lock:
            if self._create_topics:
                ensure_topics(self)
                self._create_topics = False

    def _made(self, client: Any, **options: Any) -> Any:
        self.create_topics_if_told()
        return self._connected(client, **options)

    def _connected(self, client: Any, **options: Any) -> Any:
        networks: list[Network] = []

        def network(**configs: Any) -> Network:
            networks.append(Network(**configs))
            return networks[-1]

        try:
            return client(
                bootstrap_servers=[address.strip() for address in self.bootstrap.split(",")],
                bootstrap_timeout_ms=round(self.bootstrap_timeout_s * 1000),
                reconnect_backoff_max_ms=1_000,
                kafka_client=network,
                **self.access.options(),
                **options,
            )
        except BaseException as error:
            refusal = next((opened.refusal for opened in networks if opened.refusal), "")
            for opened in networks:  # kafka-python leaves the thread and sockets of a client that could not be made
                opened.close()
            if refusal:
                raise Unavailable(f"Kafka at {self.bootstrap} does not let {self.access.who} in: {refusal}") from error
            if isinstance(error, KafkaError) and not isinstance(error, KafkaConfigurationError):
                raise Unavailable(f"Kafka at {self.bootstrap} does not answer: {error}") from error
            raise

    def admin(self, *, client_id: str = "assay-admin") -> Any:
        """A kafka-python admin client.

        Raises:
            Unavailable: the brokers do not answer.
        """
        return self._connected(KafkaAdminClient, client_id=client_id, request_timeout_ms=20_000)


def ensure_topics(connection: KafkaConnection, topics: tuple[Topic, ...] = ALL_TOPICS) -> None:
    """Creates those topics that are not there yet; what is there stays as it is.

    Raises:
        Unavailable: the brokers do not answer or refuse.
    """
    admin = connection.admin()
    try:
        present = set(admin.list_topics())
        missing = [topic for topic in topics if topic.name not in present]
        for topic in missing:
            try:
                admin.create_topics({topic.name: {"num_partitions": topic.partitions, "configs": topic.configs}})
            except TopicAlreadyExistsError:
                logger.debug("topic %s was made by another process meanwhile", topic.name)
        if missing:
            admin.wait_for_topics([topic.name for topic in missing])
    except KafkaError as error:
        raise Unavailable(f"Kafka at {connection.bootstrap} did not create the topics: {error}") from error
    finally:
        admin.close()


def end_offsets(connection: KafkaConnection, topic: Topic) -> dict[int, int]:
    """The offset after the newest committed record of each partition.

    Raises:
        Unavailable: the brokers do not answer, or there is no such topic.
    """
    consumer = connection.consumer(client_id="assay-end-offsets")
    try:
        partitions = partitions_of(consumer, topic)
        return {partition.partition: offset for partition, offset in consumer.end_offsets(partitions, timeout_ms=10_000).items()}
    except KafkaError as error:
        raise Unavailable(f"Kafka at {connection.bootstrap} did not tell the end of {topic.name}: {error}") from error
    finally:
        consumer.close()


def partitions_of(consumer: Any, topic: Topic) -> list[TopicPartition]:
    """All partitions of a topic.

    Raises:
        Unavailable: there is no such topic.
    """
    numbers = sorted(consumer.partitions_for_topic(topic.name))
    if not numbers:
        raise Unavailable(f"the brokers have no topic {topic.name}, or not for this user; set ASSAY_KAFKA_CREATE_TOPICS=true or create it")
    return [TopicPartition(topic.name, number) for number in numbers]


def _kept_instance(path: Path) -> str:
    try:
        return path.read_text(encoding="ascii").strip()
    except FileNotFoundError:
        path.parent.mkdir(parents=True, exist_ok=True)
        instance = uuid.uuid4().hex[:12]
        draft = path.with_name(f"{path.name}.{instance}")
        draft.write_text(instance, encoding="ascii")
        draft.replace(path)
        return instance
