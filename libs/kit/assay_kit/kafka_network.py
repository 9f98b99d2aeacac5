"""kafka-python's network client, made to hear why a broker refuses."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from kafka.errors import KafkaConnectionError, SaslAuthenticationFailedError
from kafka.net.compat import KafkaNetClient


class Network(KafkaNetClient):  # type: ignore[misc]
    """Remembers how the brokers refused.

    A broker says that a password is wrong and closes the connection at once. kafka-python (3.0.12) reads both together, drops what was
    said, and goes on trying until its time is up, so here what was said is read first and the end with the next read.
    """

    def __init__(self, **configs: Any) -> None:
        super().__init__(**configs)
        self.refusal = ""
        """Why the newest connection was refused; empty where none was."""
        self._build = self._manager._build_transport
        self._manager._build_transport = self._build_transport

    async def _build_transport(self, node: Any, timeout_at: float | None = None) -> Any:
        try:
            transport = await self._build(node, timeout_at=timeout_at)
        except (KafkaConnectionError, OSError) as error:
            if "Handshake failed" in str(error):
                self.refusal = _said(error)
            raise
        transport._sock_recv = _words_before_the_end(transport._sock_recv)
        transport.abort = self._heard(transport.abort)
        return transport

    def _heard(self, abort: Callable[..., None]) -> Callable[..., None]:
        def heard(error: BaseException | None = None) -> None:
            if isinstance(error, SaslAuthenticationFailedError):
                self.refusal = _said(error)
            abort(error)

        return heard


def _words_before_the_end(receive: Callable[[], tuple[bytes, Any]]) -> Callable[[], tuple[bytes, Any]]:
    def received() -> tuple[bytes, Any]:
        data, error = receive()
        return (data, None) if data else (data, error)  # the error comes again with the next read

    return received


def _said(error: BaseException) -> str:
    """The words without kafka-python's names of errors before them."""
    return str(error).rpartition("Error: ")[2]
