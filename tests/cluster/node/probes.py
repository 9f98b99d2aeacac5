"""Probes and hooks of a container, by every means there is: gRPC health, HTTP, a TCP connection, a command, a pause."""

from __future__ import annotations

import asyncio
import contextlib

import grpc
import httpx
from cluster.node.client import Object
from cluster.node.commands import CommandFailed
from cluster.node.processes import ContainerProcess
from grpc_health.v1 import health_pb2, health_pb2_grpc


class ProbeFailed(Exception):
    """A probe's answer was no, or none; says why."""


async def check(probe: Object, container: Object, process: ContainerProcess, address: str) -> None:
    """Asks once.

    Raises:
        ProbeFailed: it is not as it should be.
    """
    timeout_s = probe.get("timeoutSeconds", 1)
    try:
        async with asyncio.timeout(timeout_s):
            await _ask(probe, container, process, address, timeout_s)
    except TimeoutError:
        raise ProbeFailed(f"no answer within {timeout_s} s") from None


async def run_hook(hook: Object, container: Object, process: ContainerProcess, address: str, timeout_s: float) -> None:
    """Runs a lifecycle hook; as with a kubelet, one that fails or takes too long does not keep the container from going."""
    if "sleep" in hook:
        await asyncio.sleep(min(hook["sleep"]["seconds"], timeout_s))
        return
    with contextlib.suppress(ProbeFailed, TimeoutError):
        async with asyncio.timeout(timeout_s):
            await _ask(hook, container, process, address, timeout_s)


async def _ask(probe: Object, container: Object, process: ContainerProcess, address: str, timeout_s: float) -> None:
    if "grpc" in probe:
        await _ask_grpc(f"{address}:{probe['grpc']['port']}", probe["grpc"].get("service") or "", timeout_s)
    elif "httpGet" in probe:
        await _ask_http(probe["httpGet"], container, address)
    elif "tcpSocket" in probe:
        await _ask_tcp(probe["tcpSocket"].get("host") or address, port_of(probe["tcpSocket"]["port"], container))
    elif "exec" in probe:
        try:
            await process.execute(probe["exec"]["command"], timeout_s)
        except CommandFailed as error:
            raise ProbeFailed(str(error)) from error
    else:
        raise ValueError(f"the test node knows no probe of this kind: {sorted(probe)}")


async def _ask_grpc(target: str, service: str, timeout_s: float) -> None:
    async with grpc.aio.insecure_channel(target, options=[("grpc.enable_http_proxy", 0)]) as channel:
        try:
            stub = health_pb2_grpc.HealthStub(channel)
            answer = await stub.Check(health_pb2.HealthCheckRequest(service=service), timeout=timeout_s)
        except grpc.aio.AioRpcError as error:
            raise ProbeFailed(f"{error.code().name}: {error.details()}") from error
    if answer.status != health_pb2.HealthCheckResponse.SERVING:
        raise ProbeFailed(f"{service or 'the server'} is {health_pb2.HealthCheckResponse.ServingStatus.Name(answer.status)}")


async def _ask_http(wanted: Object, container: Object, address: str) -> None:
    host = wanted.get("host") or address
    url = f"{wanted.get('scheme', 'HTTP').lower()}://{host}:{port_of(wanted['port'], container)}{wanted.get('path', '/')}"
    headers = {header["name"]: header["value"] for header in wanted.get("httpHeaders", [])}
    try:
        async with httpx.AsyncClient(verify=False, trust_env=False) as http:
            answer = await http.get(url, headers=headers)
    except httpx.TransportError as error:
        raise ProbeFailed(str(error)) from error
    if not 200 <= answer.status_code < 400:
        raise ProbeFailed(f"{url} answers {answer.status_code}")


async def _ask_tcp(host: str, port: int) -> None:
    try:
        _, writer = await asyncio.open_connection(host, port)
    except OSError as error:
        raise ProbeFailed(str(error)) from error
    writer.close()


def port_of(port: int | str, container: Object) -> int:
    """The number of a port that may be given by name."""
    if isinstance(port, int):
        return port
    return next(int(one["containerPort"]) for one in container.get("ports", []) if one.get("name") == port)
