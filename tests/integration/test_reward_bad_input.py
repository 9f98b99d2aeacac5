"""What nobody should send, on the real wire: each ends with its canonical code, soon, and the service goes on unmoved."""

import os
from collections.abc import AsyncIterator
from pathlib import Path

import grpc
import pytest
from support import http2
from support.reward_service import RewardClient, details, group, item, reward_service, selector
from support.tiny_models import write_tiny_reward_model

from assay.reward.v1 import reward_pb2

SERVICE = "/assay.reward.v1.RewardService"
ADMIN = "/assay.reward.v1.ModelAdminService"
NOT_UTF8 = b"\xff\xfe bread \x80"
GIB = 1 << 30


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_tiny_reward_model(tmp_path_factory.mktemp("models") / "rm")


@pytest.fixture
async def client(tmp_path: Path, folder: Path) -> AsyncIterator[RewardClient]:
    async with reward_service(tmp_path) as client:
        await client.load("rm", folder)
        yield client


async def raw_call(client: RewardClient, method: str, payload: bytes, **options: object) -> grpc.aio.AioRpcError:
    """Sends bytes as they are; gives the error that must come."""
    call = client.channel.unary_unary(method)
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await call(payload, **options)
    return caught.value


async def still_scores(client: RewardClient) -> None:
    assert len((await client.reward.ScoreGroup(group(["Mix flour and water."]))).scores) == 1


def field(number: int, content: bytes) -> bytes:
    """A length-delimited field of protobuf."""
    length, size = len(content), bytearray()
    while True:
        length, seven = length >> 7, length & 127
        size.append(seven | (128 if length else 0))
        if not length:
            return bytes([number << 3 | 2]) + bytes(size) + content


def resident_bytes() -> int:
    with open("/proc/self/statm") as statm:
        return int(statm.read().split()[1]) * os.sysconf("SC_PAGE_SIZE")


BAD_TEXTS = {
    "candidate": ("ScoreGroup", field(4, field(2, NOT_UTF8))),
    "candidate id": ("ScoreGroup", field(4, field(1, NOT_UTF8))),
    "message": ("ScoreGroup", field(2, field(1, field(2, NOT_UTF8)))),
    "model": ("ScoreBatch", field(1, field(1, NOT_UTF8))),
    "raw text": ("ScoreBatch", field(2, field(4, NOT_UTF8))),
    "request id": ("ScoreBatch", field(4, NOT_UTF8)),
    "prompt": ("RenderPrompt", field(2, field(1, field(2, NOT_UTF8)))),
}


@pytest.mark.parametrize("where", BAD_TEXTS)
async def test_text_that_is_not_utf8_is_an_invalid_argument(client: RewardClient, where: str) -> None:
    method, payload = BAD_TEXTS[where]
    error = await raw_call(client, f"{SERVICE}/{method}", payload)
    assert error.code() is grpc.StatusCode.INVALID_ARGUMENT
    assert "UTF-8" in str(error.details())
    await still_scores(client)


@pytest.mark.parametrize("payload", [b"\xff" * 64, field(4, b"")[:-1] + b"\x7f", b"\x0b\x0b\x0b", GIB.to_bytes(8, "little")])
async def test_bytes_that_are_no_message_are_an_invalid_argument(client: RewardClient, payload: bytes) -> None:
    for method in (f"{SERVICE}/ScoreGroup", f"{ADMIN}/LoadModel"):
        error = await raw_call(client, method, payload)
        assert error.code() is grpc.StatusCode.INVALID_ARGUMENT
        assert "ScoreGroupRequest" in str(error.details()) or "LoadModelRequest" in str(error.details())
    await still_scores(client)


async def test_bytes_that_are_no_message_end_a_stream(client: RewardClient) -> None:
    async def sent() -> AsyncIterator[bytes]:
        yield reward_pb2.ScoreStreamRequest(
            batch=reward_pb2.ScoreBatchRequest(items=[item("Mix flour.")], request_id="good")
        ).SerializeToString()
        yield field(1, field(4, NOT_UTF8))

    call = client.channel.stream_stream(f"{SERVICE}/ScoreStream")(sent())
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        async for _ in call:
            pass
    assert caught.value.code() is grpc.StatusCode.INVALID_ARGUMENT
    await still_scores(client)


