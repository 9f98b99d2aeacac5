"""What the backends that front a generation server share: an event loop, a limit on calls, errors that name the server."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Awaitable, Callable, Coroutine, Sequence
from concurrent.futures import Future
from typing import Any, TypeVar

from assay_kit.errors import FailedPrecondition
from assay_policy.generation import Outcome, Scoring, Ticket, Turns, Work, prompt_seeds

T = TypeVar("T")

_LOOK_SECONDS = 0.1


class RemoteLoop:
    """An event loop on a thread of its own, shared by all remote backends of the service."""

    def __init__(self) -> None:
        """Starts the thread."""
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="assay-policy-remote", daemon=True)
        self._thread.start()

    def submit(self, coroutine: Coroutine[Any, Any, T]) -> Future[T]:
        """Begins the coroutine on the loop."""
        return asyncio.run_coroutine_threadsafe(coroutine, self._loop)

    def close(self) -> None:
        """Ends loop and thread."""
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()


AskPrompt = Callable[[Turns, int], Awaitable[Outcome]]
"""Asks the server for the answers to one prompt; takes the prompt's seed. An error of the prompt alone is in the outcome."""


async def ask_all(work: Work, ask: AskPrompt) -> None:
    """Asks for every prompt at once and emits each outcome as it comes; the first error of the server ends them all.

    Raises:
        AssayError: the server failed, or the caller's patience ended.
    """

    async def one(index: int, turns: Turns, seed: int) -> None:
        work.emit(index, await ask(turns, seed))

    # Servers take signed seeds, some only 32 bits of them.
    seeds = prompt_seeds(work.sampling.seed, work.prompts, bits=31)
    tasks = [asyncio.ensure_future(one(index, turns, seed)) for index, (turns, seed) in enumerate(zip(work.prompts, seeds, strict=True))]
    try:
        await _all_or_first_error(tasks, work.ticket)
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


async def _all_or_first_error(tasks: Sequence[asyncio.Future[None]], ticket: Ticket) -> None:
    waiting = set(tasks)
    while waiting:
        done, waiting = await asyncio.wait(waiting, timeout=_LOOK_SECONDS, return_when=asyncio.FIRST_EXCEPTION)
        for task in done:
            task.result()
        ticket.check()


def cannot_score(scoring: Scoring) -> Future[list[float]]:
    """The refusal of a server that tells no log-probabilities of given answers."""
    raise FailedPrecondition(
        f"a generation server does not tell log-probabilities of given answers ({len(scoring.items)} asked for); "
        "load the same weights with BACKEND_TRANSFORMERS for that"
    )
