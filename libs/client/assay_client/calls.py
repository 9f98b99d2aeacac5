"""How calls are made: deadlines, and patience with services that are away or full."""

from __future__ import annotations

import asyncio
import random
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, TypeVar

import grpc

from assay_client.channels import Security, open_async_channel, open_channel
from assay_client.errors import AssayClientError, DeadlineExceeded, error_of

DEFAULT_TIMEOUT_SECONDS = 120.0
_FULL_PATIENCE_SECONDS = 30.0
_FIRST_PAUSE_SECONDS = 0.2
_LONGEST_PAUSE_SECONDS = 5.0
_ENDING_SECONDS = 600.0
"""For calls on a channel whose files have changed."""

Answer = TypeVar("Answer")
Stub = TypeVar("Stub")


@dataclass(frozen=True, kw_only=True)
class Patience:
    """How long to go on asking a service that is away or full."""

    seconds: float = 0.0
    """Longest time that UNAVAILABLE is waited out; 0 leaves it at gRPC's own short retry. RESOURCE_EXHAUSTED: this, or 30 s if longer."""

    def pauses(self) -> Pauses:
        """The pauses of one call."""
        return Pauses(self.seconds)


class Pauses:
    """The pauses between the attempts of one call."""

    def __init__(self, seconds: float, *, until: float = float("inf")) -> None:
        """Nothing has failed yet.

        Args:
            seconds: as `Patience`; counted from the first failure.
            until: end of the last pause at the latest, on the clock of `time.monotonic`.
        """
        self._failed_at: float | None = None
        self._until = until
        self._seconds = seconds
        self._pause = _FIRST_PAUSE_SECONDS

    def after(self, error: AssayClientError) -> float | None:
        """Seconds to wait before the next attempt, with jitter; None: no more attempts."""
        now = time.monotonic()
        if self._failed_at is None:
            self._failed_at = now
        if error.code is grpc.StatusCode.RESOURCE_EXHAUSTED and error.retry_after_seconds is not None:
            limit = max(self._seconds, _FULL_PATIENCE_SECONDS)
            pause = error.retry_after_seconds * random.uniform(1.0, 1.5)
        elif error.code is grpc.StatusCode.UNAVAILABLE:
            limit = self._seconds
            pause = self._pause * random.uniform(0.5, 1.0)
            self._pause = min(self._pause * 2, _LONGEST_PAUSE_SECONDS)
        else:
            return None
        if now + pause > min(self._failed_at + limit, self._until):
            return None
        return pause


class Attempts:
    """The attempts of one call: how long each may take, and the pauses between.

    A timeout given with the call is the deadline of all its attempts and pauses. Without one, each attempt has the client's default, and
    the whole ends by the default or the patience, whichever is longer.
    """

    def __init__(self, patience: Patience, *, default_seconds: float, timeout_seconds: float | None) -> None:
        self._each = default_seconds if timeout_seconds is None else timeout_seconds
        self._seconds = max(default_seconds, patience.seconds) if timeout_seconds is None else timeout_seconds
        self._until = time.monotonic() + self._seconds
        self._pauses = Pauses(patience.seconds, until=self._until)

    def timeout(self) -> float:
        """Seconds of the attempt that begins now.

        Raises:
            DeadlineExceeded: there are none left.
        """
        left = self._until - time.monotonic()
        if left <= 0:
            raise DeadlineExceeded(grpc.StatusCode.DEADLINE_EXCEEDED, f"the call's time, {self._seconds:g} s, is up; nothing was sent")
        return min(self._each, left)

    def pause_after(self, error: AssayClientError) -> float:
        """Seconds to wait before the next attempt.

        Raises:
            AssayClientError: the error, where there is no next attempt.
        """
        pause = self._pauses.after(error)
        if pause is None:
            raise error
        return pause


