"""Several calls at a time, their answers in order, and never more under way than was said."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any, TypeVar

Answer = TypeVar("Answer")


def in_order(calls: Iterable[Callable[[], Answer]], in_flight: int) -> Iterator[Answer]:
    """Answers in the order of the calls, which are taken only as there is room; at most `in_flight` are under way or unread.

    Each call is made in a thread. The first that raises ends the iteration; those that have not begun are then not made.
    """
    waiting: deque[Future[Answer]] = deque()
    pool = ThreadPoolExecutor(in_flight, thread_name_prefix="assay-client")
    try:
        for call in calls:
            waiting.append(pool.submit(call))
            if len(waiting) == in_flight:
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()
    finally:
        pool.shutdown(wait=False, cancel_futures=True)


async def in_order_async(calls: AsyncIterator[Callable[[], Awaitable[Answer]]], in_flight: int) -> AsyncGenerator[Answer, None]:
    """As `in_order`, in tasks; those that are under way when the iteration ends early are cancelled."""
    waiting: deque[asyncio.Future[Any]] = deque()
    try:
        async for call in calls:
            waiting.append(asyncio.ensure_future(call()))
            if len(waiting) == in_flight:
                yield await waiting.popleft()
        while waiting:
            yield await waiting.popleft()
    finally:
        for task in waiting:
            task.cancel()
        await asyncio.gather(*waiting, return_exceptions=True)
