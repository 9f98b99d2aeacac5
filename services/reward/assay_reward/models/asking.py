"""Several questions to somebody else at once."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine, Sequence
from typing import Any, TypeVar

T = TypeVar("T")


async def ask_all(asking: Sequence[Coroutine[Any, Any, T]]) -> list[T]:
    """What all give, in order; where one fails or the caller goes, none goes on."""
    tasks = [asyncio.ensure_future(one) for one in asking]
    try:
        return await asyncio.gather(*tasks)
    except BaseException:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        raise