class Caller:
    """A channel to one service, and how to call over it. Threads may share it.

    Where the files of its TLS change, the next call goes over another channel; calls that have begun end on theirs.
    """

    def __init__(
        self,
        service: str,
        target: str,
        *,
        patience: Patience,
        timeout_seconds: float = DEFAULT_TIMEOUT_SECONDS,
        security: Security | None = None,
    ) -> None:
        """Opens the channel; it connects with the first call. `target` is as `assay_client.channels.target_of` takes it."""
        self.target = target
        self._security = security
        self._opening = threading.Lock()
        self._written = security.written() if security is not None else ()
        self._channel = open_channel(target, security)
        self._stubs: dict[Any, Any] = {}
        self._where = f"{service} service at {target}"
        self._patience = patience
        self._timeout = timeout_seconds
        self._closed = threading.Event()

    def stub(self, of: Callable[[grpc.Channel], Stub]) -> Stub:
        """The stub of a class, on the channel for calls that begin now."""
        with self._opening:
            if self._security is not None and not self._closed.is_set() and (written := self._security.written()) != self._written:
                self._written, self._channel, self._stubs = written, open_channel(self.target, self._security), {}
            if of not in self._stubs:
                self._stubs[of] = of(self._channel)
            stub: Stub = self._stubs[of]
            return stub

    def call(self, method: Callable[..., Answer], request: Any, *, timeout_seconds: float | None = None) -> Answer:
        """Calls, and calls again while there is patience.

        Args:
            method: of a stub.
            request: its message.
            timeout_seconds: deadline of the call with all its attempts; None: as `Attempts` says.

        Returns:
            The answer.

        Raises:
            AssayClientError: the call failed.
        """
        attempts = Attempts(self._patience, default_seconds=self._timeout, timeout_seconds=timeout_seconds)
        while True:
            try:
                return method(request, timeout=attempts.timeout())
            except grpc.RpcError as failure:
                error = error_of(failure, self._where)
            if self._closed.wait(attempts.pause_after(error)):
                raise error

    def stream(self, method: Callable[..., Any], request: Any, *, timeout_seconds: float | None = None) -> Iterator[Any]:
        """Answers of a server stream; a stream that breaks is not begun again, as nobody else knows where it stood.

        Raises:
            AssayClientError: the call failed.
        """
        try:
            yield from method(request, timeout=timeout_seconds)
        except grpc.RpcError as failure:
            raise error_of(failure, self._where) from failure

    def pauses(self) -> Pauses:
        """The pauses of a call that somebody else repeats."""
        return self._patience.pauses()

    def pause_or_raise(self, error: AssayClientError, pauses: Pauses) -> None:
        """Waits before the next attempt, or raises where there is none."""
        pause = pauses.after(error)
        if pause is None or self._closed.wait(pause):
            raise error

    def close(self) -> None:
        """Closes the channel and ends the waits."""
        with self._opening:
            self._closed.set()
            self._channel.close()


class AsyncCaller:
    """Channels to one service, one at a time, and how to call over them from coroutines.

    A channel works only on the event loop it was made on, so a call on another loop opens another one.
    """

    def __init__(
        self,
        service: str,
        target: str,
        *,
        patience: Patience,
        timeout_seconds: float = DEFAULT_TIMEOUT_SECONDS,
        security: Security | None = None,
    ) -> None:
        """Opens nothing yet. `target` is as `assay_client.channels.target_of` takes it."""
        self.target = target
        self._where = f"{service} service at {target}"
        self._patience = patience
        self._timeout = timeout_seconds
        self._security = security
        self._written: tuple[Any, ...] = ()
        self._channel: grpc.aio.Channel | None = None
        self._loop: asyncio.AbstractEventLoop | None = None
        self._closing: set[asyncio.Task[None]] = set()

    def channel(self) -> grpc.aio.Channel:
        """The channel for calls that begin now on the running loop; another one where the files of its TLS have changed."""
        loop = asyncio.get_running_loop()
        written = self._security.written() if self._security is not None else ()
        if self._channel is None or self._loop is not loop or self._written != written:
            if self._channel is not None and self._loop is loop:
                closing = loop.create_task(self._channel.close(_ENDING_SECONDS))
                self._closing.add(closing)
                closing.add_done_callback(self._closing.discard)
            self._channel = open_async_channel(self.target, self._security)
            self._loop = loop
            self._written = written
        return self._channel

    async def call(self, method: Callable[..., Any], request: Any, *, timeout_seconds: float | None = None) -> Any:
        """As `Caller.call`; cancelling the task cancels the call at the service."""
        attempts = Attempts(self._patience, default_seconds=self._timeout, timeout_seconds=timeout_seconds)
        while True:
            try:
                return await method(request, timeout=attempts.timeout())
            except grpc.aio.AioRpcError as failure:
                error = error_of(failure, self._where)
            await asyncio.sleep(attempts.pause_after(error))

    async def close(self) -> None:
        """Closes the channel; call it on the loop that used it."""
        if self._channel is not None:
            await self._channel.close(None)
            self._channel = self._loop = None

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_channel": None, "_loop": None, "_closing": set()}
