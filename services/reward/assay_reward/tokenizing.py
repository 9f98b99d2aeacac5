"""The threads of templates and tokenizers: few, and shared out like the device, so that a large call does not hold up a small one."""

from __future__ import annotations

import itertools
import threading
import time
from collections.abc import Callable
from concurrent.futures import Future
from typing import Any, TypeVar

from assay_kit.errors import Unavailable
from assay_reward.fair_queue import FairQueue, Standing, Waiting

T = TypeVar("T")
_AGEING_SECONDS = 1.0


class Tokenizing:
    """A bounded number of threads, and what waits for them."""

    def __init__(self, *, threads: int) -> None:
        """Takes how many; `start` begins."""
        self._changed = threading.Condition()
        self._queue = FairQueue[Callable[[], None]](ageing_seconds=_AGEING_SECONDS)
        self._orders = itertools.count()
        self._stopping = False
        self._threads = [threading.Thread(target=self._work, name=f"tokenizing-{index}", daemon=True) for index in range(threads)]

    def start(self) -> None:
        """Starts the threads."""
        for thread in self._threads:
            thread.start()

    def stop(self) -> None:
        """Ends the threads after what they are at; what waits fails with Unavailable."""
        with self._changed:
            self._stopping = True
            left = list(self._queue)
            self._queue.clear()
            self._changed.notify_all()
        for waiting in left:
            waiting.work()
        for thread in self._threads:
            thread.join()

    def run(self, work: Callable[[], T], *, standing: Standing, cost: int) -> Future[T]:
        """Runs work in a thread; at a cost in bytes of text."""
        future: Future[T] = Future()

        def run() -> None:
            if not future.set_running_or_notify_cancel():
                return
            if self._stopping:
                future.set_exception(Unavailable("the service ends"))
                return
            try:
                result = work()
            except BaseException as error:  # it is the caller's, who waits on the future
                future.set_exception(error)
            else:
                future.set_result(result)

        with self._changed:
            if not self._stopping:
                waiting: Waiting[Any] = Waiting(
                    work=run, standing=standing, cost=max(cost, 1), since=time.monotonic(), order=next(self._orders)
                )
                self._queue.put(waiting)
                self._changed.notify()
                return future
        run()
        return future

    def _work(self) -> None:
        while True:
            with self._changed:
                self._changed.wait_for(lambda: self._stopping or self._queue)
                if self._stopping:
                    return
                [waiting] = self._queue.take(1, time.monotonic())
            waiting.work()
            del waiting
