"""The server that each service runs: gRPC doors, Kafka workers, health, reflection, metrics, and an orderly end."""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
import os
import signal
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import grpc
from grpc_health.v1 import health, health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection
from prometheus_client import Gauge, start_http_server

from assay_kit.errors import AssayError
from assay_kit.interceptors import ServerInterceptor
from assay_kit.logs import set_up_logs
from assay_kit.settings import ServiceSettings
from assay_kit.tls import CertificateFolder, server_credentials
from assay_kit.tracing import set_up_tracing

logger = logging.getLogger(__name__)

READY = Gauge("assay_service_ready", "1 while the service takes calls, 0 while it starts or drains.", ["service"])
_SERVING = health_pb2.HealthCheckResponse.SERVING
_NOT_SERVING = health_pb2.HealthCheckResponse.NOT_SERVING


class Worker(Protocol):
    """Work beside the gRPC server, in a thread of its own."""

    def start(self) -> None:
        """Begins; returns at once."""

    def stop(self) -> None:
        """Finishes what it has begun and ends; returns when it has."""


@dataclass(frozen=True, kw_only=True)
class Door:
    """A gRPC servicer with what is needed to mount it."""

    add: Callable[[Any, Any], None]
    """`add_XServicer_to_server` of the generated stubs."""
    servicer: Any
    service_name: str
    """Full name, for example "assay.reward.v1.RewardService"."""


class App:
    """A service put together: what `run` serves."""

    def __init__(
        self,
        *,
        name: str,
        settings: ServiceSettings,
        doors: Sequence[Door],
        workers: Sequence[Worker] = (),
        startup: Callable[[], None] | None = None,
        draining: Callable[[], None] | None = None,
        shutdown: Callable[[], None] | None = None,
        addresses: Callable[[], Mapping[str, str]] | None = None,
    ) -> None:
        """Takes the parts; nothing starts.

        Args:
            name: "reward", "policy", …
            settings: the settings in force.
            doors: gRPC servicers; each is NOT_SERVING until `startup` has returned.
            workers: started after `startup`, stopped before `shutdown`.
            startup: blocking work before the service is ready, for example loading models; runs in a thread.
            draining: called when the drain begins, to end streams that would outlast it; returns at once.
            shutdown: blocking work at the end; runs in a thread.
            addresses: where the service listens besides gRPC, by door, for endpoint.json; asked once it is ready.
        """
        self.name = name
        self.settings = settings
        self.doors = doors
        self.workers = workers
        self.startup = startup
        self.draining = draining
        self.shutdown = shutdown
        self.addresses = addresses
        self.health = ""
        """host:port of the server with nothing but health, while there is one."""


@contextlib.asynccontextmanager
async def running(app: App) -> AsyncIterator[str]:
    """Serves the app while the context is open; gives "host:port" of the gRPC server once it is ready.

    Raises:
        CertificateError: TLS is asked for with files of no use.
    """
    settings = app.settings
    certificates = None if settings.tls_dir is None else CertificateFolder(settings.tls_dir)
    READY.labels(app.name).set(0)
    server = grpc.aio.server(
        interceptors=[ServerInterceptor()],
        options=[
            ("grpc.max_receive_message_length", settings.grpc_max_message_bytes),
            ("grpc.max_send_message_length", settings.grpc_max_message_bytes),
            ("grpc.max_connection_age_ms", round(settings.grpc_max_connection_age_seconds * 1000)),
            # Clients may look every half minute whether a silent call still has a server; gRPC's default takes that for an attack.
            ("grpc.http2.min_ping_interval_without_data_ms", 30_000),
            ("grpc.so_reuseport", 0),
        ],
    )
    checks = health.aio.HealthServicer()  # type: ignore[attr-defined]
    health_pb2_grpc.add_HealthServicer_to_server(checks, server)
    names = [door.service_name for door in app.doors]
    for door in app.doors:
        door.add(door.servicer, server)
        await checks.set(door.service_name, _NOT_SERVING)
    await checks.set("", _SERVING)
    reflection.enable_server_reflection([*names, health.SERVICE_NAME, reflection.SERVICE_NAME], server)
    address = f"{settings.grpc_host}:{settings.grpc_port}"
    port = server.add_secure_port(address, server_credentials(certificates)) if certificates else server.add_insecure_port(address)
    started: list[Worker] = []
    async with _health_alone(settings, checks) as app.health:
        await server.start()
        try:
            if app.startup is not None:
                await asyncio.to_thread(app.startup)
            for worker in app.workers:
                worker.start()
                started.append(worker)
            for name in names:
                await checks.set(name, _SERVING)
            READY.labels(app.name).set(1)
            yield f"{settings.grpc_host}:{port}"
        finally:
            READY.labels(app.name).set(0)
            for name in names:
                await checks.set(name, _NOT_SERVING)
            if app.draining is not None:
                app.draining()
            await server.stop(settings.drain_seconds)
            for worker in reversed(started):
                await asyncio.to_thread(worker.stop)
            if app.shutdown is not None:
                await asyncio.to_thread(app.shutdown)


@contextlib.asynccontextmanager
async def _health_alone(settings: ServiceSettings, checks: Any) -> AsyncIterator[str]:
    """A server with nothing but health, in plaintext: a kubelet has no certificate. Gives host:port; empty where none is asked for."""
    if settings.health_port is None:
        yield ""
        return
    server = grpc.aio.server(options=[("grpc.so_reuseport", 0)])
    health_pb2_grpc.add_HealthServicer_to_server(checks, server)
    port = server.add_insecure_port(f"{settings.grpc_host}:{settings.health_port}")
    await server.start()
    try:
        yield f"{settings.grpc_host}:{port}"
    finally:
        await server.stop(None)


def run(app: App) -> int:
    """Serves the app until SIGTERM or SIGINT, drains, and returns the exit code.

    0 after the drain, 1 where it cannot start.
    """
    settings = app.settings
    set_up_logs(app.name, settings.log_level, settings.log_format)
    provider = set_up_tracing(app.name, settings.otlp_endpoint)
    try:
        asyncio.run(_serve(app))
    except AssayError as error:
        logger.critical("%s cannot start: %s", app.name, error.message, exc_info=True)
        return 1
    finally:
        provider.shutdown()
    return 0


async def _serve(app: App) -> None:
    settings = app.settings
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    metrics, _ = start_http_server(settings.metrics_port, settings.metrics_host)
    metrics_url = f"http://{settings.metrics_host}:{metrics.server_port}/metrics"
    try:
        async with running(app) as target:
            endpoint: dict[str, object] = {"grpc": target, "metrics": metrics_url, "pid": os.getpid()}
            if app.health:
                endpoint["health"] = app.health
            _write_endpoint(settings, endpoint | dict(app.addresses() if app.addresses is not None else {}))
            logger.info("%s is ready at %s", app.name, target, extra={"fields": {"metrics": metrics_url}})
            await stop.wait()
            logger.info("%s drains for at most %g s", app.name, settings.drain_seconds)
    finally:
        metrics.shutdown()
    logger.info("%s has ended", app.name)


def _write_endpoint(settings: ServiceSettings, endpoint: dict[str, object]) -> None:
    settings.data_dir.mkdir(parents=True, exist_ok=True)
    partial = settings.data_dir / "endpoint.json.partial"
    partial.write_text(json.dumps(endpoint))
    partial.replace(settings.data_dir / "endpoint.json")
