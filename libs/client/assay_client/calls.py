"""How calls are made: deadlines, and patience with services that are away or full."""

from __future__ import annotations

import json
import random
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, TypeVar

import grpc

from assay_client.errors import AssayClientError, error_of

MESSAGE_BYTES = 64 * 1024 * 1024
"""Largest message sent or taken, as the services have it."""
DEFAULT_TIMEOUT_SECONDS = 120.0
_FULL_PATIENCE_SECONDS = 30.0
_FIRST_PAUSE_SECONDS = 0.2
_LONGEST_PAUSE_SECONDS = 5.0

Answer = TypeVar("Answer")


def channel_options() -> list[tuple[str, Any]]:
    """Options of a channel: message sizes, quick reconnects, and gRPC's own short retry of UNAVAILABLE."""
    retry = {
        "methodConfig": [
            {
                "name": [{}],
                "retryPolicy": {
                    "maxAttempts": 4,
                    "initialBackoff": "0.1s",
                    "maxBackoff": "1s",
                    "backoffMultiplier": 2,
                    "retryableStatusCodes": ["UNAVAILABLE"],
                },
            }
        ]
    }
    return [
        ("grpc.max_receive_message_length", MESSAGE_BYTES),
        ("grpc.max_send_message_length", MESSAGE_BYTES),
        ("grpc.initial_reconnect_backoff_ms", 200),
        ("grpc.max_reconnect_backoff_ms", 2000),
        ("grpc.enable_retries", 1),
        ("grpc.service_config", json.dumps(retry)),
    ]


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

    def __init__(self, seconds: float) -> None:
        self._started = time.monotonic()
        self._seconds = seconds
        self._pause = _FIRST_PAUSE_SECONDS

    def after(self, error: AssayClientError) -> float | None:
        """Seconds to wait before the next attempt, with jitter; None: no more attempts."""
        if error.code is grpc.StatusCode.RESOURCE_EXHAUSTED and error.retry_after_seconds is not None:
            limit = max(self._seconds, _FULL_PATIENCE_SECONDS)
            pause = error.retry_after_seconds * random.uniform(1.0, 1.5)
        elif error.code is grpc.StatusCode.UNAVAILABLE:
            limit = self._seconds
            pause = self._pause * random.uniform(0.5, 1.0)
            self._pause = min(self._pause * 2, _LONGEST_PAUSE_SECONDS)
        else:
            return None
        if time.monotonic() - self._started + pause > limit:
            return None
        return pause


class Caller:
    """A channel to one service, and how to call over it."""

    def __init__(self, service: str, target: str, *, patience: Patience, timeout_seconds: float = DEFAULT_TIMEOUT_SECONDS) -> None:
        """Opens the channel; it connects with the first call."""
        self.target = target
        self.channel = grpc.insecure_channel(target, options=channel_options())
        self._where = f"{service} service at {target}"
        self._patience = patience
        self._timeout = timeout_seconds
        self._closed = threading.Event()

    def call(self, method: Callable[..., Answer], request: Any, *, timeout_seconds: float | None = None) -> Answer:
        """Calls, and calls again while there is patience.

        Args:
            method: of a stub.
            request: its message.
            timeout_seconds: deadline of each attempt; None: the client's default.

        Returns:
            The answer.

        Raises:
            AssayClientError: the call failed.
        """
        pauses = self._patience.pauses()
        while True:
            try:
                return method(request, timeout=self._timeout if timeout_seconds is None else timeout_seconds)
            except grpc.RpcError as failure:
                error = error_of(failure, self._where)
            self.pause_or_raise(error, pauses)

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
        self._closed.set()
        self.channel.close()
