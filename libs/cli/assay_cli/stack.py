"""The local stack: Apache Kafka and the five services on loopback, kept alive together and ended together."""

from __future__ import annotations

import fcntl
import json
import os
import shutil
import signal
import sys
import threading
import time
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from types import FrameType, TracebackType
from typing import IO, Any, Self

import grpc
from grpc_health.v1 import health_pb2, health_pb2_grpc

from assay_cli.broker import LocalBroker, print_report
from assay_cli.ports import free_ports
from assay_cli.supervised import Guardian, Report, Status, Supervised

HOST = "127.0.0.1"
_OF_OTHER_SERVICES = ("ASSAY_TLS_DIR", "ASSAY_HEALTH_PORT", "ASSAY_INSTANCE")
"""Settings that name one service or speak of a cluster; those of the local stack are plaintext, each at its own ports."""
_GRPC_OPTIONS = [("grpc.initial_reconnect_backoff_ms", 100), ("grpc.max_reconnect_backoff_ms", 500), ("grpc.enable_http_proxy", 0)]


@dataclass(frozen=True, kw_only=True)
class Service:
    """A service of the stack and how it is started."""

    name: str
    command: tuple[str, ...]
    """Program and arguments; it is told all else by ASSAY_… environment variables."""
    grpc_services: tuple[str, ...] = ()
    """Names whose health is SERVING when it is ready, beside its being alive."""
    environment: Mapping[str, str] = field(default_factory=dict)
    """What it is told where the caller's environment says nothing."""


_ENVIRONMENT = {"policy": {"ASSAY_THREADS": str(len(os.sched_getaffinity(0)))}}
"""Whoever waits for samples has nothing else to compute meanwhile, so that generation takes all cores."""

SERVICES: tuple[Service, ...] = tuple(
    Service(
        name=name,
        command=(sys.executable, "-m", f"assay_{name}"),
        grpc_services=(f"assay.{name}.v1.{name.capitalize()}Service",),
        environment=_ENVIRONMENT.get(name, {}),
    )
    for name in ("cleaning", "reward", "policy", "training", "evaluation")
)


class StackError(RuntimeError):
    """The stack could not be started; says why and what would help."""


