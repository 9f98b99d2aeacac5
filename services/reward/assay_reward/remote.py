"""Models that compute elsewhere: their own bounded room and their own thread, so that their waiting holds up no device."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Coroutine, Sequence
from concurrent.futures import Future
from typing import Any, TypeVar

from assay_kit.errors import DeadlineExceeded, ResourceExhausted, Unavailable
from assay_reward.engine import Work
from assay_reward.inputs import ScoreInput, ScoreOptions
from assay_reward.metrics import REJECTED
from assay_reward.models.base import Computed, Prepared, RemoteModel
from assay_reward.scheduler import NO_DEADLINE, Done

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
                REJECTED.inc(cost)
                raise ResourceExhausted(
                    f"{self._held} of {self.capacity} candidates are with remote models and there is no room for {cost}", _RETRY_SECONDS
                )
            self._held += cost
        return RemoteRoom(self, cost)

    def begin(self, model: RemoteModel, inputs: Sequence[ScoreInput], options: ScoreOptions, deadline: float = NO_DEADLINE) -> Work:
        """Prepares the inputs here and now, and asks the model about all of them together.

        Raises:
            DeadlineExceeded: the deadline, on the clock of `time.monotonic`, is past already.
        """
        started = time.monotonic()
        if deadline <= started:
            raise DeadlineExceeded("the deadline passed before the call was begun")
        prepared = model.prepare(inputs, options.truncation)
        distinct = list(dict.fromkeys(item for item in prepared if isinstance(item, Prepared)))
        tokenize_seconds = time.monotonic() - started
        units = [(distinct, self._run(_asked(model, distinct, deadline)))] if distinct else []
        return Work(prepared, units, tokenize_seconds)

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


async def _asked(model: RemoteModel, prepared: Sequence[Prepared], deadline: float) -> Done[Computed]:
    started = time.monotonic()
    try:
        async with asyncio.timeout(None if deadline == NO_DEADLINE else deadline - started):
            computed = await model.ask(prepared)
    except TimeoutError as error:
        raise DeadlineExceeded("the deadline passed while the model was asked") from error
    return Done(value=computed, queue_seconds=0.0, compute_seconds=time.monotonic() - started)


async def _cancel_all() -> None:
    tasks = [task for task in asyncio.all_tasks() if task is not asyncio.current_task()]
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
