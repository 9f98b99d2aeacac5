"""The HTTP server: bounded bodies, deadlines, errors, metrics and spans around every request, in a thread of its own."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import math
import socket
import ssl
import threading
import time
from collections.abc import Awaitable, Callable, Iterator, Mapping
from concurrent.futures import Future
from dataclasses import dataclass
from typing import Any, TypeAlias

from aiohttp import web
from opentelemetry import propagate, trace

from assay_kit.errors import AssayError, InvalidArgument, ResourceExhausted, Unavailable
from assay_kit.tracing import tracer
from assay_reward import metrics
from assay_reward.calls import CALLER_METADATA, caller_name
from assay_reward.doors.http_errors import refused, refused_by

logger = logging.getLogger(__name__)

TIMEOUT_HEADER = "x-assay-timeout-seconds"
"""Header by which a caller says how long it waits."""
_FULL_SECONDS = 1.0
_LAST_WORD_SECONDS = 1.0
"""For answers on their way when the server ends; what is not answered by then is cut off."""


@dataclass(frozen=True, kw_only=True)
class Post:
    """A request whose body is there."""

    body: bytes
    query: Mapping[str, str]
    """Of the URL."""
    caller: str
    deadline: float
    """On the clock of `time.monotonic`."""


Answer: TypeAlias = Callable[[Post], Awaitable[dict[str, Any]]]
"""Makes the JSON of the reply, or raises AssayError."""


@dataclass(frozen=True, kw_only=True)
class HttpLimits:
    """What one request may take, and all of them together."""

    body_bytes: int
    held_bytes: int
    """Of the bodies of all requests that are not answered; one alone is let in whatever its size."""
    seconds: float
    """Longest time of a request."""
    drain_seconds: float
    """Longest wait at the end for requests that have begun."""


class HttpServer:
    """A worker of the service."""

    def __init__(
        self, *, host: str, port: int, limits: HttpLimits, routes: Mapping[str, Answer], tls: ssl.SSLContext | None = None
    ) -> None:
        """Takes what to serve; `start` begins.

        Args:
            host: address to listen on.
            port: 0 takes a free one.
            limits: of a request and of all.
            routes: what is posted where.
            tls: for HTTPS; None: plaintext.
        """
        self._address = (host, port)
        self._limits = limits
        self._routes = routes
        self._tls = tls
        self._held = 0
        self._in_flight = 0
        self._idle = asyncio.Event()
        self._idle.set()
        self._thread = threading.Thread(target=self._run, name="http")
        self._loop: asyncio.AbstractEventLoop | None = None
        self._end = asyncio.Event()
        self._up: Future[str] = Future()

    @property
    def url(self) -> str:
        """Where it listens; to be asked once it is started."""
        return self._up.result()

    def start(self) -> None:
        """Listens.

        Raises:
            OSError: the address is taken or none of this machine.
        """
        self._thread.start()
        logger.info("HTTP is served at %s", self._up.result())

    def drain(self) -> None:
        """Takes no more, and ends connections as their requests are answered; returns at once."""
        loop, self._loop = self._loop, None
        if loop is not None:
            loop.call_soon_threadsafe(self._end.set)

    def stop(self) -> None:
        """Drains and ends."""
        self.drain()
        self._thread.join()

    def _run(self) -> None:
        try:
            asyncio.run(self._serve())
        except BaseException as error:
            if self._up.done():
                raise
            self._up.set_exception(error)

    async def _serve(self) -> None:
        host, port = self._address
        app = web.Application(client_max_size=self._limits.body_bytes + 1)
        app.router.add_route("*", "/{path:.*}", self._handle)
        runner = web.AppRunner(app, access_log=None, handler_cancellation=True, auto_decompress=False, shutdown_timeout=_LAST_WORD_SECONDS)
        await runner.setup()
        try:
            listening = socket.create_server((host, port), family=socket.AF_INET6 if ":" in host else socket.AF_INET)
            site = web.SockSite(runner, listening, ssl_context=self._tls)
            await site.start()
            self._loop = asyncio.get_running_loop()
            scheme = "http" if self._tls is None else "https"
            self._up.set_result(f"{scheme}://{f'[{host}]' if ':' in host else host}:{listening.getsockname()[1]}")
            await self._end.wait()
            # Python 3.11 loses a connection that it accepts while the listener closes, and its client waits; so accepting ends first.
            asyncio.get_running_loop().remove_reader(listening.fileno())
            await asyncio.sleep(0)
            await site.stop()
            # The runner's own shutdown reads no more of bodies that are still arriving, so it comes after the requests.
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(self._limits.drain_seconds):
                    await self._idle.wait()
        finally:
            await runner.cleanup()

    async def _handle(self, request: web.Request) -> web.StreamResponse:
        path = request.path if request.path in self._routes else "other"
        started = time.perf_counter()
        parent = propagate.extract({name.lower(): value for name, value in request.headers.items()})
        status = 499  # the caller went away, as nginx has it
        self._in_flight += 1
        self._idle.clear()
        try:
            with tracer.start_as_current_span(f"{request.method} {path}", context=parent, kind=trace.SpanKind.SERVER):
                response = await self._answer(request)
            if self._end.is_set():
                response.force_close()
            status = response.status
            return response
        finally:
            self._in_flight -= 1
            if not self._in_flight:
                self._idle.set()
            metrics.HTTP_REQUESTS.labels(path, str(status)).inc()
            metrics.HTTP_SECONDS.labels(path).observe(time.perf_counter() - started)

    async def _answer(self, request: web.Request) -> web.Response:
        answer = self._routes.get(request.path)
        if answer is None:
            return refused(404, "NOT_FOUND", f"there is no {request.path}; there are: {', '.join(sorted(self._routes))}", field="path")
        if request.method != "POST":
            response = refused(405, "METHOD_NOT_ALLOWED", f"{request.method} is not taken at {request.path}; POST is", field="method")
            response.headers["Allow"] = "POST"
            return response
        try:
            if self._end.is_set():
                raise Unavailable("the service ends")
            seconds = self._seconds(request)
            length = request.content_length
            if request.headers.get("Content-Encoding", "identity") != "identity":
                return refused(415, "UNSUPPORTED_MEDIA_TYPE", "a body is taken as it is, not compressed", field="content-encoding")
            if length is None:
                return refused(411, "LENGTH_REQUIRED", "the body's length is wanted before the body", field="content-length")
            if length > self._limits.body_bytes:
                said = f"the body has {length} bytes; at most {self._limits.body_bytes} are taken"
                return refused(413, "BODY_TOO_LARGE", said, field="content-length")
            with self._room(length):
                async with asyncio.timeout(seconds):
                    deadline = time.monotonic() + seconds
                    caller = caller_name(request.remote or "", request.headers.get(CALLER_METADATA, ""))
                    body = await request.read()
                    return web.json_response(await answer(Post(body=body, query=request.query, caller=caller, deadline=deadline)))
        except TimeoutError:
            return refused(504, "DEADLINE_EXCEEDED", f"it was not done in {seconds:g} s")
        except AssayError as error:
            return refused_by(error)
        except Exception:
            logger.exception("%s failed", request.path)
            return refused(500, "INTERNAL", f"{request.path} failed inside the service; its log has the details")

    def _seconds(self, request: web.Request) -> float:
        """How long the request may take; what the caller says, if that is less than the service's own limit."""
        said = request.headers.get(TIMEOUT_HEADER)
        if said is None:
            return self._limits.seconds
        try:
            seconds = float(said)
        except ValueError:
            seconds = math.nan
        if not 0 < seconds < math.inf:
            raise InvalidArgument(TIMEOUT_HEADER, f"{said!r} is no number of seconds above 0")
        return min(seconds, self._limits.seconds)

    @contextlib.contextmanager
    def _room(self, length: int) -> Iterator[None]:
        """Room for a body, held until the request is answered."""
        if self._held and self._held + length > self._limits.held_bytes:
            raise ResourceExhausted(f"{self._held} bytes of bodies are in work, of at most {self._limits.held_bytes}", _FULL_SECONDS)
        self._held += length
        try:
            yield
        finally:
            self._held -= length