class LocalStack:
    """Broker and services as child processes, with their state in one folder.

    What dies is started again, at the same address; what this process has started ends with it, however it ends.
    """

    def __init__(
        self,
        data_dir: str | os.PathLike[str],
        kafka_bootstrap: str | None = None,
        extra_env: Mapping[str, str] | None = None,
        *,
        services: Sequence[Service] = SERVICES,
        report: Report = print_report,
        start_timeout_s: float = 120.0,
        grace_s: float = 20.0,
        afresh: bool = False,
    ) -> None:
        """Remembers what to start; `start` or `with` does.

        Args:
            data_dir: Folder of all state; a later stack on it finds it again.
            kafka_bootstrap: host:port of another Kafka; None starts an own broker, "" does without Kafka.
            extra_env: Further environment of the services.
            services: What to start.
            report: Told of errors in the logs, deaths and restarts, by name; called from other threads.
            start_timeout_s: Longest wait until all are ready.
            grace_s: Longest wait for an orderly end; then all is killed.
            afresh: Whether the state of a former stack in the folder is removed first; that of one that still runs never is.
        """
        self.data_dir = Path(data_dir).resolve()
        self._services = tuple(services)
        self._report = report
        self._start_timeout_s = start_timeout_s
        self._grace_s = grace_s
        self._afresh = afresh
        self._extra_env = dict(extra_env or {})
        self._given_bootstrap = kafka_bootstrap
        self._broker: LocalBroker | None = None
        self._guardian: Guardian | None = None
        self._lock_file: IO[str] | None = None
        self._children: dict[str, Supervised] = {}
        self._ports: dict[str, tuple[int, int]] = {}
        self._watches: list[Any] = []
        self._end = threading.Event()

    @property
    def kafka_bootstrap(self) -> str:
        """host:port of Kafka; empty where there is none."""
        return self._broker.bootstrap if self._broker is not None else self._given_bootstrap or ""

    @property
    def endpoints(self) -> dict[str, str]:
        """host:port of each service's gRPC server, by name."""
        return {name: f"{HOST}:{grpc_port}" for name, (grpc_port, _) in self._ports.items()}

    @property
    def processes(self) -> dict[str, Status]:
        """How each process does: its id and how often it was started again."""
        found = {name: child.status for name, child in self._children.items()}
        return {"kafka": self._broker.status, **found} if self._broker is not None else found

    def endpoint_rows(self) -> list[list[str]]:
        """Name, gRPC address and metrics page of each service, for a table."""
        return [[name, f"{HOST}:{rpc}", _metrics_page(metrics)] for name, (rpc, metrics) in self._ports.items()]

    def start(self) -> Self:
        """Starts all and waits until all are ready.

        Raises:
            StackError: another stack runs on the folder, or a process does not start; says why, with the end of its log.
            JarsMissing: Kafka could not be fetched.
            BrokerFailed: Kafka did not start.
        """
        self._lock()
        try:
            if self._afresh:
                self._remove_former_state()
            deadline = time.monotonic() + self._start_timeout_s
            self._guardian = Guardian()
            if self._given_bootstrap is None:
                log = self._log_of("kafka")
                self._broker = LocalBroker(self.data_dir / "kafka", log=log, guardian=self._guardian, report=self._report).start(wait_s=0)
            self._choose_ports()
            if self._broker is not None:
                # Services that look for Kafka before it is there fill the screen with errors that are none.
                self._broker.wait_until_ready(max(1.0, deadline - time.monotonic()))
            for service in self._services:
                self._children[service.name] = self._started(service)
            self._wait_until_all_are_ready(deadline)
            self._write_endpoints()
        except BaseException:
            self.stop()
            raise
        return self

    def stop(self) -> None:
        """Ends all: the services at once and in order, then the broker, and whatever is left by force."""
        self._end.set()
        self._endpoints_file.unlink(missing_ok=True)
        with ThreadPoolExecutor(max_workers=max(1, len(self._children))) as pool:
            list(pool.map(lambda child: child.stop(self._grace_s), self._children.values()))
        if self._broker is not None:
            self._broker.stop(grace_s=self._grace_s)
            self._broker = None
        if self._guardian is not None:
            self._guardian.close()
            self._guardian = None
        self._children.clear()
        if self._lock_file is not None:
            self._lock_file.close()
            self._lock_file = None

    def run_forever(self) -> None:
        """Waits for Ctrl-C, SIGTERM or SIGHUP; all that dies meanwhile is started again. Call it from the main thread."""

        def end(number: int, frame: FrameType | None) -> None:
            self._end.set()

        numbers = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
        before = {number: signal.signal(number, end) for number in numbers}
        try:
            self._end.wait()
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)

    def __enter__(self) -> Self:
        self._ended_by_signal = _exit_on_sigterm()
        return self.start()

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.stop()
        if self._ended_by_signal is not None:
            signal.signal(signal.SIGTERM, self._ended_by_signal)

    @property
    def _endpoints_file(self) -> Path:
        return self.data_dir / "endpoints.json"

    def _log_of(self, name: str) -> Path:
        return self.data_dir / "logs" / f"{name}.log"

    def _lock(self) -> None:
        self.data_dir.mkdir(parents=True, exist_ok=True)
        lock = (self.data_dir / "lock").open("a+")
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            lock.seek(0)
            owner = lock.read().strip() or "unknown"
            lock.close()
            raise StackError(f"another stack (process {owner}) runs on {self.data_dir}: stop it, or choose another folder") from None
        lock.seek(0)
        lock.truncate()
        lock.write(str(os.getpid()))
        lock.flush()
        self._lock_file = lock

    def _remove_former_state(self) -> None:
        for former in self.data_dir.iterdir():
            if former.is_dir() and not former.is_symlink():
                shutil.rmtree(former)
            elif former.name != "lock":
                former.unlink()

    def _choose_ports(self) -> None:
        kept = self.data_dir / "ports.json"
        try:
            former = [int(port) for port in json.loads(kept.read_text())]
        except (FileNotFoundError, ValueError, TypeError):
            former = []
        ports = free_ports(2 * len(self._services), wished=former)
        kept.write_text(json.dumps(ports))
        self._ports = {service.name: (ports[2 * at], ports[2 * at + 1]) for at, service in enumerate(self._services)}

    def _environment_of(self, service: Service) -> dict[str, str]:
        rpc, metrics = self._ports[service.name]
        return {
            **service.environment,
            **{name: value for name, value in os.environ.items() if name not in _OF_OTHER_SERVICES},
            "OMP_NUM_THREADS": "1",
            "OMP_WAIT_POLICY": "PASSIVE",
            "HF_HUB_DISABLE_TELEMETRY": "1",
            "PYTHONUNBUFFERED": "1",
            **self._extra_env,
            "ASSAY_DATA_DIR": str(self.data_dir / service.name),
            "ASSAY_KAFKA_BOOTSTRAP": self.kafka_bootstrap,
            **({"ASSAY_KAFKA_SECURITY_PROTOCOL": "PLAINTEXT"} if self._broker is not None else {}),
            "ASSAY_KAFKA_CREATE_TOPICS": "true",
            "ASSAY_GRPC_HOST": HOST,
            "ASSAY_GRPC_PORT": str(rpc),
            "ASSAY_METRICS_HOST": HOST,
            "ASSAY_METRICS_PORT": str(metrics),
            **{f"ASSAY_{name.upper()}_TARGET": target for name, target in self.endpoints.items() if name != service.name},
        }

    def _started(self, service: Service) -> Supervised:
        assert self._guardian is not None
        (self.data_dir / service.name).mkdir(exist_ok=True)
        child = Supervised(
            service.name,
            service.command,
            environment=self._environment_of(service),
            log=self._log_of(service.name),
            guardian=self._guardian,
            report=self._report,
        )
        child.start()
        return child

    def _wait_until_all_are_ready(self, deadline: float) -> None:
        with ThreadPoolExecutor(max_workers=max(1, len(self._services))) as pool:
            try:
                for _ in pool.map(lambda service: self._wait_until_ready(service, deadline), self._services):
                    continue
            except BaseException:  # one has failed, or Ctrl-C: the others need not be waited for
                self._end.set()
                for watch in list(self._watches):
                    watch.cancel()
                raise

    def _wait_until_ready(self, service: Service, deadline: float) -> None:
        """Watches the health of a service until it serves; fails as soon as it is down for good, or out of time."""
        child = self._children[service.name]
        for name in ("", *service.grpc_services):
            if not self._serves(service, name, child, deadline):
                why = "has ended" if child.ended.is_set() else f"was not ready within {self._start_timeout_s:g} s"
                raise StackError(f"the {service.name} service {why}, see {self._log_of(service.name)}:\n{child.last_lines}")

    def _serves(self, service: Service, name: str, child: Supervised, deadline: float) -> bool:
        with grpc.insecure_channel(self.endpoints[service.name], options=_GRPC_OPTIONS) as channel:
            stub = health_pb2_grpc.HealthStub(channel)
            while (left := deadline - time.monotonic()) > 0 and not child.ended.is_set():
                watch = stub.Watch(health_pb2.HealthCheckRequest(service=name), timeout=left, wait_for_ready=True)
                self._watches.append(watch)
                child.call_on_exit(watch.cancel)
                if self._end.is_set():
                    return False
                try:
                    if any(answer.status == health_pb2.HealthCheckResponse.SERVING for answer in watch):
                        return True
                except grpc.RpcError:
                    child.ended.wait(0.1)
                finally:
                    watch.cancel()
        return False

    def _write_endpoints(self) -> None:
        written: dict[str, Any] = {
            "kafka": self.kafka_bootstrap,
            **self.endpoints,
            "metrics": {name: _metrics_page(metrics) for name, (_, metrics) in self._ports.items()},
            "pid": os.getpid(),
        }
        draft = self._endpoints_file.with_suffix(".partial")
        draft.write_text(json.dumps(written, indent=2))
        draft.replace(self._endpoints_file)


def _metrics_page(port: int) -> str:
    return f"http://{HOST}:{port}/metrics"


def _exit_on_sigterm() -> Any:
    """Lets SIGTERM leave `with` blocks in order; the handler there was, or None outside the main thread."""
    if threading.current_thread() is not threading.main_thread():
        return None

    def leave(number: int, frame: FrameType | None) -> None:
        raise SystemExit(128 + number)

    return signal.signal(signal.SIGTERM, leave)
