"""As much of HTTP/2 as it takes to send a gRPC call that no gRPC client would, and to read its status."""

import asyncio
import struct
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

DATA, HEADERS, SETTINGS, WINDOW_UPDATE = 0x0, 0x1, 0x4, 0x8
END_STREAM, ACK, END_HEADERS = 0x1, 0x1, 0x4
INITIAL_WINDOW = 0x4
PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
FIRST_WINDOW = 65_535
SECONDS = 30


class Connection:
    """One call on stream 1."""

    def __init__(self, target: str, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._target, self._reader, self._writer = target, reader, writer
        self._windows = {0: FIRST_WINDOW, 1: FIRST_WINDOW}
        self._initial = FIRST_WINDOW
        self._status: int | None = None
        self.sent = 0
        """Bytes of data."""

    def call(self, path: str, *, timeout: str = "") -> None:
        """Begins the call; a timeout as on the wire, such as "1n"."""
        headers = {
            ":method": "POST",
            ":scheme": "http",
            ":path": path,
            ":authority": self._target,
            "te": "trailers",
            "content-type": "application/grpc",
        }
        if timeout:
            headers["grpc-timeout"] = timeout
        block = b"".join(b"\x00" + _text(name) + _text(value) for name, value in headers.items())
        self._writer.write(PREFACE + _frame(SETTINGS, 0, 0, b"") + _frame(HEADERS, END_HEADERS, 1, block))

    async def send(self, payload: bytes, *, end: bool = False) -> bool:
        """Sends data, at most 16 KiB, when the server lets it; whether the call still goes on."""
        while self._status is None and min(self._windows.values()) < len(payload):
            await self._read_frame()
        if self._status is not None:
            return False
        self._windows = {stream: window - len(payload) for stream, window in self._windows.items()}
        self._writer.write(_frame(DATA, END_STREAM if end else 0, 1, payload))
        await self._writer.drain()
        self.sent += len(payload)
        return True

    async def status(self) -> int:
        """The call's code."""
        while self._status is None:
            await self._read_frame()
        return self._status

    async def _read_frame(self) -> None:
        head = await asyncio.wait_for(self._reader.readexactly(9), SECONDS)
        payload = await asyncio.wait_for(self._reader.readexactly(int.from_bytes(head[:3], "big")), SECONDS)
        kind, flags, stream = head[3], head[4], int.from_bytes(head[5:], "big")
        if kind == SETTINGS and not flags & ACK:
            settings = dict(struct.iter_unpack(">HL", payload))
            initial = settings.get(INITIAL_WINDOW, self._initial)
            self._windows[1] += initial - self._initial
            self._initial = initial
            self._writer.write(_frame(SETTINGS, ACK, 0, b""))
        elif kind == WINDOW_UPDATE:
            self._windows[stream] += int.from_bytes(payload, "big")
        elif kind == HEADERS and b"grpc-status" in payload:
            # The server writes names and values as they are, each after its length.
            place = payload.index(b"grpc-status") + len(b"grpc-status")
            self._status = int(payload[place + 1 : place + 1 + payload[place]])


@asynccontextmanager
async def connected(target: str) -> AsyncIterator[Connection]:
    host, port = target.split(":")
    reader, writer = await asyncio.open_connection(host, int(port))
    try:
        yield Connection(target, reader, writer)
    finally:
        writer.close()


def _frame(kind: int, flags: int, stream: int, payload: bytes) -> bytes:
    return len(payload).to_bytes(3, "big") + bytes([kind, flags]) + stream.to_bytes(4, "big") + payload


def _text(text: str) -> bytes:
    raw = text.encode()
    assert len(raw) < 127
    return bytes([len(raw)]) + raw
