"""Who is let in: what is held is bounded, and a call whose deadline cannot be met is refused at once."""

from __future__ import annotations

import itertools
import threading
import time
from concurrent.futures import Future

from assay_kit.errors import DeadlineExceeded, ResourceExhausted, Unavailable
from assay_reward.admission import Demand, Limits
from assay_reward.batches import Done, Unit
from assay_reward.device import Device, ModelQueue
from assay_reward.fair_queue import NO_DEADLINE, Standing, Waiting
from assay_reward.metrics import DROPPED, REJECTED
from assay_reward.models.base import Prepared, RewardModel

AGEING_SECONDS = 5.0
_WINDOW_BATCHES = 4
_CAUTION = 1.2
"""By how much a predicted time is taken to be longer: rates move, and the answer has to travel."""
_RETRY_SECONDS = (0.05, 30.0)


class QueueFull(ResourceExhausted):
    """There is no room; there will be when what is held is done."""


class Scheduler:
    """The queue of one device."""

    def __init__(self, *, limits: Limits, batch_tokens: int, ageing_seconds: float = AGEING_SECONDS) -> None:
        """Takes the bounds; `start` begins.

        Args:
            limits: most that is held.
            batch_tokens: most tokens of one batch; > 0. One unit that costs more runs alone.
            ageing_seconds: how long work waits before part of every batch is kept for it whatever its priority.
        """
        self.limits = limits
        self.batch_tokens = batch_tokens
        self.window_tokens = _WINDOW_BATCHES * batch_tokens
        """Most tokens that one call has in the queue at a time."""
        self._device = Device(batch_tokens=batch_tokens, ageing_seconds=ageing_seconds)
        self._changed = self._device.changed
        self._orders = itertools.count()
        self._held = (0, 0, 0)
        self._waiters: list[Future[None]] = []

    @property
    def held(self) -> int:
        """Candidates admitted and not yet done."""
        return self._held[0]

    @property
    def held_text_bytes(self) -> int:
        """Bytes of text of the calls that are not done."""
        return self._held[2]

    @property
    def backlog_tokens(self) -> int:
        """Tokens admitted and not yet on the device: expected of texts, or queued."""
        with self._changed:
            return sum(queue.backlog.tokens for queue in self._device.queues())

    @property
    def wait_seconds(self) -> float:
        """How long all that is admitted should take, by the rates measured."""
        with self._changed:
            return self._wait_seconds(time.monotonic())

    def start(self) -> None:
        """Starts the device."""
        self._device.start()

    def stop(self) -> None:
        """Ends the device after the batch it is at; what still waits fails with Unavailable."""
        self._device.stop()
        with self._changed:
            waiters, self._waiters = self._waiters, []
        _wake(waiters)

    def admit(self, demand: Demand, *, wait_seconds: float = 0.0) -> Ticket:
        """Room for a call.

        Args:
            demand: what it asks.
            wait_seconds: longest wait for room; 0 answers at once. A deadline that cannot be met is never waited for.

        Raises:
            QueueFull: there is no room; says when there should be, by the rate measured.
            ResourceExhausted: the deadline would pass before the answer, by the rate measured.
            DeadlineExceeded: the deadline has passed.
            Unavailable: the scheduler stops.
        """
        with self._changed:
            self._changed.wait_for(lambda: self._device.stopping or self._has_room(demand), timeout=wait_seconds)
            if self._device.stopping:
                raise Unavailable("the service ends")
            now = time.monotonic()
            if demand.standing.deadline <= now:
                DROPPED.labels("deadline").inc(demand.candidates)
                raise DeadlineExceeded("the deadline passed before the call was begun")
            if not self._has_room(demand):
                REJECTED.labels("full").inc(demand.candidates)
                raise self._full(demand)
            queue = self._device.queue(demand.model)
            expected = queue.rate.expected_tokens(demand.candidates, demand.text_bytes)
            self._check_deadline(demand, queue, expected, now)
            queue.backlog.add(demand.standing, expected)
            asked = self._asked(demand)
            self._held = _sum(self._held, asked)
        return Ticket(self, demand, expected, asked)

    def room(self) -> Future[None]:
        """Done when some of what is held has been given back, or the scheduler stops; for those who wait without a thread."""
        waiter: Future[None] = Future()
        with self._changed:
            if any(self._held) and not self._device.stopping:
                self._waiters.append(waiter)
                return waiter
        waiter.set_result(None)
        return waiter

    def _asked(self, demand: Demand) -> tuple[int, int, int]:
        """Candidates, tokens and bytes; of tokens what is in memory at a time, for a large call is tokenised part by part."""
        expected = self._device.queue(demand.model).rate.expected_tokens(demand.candidates, demand.text_bytes)
        return demand.candidates, min(expected, self.window_tokens), demand.text_bytes

    def _has_room(self, demand: Demand) -> bool:
        limits = (self.limits.candidates, self.limits.tokens, self.limits.text_bytes)
        wanted = _sum(self._held, self._asked(demand))
        return not self.held or all(have <= limit for have, limit in zip(wanted, limits, strict=True))

    def _full(self, demand: Demand) -> QueueFull:
        held, limits = self._held, self.limits
        wait = self._wait_seconds(time.monotonic()) or 1.0
        return QueueFull(
            f"the queue holds {held[0]} of {limits.candidates} candidates, {held[1]} of {limits.tokens} tokens and {held[2]} of "
            f"{limits.text_bytes} bytes of text, and has no room for {demand.candidates} more candidates; try again in {wait:.2f} s",
            _clamped(wait),
        )

    def _wait_seconds(self, now: float) -> float:
        return self._device.running_seconds(now) + sum(queue.rate.seconds(queue.backlog.tokens) for queue in self._device.queues())

    def _check_deadline(self, demand: Demand, queue: ModelQueue, expected: int, now: float) -> None:
        """Raises ResourceExhausted where the answer would come late. An idle device takes everything: its rate may be out of date."""
        standing = demand.standing
        if standing.deadline == NO_DEADLINE or (self._device.idle and not self.held):
            return
        own = queue.rate.seconds(queue.backlog.before(standing, expected) + expected)
        others = [other for other in self._device.queues() if other is not queue]
        turns = sum(min(own, other.rate.seconds(other.backlog.at_most(standing.priority))) for other in others)
        predicted, left = _CAUTION * (self._device.running_seconds(now) + own + turns), standing.deadline - now
        if predicted > left:
            REJECTED.labels("deadline").inc(demand.candidates)
            raise ResourceExhausted(
                f"the answer would take {predicted:.2f} s and the deadline is in {left:.2f} s; try again in {predicted - left:.2f} s",
                _clamped(predicted - left),
            )

    def _release(self, held: tuple[int, int, int], model: RewardModel, standing: Standing, tokens: int) -> None:
        with self._changed:
            self._held = _sum(self._held, (-held[0], -held[1], -held[2]))
            self._device.queue(model).backlog.add(standing, -tokens)
            waiters, self._waiters = self._waiters, []
            self._changed.notify_all()
        _wake(waiters)

    def _put(self, demand: Demand, items: tuple[Prepared, ...], cost: int, expected: int) -> Future[Done]:
        """Queues what was expected to be `expected` tokens and is `cost`."""
        future: Future[Done] = Future()
        waiting = Waiting(
            work=Unit(items=items, future=future),
            standing=demand.standing,
            cost=cost,
            length=max(item.tokens for item in items),
            since=time.monotonic(),
            order=next(self._orders),
        )

        def done(future: Future[Done]) -> None:
            if future.cancelled():
                self._device.withdraw(demand.model, waiting)
            self._release((len(items), 0, 0), demand.model, demand.standing, 0)

        with self._changed:
            self._device.queue(demand.model).backlog.add(demand.standing, -expected)
        future.add_done_callback(done)
        self._device.put(demand.model, waiting)
        return future


