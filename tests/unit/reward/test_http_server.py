"""The HTTP server by itself: how errors look, and how it ends."""

import asyncio

import aiohttp
import pytest

from assay_kit.errors import AssayError, FailedPrecondition, InvalidArgument, NotFound, ResourceExhausted, Unavailable
from assay_reward.doors.http_bodies import WrongShape
from assay_reward.doors.http_server import HttpLimits, HttpServer, Post

LIMITS = HttpLimits(body_bytes=1000, held_bytes=10_000, seconds=20, drain_seconds=10)


def serving(answer: object) -> HttpServer:
    server = HttpServer(host="127.0.0.1", port=0, limits=LIMITS, routes={"/x": answer})  # type: ignore[dict-item]
    server.start()
    return server


@pytest.mark.parametrize(
    ("error", "status", "retry", "field"),
    [
        (InvalidArgument("query[1]", "is too long"), 400, None, "query[1]"),
        (WrongShape("query", "is missing"), 422, None, "query"),
        (FailedPrecondition("no card"), 400, None, None),
        (NotFound("none"), 404, None, None),
        (ResourceExhausted("full", 2.1), 429, "3", None),
        (ResourceExhausted("full", 0.01), 429, "1", None),
        (Unavailable("loading"), 503, "1", None),
        (AssayError("a score is not finite"), 500, None, None),
        (ZeroDivisionError("secret"), 500, None, None),
    ],
)
async def test_an_error_has_its_status_its_field_and_when_to_come_again(
    error: Exception, status: int, retry: str | None, field: str | None
) -> None:
    async def answer(post: Post) -> dict[str, object]:
        raise error

    server = serving(answer)
    try:
        async with aiohttp.ClientSession() as session, session.post(server.url + "/x", data=b"{}") as response:
            body = await response.json()
            assert (response.status, response.headers.get("Retry-After")) == (status, retry)
    finally:
        await asyncio.to_thread(server.stop)
    assert body["error"]["param"] == field and body["error"]["code"] == status
    assert body["error"]["message"] and "secret" not in body["error"]["message"]


async def test_no_caller_is_left_waiting_by_a_server_that_ends() -> None:
    """Every connection is answered or refused, also one that is accepted in the moment of the end."""

    async def answer(post: Post) -> dict[str, object]:
        return {"bytes": len(post.body)}

    async def post_until_refused(url: str) -> int:
        answered = 0
        while True:
            try:
                async with aiohttp.ClientSession() as session, session.post(url + "/x", data=b"{}") as response:
                    assert response.status in (200, 503)
                    answered += 1
            except aiohttp.ClientError:
                return answered

    for _ in range(8):
        server = serving(answer)
        callers = [asyncio.ensure_future(post_until_refused(server.url)) for _ in range(4)]
        await asyncio.sleep(0.02)
        server.drain()
        async with asyncio.timeout(30):
            await asyncio.gather(*callers)
        await asyncio.to_thread(server.stop)


async def test_a_host_that_is_none_of_this_machine_is_refused_at_the_start() -> None:
    with pytest.raises(OSError, match="assign"):
        HttpServer(host="192.0.2.1", port=0, limits=LIMITS, routes={}).start()
