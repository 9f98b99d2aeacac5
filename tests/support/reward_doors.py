"""The reward service with its HTTP door, for tests of what comes through each door."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import aiohttp
import grpc
from support.reward_service import RewardClient

from assay.inference.v2 import open_inference_pb2 as oip
from assay.inference.v2 import open_inference_pb2_grpc
from assay_kit.server import running
from assay_reward.app import reward_app
from assay_reward.doors.http_server import HttpServer
from assay_reward.settings import RewardSettings


@dataclass(frozen=True)
class Doors:
    target: str
    grpc: RewardClient
    inference: open_inference_pb2_grpc.GRPCInferenceServiceStub
    url: str
    http: aiohttp.ClientSession

    async def post(self, path: str, body: object, **headers: str) -> tuple[int, dict[str, Any]]:
        async with self.http.post(self.url + path, json=body, headers=headers) as response:
            return response.status, await response.json()


@asynccontextmanager
async def doors(data_dir: Path, **settings: Any) -> AsyncIterator[Doors]:
    app = reward_app(RewardSettings(data_dir=data_dir, reward_http_port=0, **settings))
    async with running(app) as target, grpc.aio.insecure_channel(target) as channel, aiohttp.ClientSession() as session:
        [server] = [worker for worker in app.workers if isinstance(worker, HttpServer)]
        stub = open_inference_pb2_grpc.GRPCInferenceServiceStub(channel)
        yield Doors(target, RewardClient(channel), stub, server.url, session)


def texts_tensor(name: str, texts: list[str] | list[bytes]) -> oip.ModelInferRequest.InferInputTensor:
    """BYTES [n] with typed contents."""
    contents = oip.InferTensorContents(bytes_contents=[text.encode() if isinstance(text, str) else text for text in texts])
    return oip.ModelInferRequest.InferInputTensor(name=name, datatype="BYTES", shape=[len(texts)], contents=contents)


class RawConnection:
    """A connection over which a request is sent piece by piece."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader = reader
        self.writer = writer

    @classmethod
    async def post(cls, url: str, path: str, length: int | None, *headers: str) -> RawConnection:
        """Sends the head of a request, and waits until the server wants its body where there is to be one."""
        host, port = url.removeprefix("http://").split(":")
        reader, writer = await asyncio.open_connection(host, int(port))
        writer.get_extra_info("socket").setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        sized = [f"Content-Length: {length}", "Expect: 100-continue"] if length is not None else []
        writer.write("\r\n".join([f"POST {path} HTTP/1.1", f"Host: {host}:{port}", *sized, *headers, "", ""]).encode())
        await writer.drain()
        if sized:
            assert b"100 Continue" in await reader.readline()
            await reader.readline()
        return cls(reader, writer)

    async def send(self, body: bytes) -> None:
        self.writer.write(body)
        await self.writer.drain()

    async def again(self, path: str, body: bytes) -> None:
        """Posts once more over the same connection."""
        await self.send(f"POST {path} HTTP/1.1\r\nHost: same\r\nContent-Length: {len(body)}\r\n\r\n".encode() + body)

    async def answer(self, status: int) -> bytes:
        """The body of the answer, which must have the status."""
        assert await self.status() == status
        length = 0
        while (line := (await self.reader.readline()).strip()) != b"":
            name, _, value = line.partition(b":")
            if name.lower() == b"content-length":
                length = int(value)
        return await self.reader.readexactly(length)

    async def status(self) -> int:
        return int((await self.reader.readline()).split()[1])

    async def close(self) -> None:
        self.writer.close()
        await self.writer.wait_closed()