class Ticket:
    """Room in the queue that a call has been given."""

    def __init__(self, scheduler: Scheduler, demand: Demand, expected: int, held: tuple[int, int, int]) -> None:
        self._scheduler = scheduler
        self._demand = demand
        self._expected = expected
        self._candidates, self._tokens, self._text_bytes = held
        self._lock = threading.Lock()

    def submit(self, items: tuple[Prepared, ...], *, cost: int) -> Future[Done]:
        """Queues distinct inputs for one batch, at a cost in tokens.

        Raises:
            ValueError: they are more than what was admitted.
        """
        with self._lock:
            if len(items) > self._candidates:
                raise ValueError(f"{len(items)} candidates submitted where {self._candidates} are left of what was admitted")
            self._candidates -= len(items)
            expected = min(self._expected, cost)
            self._expected -= expected
        return self._scheduler._put(self._demand, items, cost, expected)

    def tokenized(self, text_bytes: int, tokens: int) -> None:
        """Tells how many tokens a part of the texts became that must be computed."""
        with self._scheduler._changed:
            self._scheduler._device.queue(self._demand.model).rate.tokenized(text_bytes, tokens)

    def close(self) -> None:
        """Gives back the room that is not in the queue; again does nothing."""
        with self._lock:
            held = (self._candidates, self._tokens, self._text_bytes)
            expected, self._expected = self._expected, 0
            self._candidates = self._tokens = self._text_bytes = 0
        if any(held):
            self._scheduler._release(held, self._demand.model, self._demand.standing, expected)


def _sum(left: tuple[int, int, int], right: tuple[int, int, int]) -> tuple[int, int, int]:
    return left[0] + right[0], left[1] + right[1], left[2] + right[2]


def _wake(waiters: list[Future[None]]) -> None:
    for waiter in waiters:
        if waiter.set_running_or_notify_cancel():
            waiter.set_result(None)


def _clamped(seconds: float) -> float:
    low, high = _RETRY_SECONDS
    return min(max(seconds, low), high)
