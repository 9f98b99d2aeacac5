"""The server that each service runs: gRPC doors, Kafka workers, health, reflection, metrics, and an orderly end."""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
import os
import signal
from collections.abc import AsyncIterator, Callable, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import grpc
from grpc_health.v1 import health, health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection
from prometheus_client import Gauge, start_http_server

from assay_kit.interceptors import ServerInterceptor
from assay_kit.logs import set_up_logs
from assay_kit.settings import ServiceSettings
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
        """
        self.name = name
        self.settings = settings
        self.doors = doors
        self.workers = workers
        self.startup = startup
        self.draining = draining
        self.shutdown = shutdown


@contextlib.asynccontextmanager
async def running(app: App) -> AsyncIterator[str]:
    """Serves the app while the context is open; gives "host:port" of the gRPC server once it is ready."""
    settings = app.settings
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
    port = server.add_insecure_port(f"{settings.grpc_host}:{settings.grpc_port}")
    await server.start()
    started: list[Worker] = []
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


def run(app: App) -> int:
    """Serves the app until SIGTERM or SIGINT, drains, and returns the exit code."""
    settings = app.settings
    set_up_logs(app.name, settings.log_level, settings.log_format)
    provider = set_up_tracing(app.name, settings.otlp_endpoint)
    try:
        asyncio.run(_serve(app))
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
            _write_endpoint(settings, {"grpc": target, "metrics": metrics_url, "pid": os.getpid()})
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
