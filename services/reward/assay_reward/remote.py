"""Models that compute elsewhere: their own bounded room and their own thread, so that their waiting holds up no device."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Coroutine, Sequence
from concurrent.futures import Future
from typing import Any, TypeVar

from assay_kit.errors import DeadlineExceeded, ResourceExhausted, Unavailable
from assay_reward.batches import Done
from assay_reward.engine import Queued, Route
from assay_reward.fair_queue import NO_DEADLINE
from assay_reward.metrics import REJECTED
from assay_reward.models.base import Prepared, RemoteModel
from assay_reward.tokenizing import Tokenizing

T = TypeVar("T")
_RETRY_SECONDS = 1.0


class RemoteWork:
    """An event loop in a thread of its own, and a bound on what waits there."""

    def __init__(self, *, capacity: int) -> None:
        """Takes the bound; `start` begins.

        Args:
            capacity: most candidates under way; > 0.
        """
        self.capacity = capacity
        self._changed = threading.Condition()
        self._held = 0
        self._loop: asyncio.AbstractEventLoop | None = None
        self._thread: threading.Thread | None = None

    def start(self) -> None:
        """Starts the thread."""
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="remote-models", daemon=True)
        self._thread.start()

    def stop(self) -> None:
        """Cancels what is under way and ends the thread."""
        loop, self._loop = self._loop, None
        if loop is None or self._thread is None:
            return
        asyncio.run_coroutine_threadsafe(_cancel_all(), loop).result()
        loop.call_soon_threadsafe(loop.stop)
        self._thread.join()
        loop.close()

    def admit(self, cost: int, *, wait_seconds: float = 0.0) -> RemoteRoom:
        """Room for `cost` candidates.

        Raises:
            ResourceExhausted: there is none within `wait_seconds`.
        """
        with self._changed:
            if not self._changed.wait_for(lambda: self._held + cost <= self.capacity, timeout=wait_seconds):
                REJECTED.labels("remote_full").inc(cost)
                raise ResourceExhausted(
                    f"{self._held} of {self.capacity} candidates are with remote models and there is no room for {cost}", _RETRY_SECONDS
                )
            self._held += cost
        return RemoteRoom(self, cost)

    def route(self, model: RemoteModel, room: RemoteRoom, tokenizing: Tokenizing, *, deadline: float = NO_DEADLINE) -> Route:
        """The way of a call that has been given room: prepared as any other, asked about all together.

        Args:
            model: is asked.
            room: closed when the answer is there.
            tokenizing: where its inputs are prepared.
            deadline: on the clock of `time.monotonic`; past it the asking is cancelled.
        """

        def queue(prepared: Sequence[Prepared]) -> Queued:
            return [(prepared, self._run(_asked(model, prepared, deadline)))]

        return Route(tokenizing=tokenizing, queue=queue, close=room.close, whole=True)

    def _run(self, work: Coroutine[Any, Any, T]) -> Future[T]:
        if self._loop is None:
            work.close()
            raise Unavailable("the service ends")
        return asyncio.run_coroutine_threadsafe(work, self._loop)

    def _release(self, cost: int) -> None:
        with self._changed:
            self._held -= cost
            self._changed.notify_all()


class RemoteRoom:
    """Room that a call has been given."""

    def __init__(self, remote: RemoteWork, cost: int) -> None:
        self._remote = remote
        self._left = cost

    def close(self) -> None:
        """Gives it back; again does nothing."""
        left, self._left = self._left, 0
        if left:
            self._remote._release(left)


async def _asked(model: RemoteModel, prepared: Sequence[Prepared], deadline: float) -> Done:
    started = time.monotonic()
    try:
        async with asyncio.timeout(None if deadline == NO_DEADLINE else deadline - started):
            computed = await model.ask(prepared)
    except TimeoutError as error:
        raise DeadlineExceeded("the deadline passed while the model was asked") from error
    seconds = time.monotonic() - started
    return Done(value=computed, queue_seconds=0.0, compute_seconds=seconds, batch_sequences=len(prepared))


async def _cancel_all() -> None:
    tasks = [task for task in asyncio.all_tasks() if task is not asyncio.current_task()]
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
