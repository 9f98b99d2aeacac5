"""What happens around every RPC: a span, the go-grpc-prometheus metrics, and typed errors turned into canonical codes."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

import grpc
from google.protobuf.message import DecodeError
from grpc_status import rpc_status
from opentelemetry import propagate, trace
from prometheus_client import Counter, Histogram

from assay_kit.errors import AssayError, InvalidArgument, status_of
from assay_kit.tracing import tracer

logger = logging.getLogger(__name__)

LATENCY_BUCKETS = (0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 300)
_LABELS = ("grpc_type", "grpc_service", "grpc_method")
STARTED = Counter("grpc_server_started", "RPCs started on the server.", _LABELS)
HANDLED = Counter("grpc_server_handled", "RPCs completed on the server, by code.", (*_LABELS, "grpc_code"))
HANDLING = Histogram("grpc_server_handling_seconds", "Time of an RPC on the server.", _LABELS, buckets=LATENCY_BUCKETS)

Continuation = Callable[[grpc.HandlerCallDetails], Awaitable[Any]]


class ServerInterceptor(grpc.aio.ServerInterceptor):  # type: ignore[type-arg]
    """Wraps every handler of the server."""

    async def intercept_service(self, continuation: Continuation, handler_call_details: grpc.HandlerCallDetails) -> Any:
        """Returns the handler with span, metrics and error mapping around it."""
        handler = await continuation(handler_call_details)
        if handler is None or handler_call_details.method.startswith(("/grpc.health.", "/grpc.reflection.")):
            return handler
        around = _Around(handler_call_details, handler)
        make: Callable[..., Any]
        behaviour: Callable[[Any, Any], Any]
        if handler.request_streaming and handler.response_streaming:
            make, behaviour = grpc.stream_stream_rpc_method_handler, around.stream(handler.stream_stream)
        elif handler.response_streaming:
            make, behaviour = grpc.unary_stream_rpc_method_handler, around.stream(handler.unary_stream)
        elif handler.request_streaming:
            make, behaviour = grpc.stream_unary_rpc_method_handler, around.unary(handler.stream_unary)
        else:
            make, behaviour = grpc.unary_unary_rpc_method_handler, around.unary(handler.unary_unary)
        read = _undecodable_streamed if handler.request_streaming else _undecodable_kept
        deserializer = handler.request_deserializer and read(handler.request_deserializer)
        return make(behaviour, request_deserializer=deserializer, response_serializer=handler.response_serializer)


class _Around:
    def __init__(self, details: grpc.HandlerCallDetails, handler: Any) -> None:
        _, service, self._method = details.method.split("/")
        streaming = {(False, False): "unary", (False, True): "server_stream", (True, False): "client_stream", (True, True): "bidi_stream"}
        self._labels = (streaming[handler.request_streaming, handler.response_streaming], service, self._method)
        self._name = details.method.lstrip("/")
        metadata = {key: value for key, value in details.invocation_metadata or () if isinstance(value, str)}
        self._parent = propagate.extract(metadata)

    def unary(self, behaviour: Callable[[Any, Any], Awaitable[Any]]) -> Callable[[Any, Any], Awaitable[Any]]:
        async def handle(request: Any, context: grpc.aio.ServicerContext[Any, Any]) -> Any:
            # The span's own record of an exception formats its traceback, which costs more than refusing the call.
            with tracer.start_as_current_span(
                self._name, context=self._parent, kind=trace.SpanKind.SERVER, record_exception=False, set_status_on_exception=False
            ):
                started = self._started()
                try:
                    response = await behaviour(_decoded(request), context)
                except BaseException as error:
                    await self._failed(error, context, started)
                    raise
                self._handled(context.code() or grpc.StatusCode.OK, started)
                return response

        return handle

    def stream(self, behaviour: Callable[[Any, Any], AsyncIterator[Any]]) -> Callable[[Any, Any], AsyncIterator[Any]]:
        async def handle(request: Any, context: grpc.aio.ServicerContext[Any, Any]) -> AsyncIterator[Any]:
            started = self._started()
            try:
                async for response in behaviour(_decoded(request), context):
                    yield response
            except GeneratorExit:
                self._handled(grpc.StatusCode.CANCELLED, started)
                raise
            except BaseException as error:
                await self._failed(error, context, started)
                raise
            self._handled(context.code() or grpc.StatusCode.OK, started)

        return handle

    def _started(self) -> float:
        STARTED.labels(*self._labels).inc()
        return time.perf_counter()

    def _handled(self, code: Any, started: float) -> None:
        if not isinstance(code, grpc.StatusCode):
            code = next((status for status in grpc.StatusCode if status.value[0] == code), grpc.StatusCode.UNKNOWN)
        name = "".join(part.capitalize() for part in code.name.split("_")) if code is not grpc.StatusCode.OK else "OK"
        if code is not grpc.StatusCode.OK:
            trace.get_current_span().set_status(trace.StatusCode.ERROR, code.name)
        HANDLED.labels(*self._labels, name).inc()
        HANDLING.labels(*self._labels).observe(time.perf_counter() - started)

    async def _failed(self, error: BaseException, context: grpc.aio.ServicerContext[Any, Any], started: float) -> None:
        """Ends the call with the error's code; one that is not ours is INTERNAL, logged, and tells nothing of the inside."""
        if isinstance(error, asyncio.CancelledError):
            self._handled(grpc.StatusCode.CANCELLED, started)
            return
        if isinstance(error, grpc.aio.AbortError):
            self._handled(context.code() or grpc.StatusCode.UNKNOWN, started)
            return
        if isinstance(error, AssayError):
            self._handled(error.code, started)
            await context.abort_with_status(rpc_status.to_status(status_of(error)))  # type: ignore[attr-defined]
        self._handled(grpc.StatusCode.INTERNAL, started)
        trace.get_current_span().record_exception(error)
        logger.error("%s failed", self._method, exc_info=error)
        await context.abort(grpc.StatusCode.INTERNAL, f"{self._method} failed inside the service; its log has the details")


class _Undecodable:
    """Stands for a request whose bytes are no message of its type: gRPC itself would answer UNKNOWN, and count nothing."""

    def __init__(self, error: InvalidArgument) -> None:
        self.error = error


def _undecodable_kept(read: Callable[[bytes], Any]) -> Callable[[bytes], Any]:
    """A reader of the one request of a call, which is not yet inside the handler when it is read."""

    def kept(content: bytes) -> Any:
        try:
            return read(content)
        except DecodeError as error:
            return _Undecodable(_not_a_message(error))

    return kept


def _undecodable_streamed(read: Callable[[bytes], Any]) -> Callable[[bytes], Any]:
    """A reader of a stream's requests, which are read where the handler asks for them."""

    def streamed(content: bytes) -> Any:
        try:
            return read(content)
        except DecodeError as error:
            raise _not_a_message(error) from error

    return streamed


def _decoded(request: Any) -> Any:
    if isinstance(request, _Undecodable):
        raise request.error
    return request


def _not_a_message(error: DecodeError) -> InvalidArgument:
    return InvalidArgument("request", f"{error}; protobuf of that type is wanted, with text in UTF-8")
