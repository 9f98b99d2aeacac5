"""What the doors of callers who wait have in common: whose a call is, how long it may take, and how it comes to its reply."""

from __future__ import annotations

import asyncio
import time
from typing import Any, TypeVar

from assay_reward.fair_queue import NO_DEADLINE
from assay_reward.scoring import Call

Reply = TypeVar("Reply")

CALLER_METADATA = "x-assay-caller"
"""Metadata key, or HTTP header, by which a caller may name itself. It is not checked: it shares out the device, it proves nothing."""
_CALLER_LENGTH = 64


def caller_name(host: str, name: str) -> str:
    """Whose a call is: the host it comes from, and the name it gives itself, so that the clients of one host can be told apart."""
    return f"{host} {name[:_CALLER_LENGTH]}" if name else host


def caller_of(context: Any) -> str:
    """Whose a gRPC call is."""
    names = [value for key, value in context.invocation_metadata() or () if key == CALLER_METADATA]
    return caller_name(str(context.peer()).rpartition(":")[0], str(names[0]) if names else "")


def deadline_of(context: Any) -> float:
    """When a gRPC call must be done, on the clock of `time.monotonic`."""
    remaining = context.time_remaining()
    return NO_DEADLINE if remaining is None else time.monotonic() + remaining


async def finished(call: Call[Reply]) -> Reply:
    """Runs a call to its reply where there is room for it now."""
    try:
        call.admit()
        return await reply_of(call)
    finally:
        call.close()


async def reply_of(call: Call[Reply]) -> Reply:
    """Runs a call that has room to its reply; a caller who goes away takes with it what has not reached the device."""
    work = call.begin()
    try:
        await asyncio.wrap_future(work.done)
        return call.reply(work)
    except BaseException:
        work.cancel()
        raise
