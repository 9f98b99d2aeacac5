"""One device, one thread, one bounded queue: what runs next, and what never runs.

Order is priority, then deadline, then arrival. The queue is counted in candidates. Work whose deadline has passed or whose
caller has gone is dropped before it reaches the device.
"""

from __future__ import annotations

import heapq
import itertools
import math
import threading
import time
from collections.abc import Callable
from concurrent.futures import Future
from dataclasses import dataclass, field
from typing import Any, Generic, TypeVar

from assay_kit.errors import DeadlineExceeded, ResourceExhausted, Unavailable
from assay_reward.inputs import Priority
from assay_reward.metrics import COMPUTE_SECONDS, DROPPED, QUEUE_SECONDS, REJECTED

T = TypeVar("T")
NO_DEADLINE = math.inf
_SMOOTHING = 0.2
_RETRY_SECONDS = (0.05, 30.0)


@dataclass(frozen=True, kw_only=True)
class Done(Generic[T]):
    """What a unit of work gave, and its times in seconds."""

    value: T
    queue_seconds: float
    compute_seconds: float


@dataclass(order=True)
class _Unit:
    priority: int
    deadline: float
    arrival: int
    cost: int = field(compare=False)
    submitted: float = field(compare=False)
    run: Callable[[], Any] = field(compare=False)
    future: Future[Done[Any]] = field(compare=False)


class Scheduler:
    """The queue and the thread of one device."""

    def __init__(self, *, capacity: int) -> None:
        """Takes the bound; `start` begins.

        Args:
            capacity: most candidates waiting or running; > 0.
        """
        self.capacity = capacity
        self._changed = threading.Condition()
        self._units: list[_Unit] = []
        self._arrivals = itertools.count()
        self._held = 0
        self._rate = 0.0
        self._stopping = False
        self._thread: threading.Thread | None = None

    @property
    def held(self) -> int:
        """Candidates admitted and not yet done."""
        return self._held

    def start(self) -> None:
        """Starts the device thread."""
        self._thread = threading.Thread(target=self._work, name="device", daemon=True)
        self._thread.start()

    def stop(self) -> None:
        """Ends the device thread after the unit it is at; what still waits fails with Unavailable."""
        with self._changed:
            self._stopping = True
            left, self._units = self._units, []
            self._changed.notify_all()
        for unit in left:
            if unit.future.set_running_or_notify_cancel():
                unit.future.set_exception(Unavailable("the service ends"))
        if self._thread is not None:
            self._thread.join()

    def admit(self, cost: int, *, wait_seconds: float = 0.0) -> Ticket:
        """Room for `cost` candidates.

        Args:
            cost: how many; > 0.
            wait_seconds: longest wait for room; 0 answers at once.

        Raises:
            ResourceExhausted: there is no room; says when there should be, by the rate measured.
            Unavailable: the scheduler stops.
        """
        with self._changed:
            self._changed.wait_for(lambda: self._stopping or self._held + cost <= self.capacity, timeout=wait_seconds)
            if self._stopping:
                raise Unavailable("the service ends")
            if self._held + cost > self.capacity:
                REJECTED.inc(cost)
                wait = self._held / self._rate if self._rate else 1.0
                low, high = _RETRY_SECONDS
                raise ResourceExhausted(
                    f"the queue holds {self._held} of {self.capacity} candidates and has no room for {cost}; try again in {wait:.2f} s",
                    min(max(wait, low), high),
                )
            self._held += cost
        return Ticket(self, cost)

    def _release(self, cost: int) -> None:
        with self._changed:
            self._held -= cost
            self._changed.notify_all()

    def _put(self, unit: _Unit) -> None:
        unit.future.add_done_callback(lambda _: self._release(unit.cost))
        with self._changed:
            if not self._stopping:
                heapq.heappush(self._units, unit)
                self._changed.notify_all()
                return
        unit.future.set_exception(Unavailable("the service ends"))

    def _next(self) -> _Unit | None:
        with self._changed:
            self._changed.wait_for(lambda: self._units or self._stopping)
            return None if self._stopping else heapq.heappop(self._units)

    def _work(self) -> None:
        while (unit := self._next()) is not None:
            if not unit.future.set_running_or_notify_cancel():
                DROPPED.labels("cancelled").inc(unit.cost)
                continue
            started = time.monotonic()
            if unit.deadline <= started:
                DROPPED.labels("deadline").inc(unit.cost)
                unit.future.set_exception(DeadlineExceeded("the deadline passed while the call waited in the queue"))
                continue
            try:
                value = unit.run()
            except BaseException as error:  # it is the caller's, who waits on the future
                unit.future.set_exception(error)
                continue
            ended = time.monotonic()
            self._measure(unit.cost, ended - started)
            QUEUE_SECONDS.observe(started - unit.submitted)
            COMPUTE_SECONDS.observe(ended - started)
            done = Done(value=value, queue_seconds=started - unit.submitted, compute_seconds=ended - started)
            unit.future.set_result(done)

    def _measure(self, cost: int, seconds: float) -> None:
        rate = cost / max(seconds, 1e-6)
        self._rate = rate if not self._rate else (1 - _SMOOTHING) * self._rate + _SMOOTHING * rate


class Ticket:
    """Room in the queue that a call has been given."""

    def __init__(self, scheduler: Scheduler, cost: int) -> None:
        self._scheduler = scheduler
        self._left = cost

    def submit(self, run: Callable[[], T], *, cost: int, priority: Priority, deadline: float = NO_DEADLINE) -> Future[Done[T]]:
        """Queues work for the device thread; `deadline` is on the clock of `time.monotonic`."""
        if cost > self._left:
            raise ValueError(f"{cost} candidates submitted where {self._left} are left of what was admitted")
        self._left -= cost
        future: Future[Done[T]] = Future()
        scheduler = self._scheduler
        scheduler._put(
            _Unit(
                priority=priority.value,
                deadline=deadline,
                arrival=next(scheduler._arrivals),
                cost=cost,
                submitted=time.monotonic(),
                run=run,
                future=future,
            )
        )
        return future

    def close(self) -> None:
        """Gives back the room that was not used; again does nothing."""
        left, self._left = self._left, 0
        if left:
            self._scheduler._release(left)