async def test_a_gigabyte_is_refused_after_a_few_megabytes(client: RewardClient) -> None:
    async with http2.connected(client.target) as connection:
        connection.call(f"{SERVICE}/ScoreGroup")
        before, part = resident_bytes(), bytes(16_384)
        under_way = await connection.send(b"\x00" + GIB.to_bytes(4, "big"))
        while under_way and connection.sent < GIB:
            under_way = await connection.send(part)
        assert await connection.status() == grpc.StatusCode.RESOURCE_EXHAUSTED.value[0]
        assert connection.sent < GIB // 16
        assert resident_bytes() - before < 64 << 20
    await still_scores(client)


async def test_a_message_just_over_the_limit_is_refused_and_one_below_is_read(tmp_path: Path, folder: Path) -> None:
    limit = 1 << 20
    async with reward_service(tmp_path, grpc_max_message_bytes=limit) as client:
        await client.load("rm", folder)
        error = await raw_call(client, f"{SERVICE}/ScoreGroup", bytes(limit + 1))
        assert error.code() is grpc.StatusCode.RESOURCE_EXHAUSTED and str(limit) in str(error.details())
        error = await raw_call(client, f"{SERVICE}/ScoreGroup", group(["x" * (limit - 1000)]).SerializeToString())
        assert error.code() is grpc.StatusCode.INVALID_ARGUMENT  # read, and too long for the model
        await still_scores(client)


async def test_a_million_candidates_are_refused_with_the_field_and_the_limit(client: RewardClient) -> None:
    candidate = field(4, field(2, b"Mix flour."))
    head = group([]).SerializeToString()
    error = await raw_call(client, f"{SERVICE}/ScoreGroup", head + candidate * 1_000_000, timeout=60)
    assert error.code() is grpc.StatusCode.INVALID_ARGUMENT
    violations, _ = details(error)
    assert "1000000" in violations["candidates"].replace(",", "") and "256" in violations["candidates"]
    one = field(2, item("Mix flour.").SerializeToString())
    error = await raw_call(client, f"{SERVICE}/ScoreBatch", one * 500_000, timeout=60)
    assert error.code() is grpc.StatusCode.INVALID_ARGUMENT
    violations, _ = details(error)
    assert "500000" in violations["items"].replace(",", "") and "4096" in violations["items"].replace(",", "")
    await still_scores(client)


async def test_a_deadline_in_the_past_is_deadline_exceeded(client: RewardClient) -> None:
    for method, request in (
        ("ScoreGroup", group(["Mix flour."])),
        ("ScoreBatch", reward_pb2.ScoreBatchRequest(items=[item("Mix flour.")])),
    ):
        for timeout in (0, -5):
            error = await raw_call(client, f"{SERVICE}/{method}", request.SerializeToString(), timeout=timeout)
            assert error.code() is grpc.StatusCode.DEADLINE_EXCEEDED
    await still_scores(client)


async def test_a_deadline_that_is_past_when_the_call_arrives_is_deadline_exceeded(client: RewardClient) -> None:
    """What another client than gRPC's own may send: that one does not send such a call."""
    async with http2.connected(client.target) as connection:
        connection.call(f"{SERVICE}/ScoreGroup", timeout="1n")
        message = group(["Mix flour."]).SerializeToString()
        await connection.send(b"\x00" + len(message).to_bytes(4, "big") + message, end=True)
        assert await connection.status() == grpc.StatusCode.DEADLINE_EXCEEDED.value[0]
    await still_scores(client)


async def test_a_method_that_is_not_there_is_unimplemented(client: RewardClient) -> None:
    error = await raw_call(client, f"{SERVICE}/Scores", b"")
    assert error.code() is grpc.StatusCode.UNIMPLEMENTED


async def test_a_name_of_a_megabyte_is_refused(client: RewardClient) -> None:
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await client.reward.ScoreGroup(group(["Mix flour."], model=selector("x" * (1 << 20))))
    assert caught.value.code() is grpc.StatusCode.NOT_FOUND
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await client.admin.LoadModel(reward_pb2.LoadModelRequest(name="x" * (1 << 20), uri="y" * (1 << 20)))
    assert caught.value.code() is grpc.StatusCode.INVALID_ARGUMENT
    await still_scores(client)
