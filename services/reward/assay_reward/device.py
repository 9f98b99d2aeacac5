"""The device: its thread, the queues of the models that use it, and the batch that forms while it is busy.

There are no timers. A lone unit starts at once; while the device is busy the next batch forms by itself, of several calls of one
model, up to a budget of tokens. When more waits than a batch takes, the next one is chosen and put together beside the running
one; it is given up when something more urgent comes. Models take turns by the time they had on the device.

Work whose deadline has passed or whose caller has gone is dropped before it reaches the device.
"""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable, Iterable
from functools import partial
from weakref import WeakKeyDictionary

from assay_kit.errors import DeadlineExceeded, Unavailable
from assay_reward.admission import Backlog, Rate
from assay_reward.batches import Batch, Unit
from assay_reward.fair_queue import FairQueue, Waiting
from assay_reward.metrics import BATCH_SEQUENCES, BATCH_TOKENS, COMPUTE_SECONDS, DROPPED, QUEUE_SECONDS
from assay_reward.models.base import Computed, RewardModel


class ModelQueue:
    """What one model has waiting, and what was measured of it."""

    def __init__(self, ageing_seconds: float) -> None:
        """Takes how long work may wait before it has a share of its own."""
        self.units = FairQueue[Unit](ageing_seconds=ageing_seconds)
        self.backlog = Backlog()
        self.rate = Rate()
        self.turns = 0.0
        """Seconds of the device it was given, on the scale of all models."""


class Device:
    """One device and what waits for it."""

    def __init__(self, *, batch_tokens: int, ageing_seconds: float) -> None:
        """Takes the budget of a batch; `start` begins."""
        self.batch_tokens = batch_tokens
        lock = threading.RLock()
        self.changed = threading.Condition(lock)
        """Held around everything below, and notified when it changes."""
        self._to_do_beside = threading.Condition(lock)
        """Of the same lock; a waking of its own, so that a lone call does not wake a thread that has nothing to do."""
        self.stopping = False
        self._ageing = ageing_seconds
        self._queues: WeakKeyDictionary[RewardModel, ModelQueue] = WeakKeyDictionary()
        self._turns = 0.0
        self._ahead: Batch | None = None
        self._running: tuple[float, float] | None = None
        """When the batch on the device began, and how long it should take; None while the device is idle."""
        self._was_idle = True
        """Whether the device thread had to wait for the batch it is at."""
        self._finished: deque[Callable[[], None]] = deque()
        self._threads: list[threading.Thread] = []

    @property
    def idle(self) -> bool:
        """Whether nothing runs."""
        return self._running is None

    def queues(self) -> Iterable[ModelQueue]:
        """Of all models there are."""
        return list(self._queues.values())

    def queue(self, model: RewardModel) -> ModelQueue:
        """Of one model."""
        queue = self._queues.get(model)
        if queue is None:
            queue = self._queues[model] = ModelQueue(self._ageing)
        return queue

    def running_seconds(self, now: float) -> float:
        """How long the batch on the device should still take."""
        if self._running is None:
            return 0.0
        began, should_take = self._running
        return max(began + should_take - now, 0.0)

    def start(self) -> None:
        """Starts the device thread, and the one beside it."""
        self._threads = [
            threading.Thread(target=self._work, name="device", daemon=True),
            threading.Thread(target=self._work_beside, name="batching", daemon=True),
        ]
        for thread in self._threads:
            thread.start()

    def stop(self) -> None:
        """Ends the threads after the batch they are at; what still waits fails with Unavailable."""
        with self.changed:
            self.stopping = True
            left = self._ahead.waiting if self._ahead is not None else []
            self._ahead = None
            for queue in self._queues.values():
                left += queue.units
                queue.units.clear()
            self.changed.notify_all()
            self._to_do_beside.notify()
        for waiting in left:
            if waiting.work.future.set_running_or_notify_cancel():
                waiting.work.future.set_exception(Unavailable("the service ends"))
        for thread in self._threads:
            thread.join()

    def put(self, model: RewardModel, waiting: Waiting[Unit]) -> None:
        """Queues a unit; one more urgent than some of the batch that was chosen ahead gives that batch up."""
        with self.changed:
            stopping = self.stopping
            if not stopping:
                queue = self.queue(model)
                if not queue.units:
                    queue.turns = max(queue.turns, self._turns)
                queue.units.put(waiting)
                queue.backlog.add(waiting.standing, waiting.cost)
                if self._ahead is not None and self._ahead.least_urgent > waiting.standing.priority.value:
                    self._give_up(self._ahead)
                self.changed.notify_all()
                self._wake_beside()
        if stopping:
            waiting.work.future.set_exception(Unavailable("the service ends"))

    def withdraw(self, model: RewardModel, waiting: Waiting[Unit]) -> None:
        """Drops a unit whose future was cancelled, so that nothing of it stays in memory."""
        with self.changed:
            queue = self.queue(model)
            if queue.units.remove(waiting):
                queue.backlog.add(waiting.standing, -waiting.cost)
                DROPPED.labels("cancelled").inc(len(waiting.work.items))

    def _give_up(self, ahead: Batch) -> None:
        self._ahead = None
        queue = self.queue(ahead.model)
        gone = [one for one in ahead.waiting if one.work.future.cancelled()]
        for one in gone:
            queue.backlog.add(one.standing, -one.cost)
            DROPPED.labels("cancelled").inc(len(one.work.items))
        queue.units.put_back([one for one in ahead.waiting if one not in gone])

    def _work(self) -> None:
        doubted = False
        while (batch := self._take()) is not None:
            # What would be late is given up while it can still be said in time; but not where the device was idle, nor twice
            # in a row without a measurement: the rate that says so may be out of date.
            seconds = 0.0 if doubted or self._was_idle else self.running_seconds(time.monotonic())
            live = [one for one in batch.waiting if _begins(one, seconds)]
            doubted = not live
            if live:
                self._run(batch if len(live) == len(batch.waiting) else Batch(batch.model, live))
            del batch, live  # while the thread waits nothing of a model that is unloaded stays here

    def _take(self) -> Batch | None:
        with self.changed:
            self._running = None
            self._was_idle = not self._has_work()
            self.changed.wait_for(lambda: self.stopping or self._has_work())
            if self.stopping:
                return None
            batch, self._ahead = self._ahead or self._chosen(), None
            queue = self.queue(batch.model)
            for one in batch.waiting:
                queue.backlog.add(one.standing, -one.cost)
            self._running = (time.monotonic(), queue.rate.seconds(batch.cost))
            self._wake_beside()
            return batch

    def _has_work(self) -> bool:
        return self._ahead is not None or any(queue.units for queue in self._queues.values())

    def _chosen(self) -> Batch:
        """The next batch: of the model with the most urgent work, among equals of the one that had least of the device."""
        now = time.monotonic()
        model, queue = min(
            ((model, queue) for model, queue in self._queues.items() if queue.units),
            key=lambda one: (one[1].units.urgency(now), one[1].turns),
        )
        self._turns = max(self._turns, queue.turns)
        return Batch(model, queue.units.take(self.batch_tokens, now))

    def _run(self, batch: Batch) -> None:
        started = time.monotonic()
        try:
            computed = batch.compute()
        except BaseException as error:  # it is the callers', who wait on the futures
            self._failed(batch, error)
            return
        seconds = time.monotonic() - started
        deliver = partial(_deliver, batch, computed, started, seconds)
        with self.changed:
            queue = self.queue(batch.model)
            queue.rate.ran(batch.cost, seconds)
            queue.turns += seconds
            waits = self._ahead is not None
            if waits:
                self._finished.append(deliver)
                self._wake_beside()
        if not waits:
            deliver()

    def _failed(self, batch: Batch, error: BaseException) -> None:
        """An error of one unit is not that of those beside it: each is tried by itself."""
        if len(batch.waiting) == 1:
            batch.waiting[0].work.future.set_exception(error)
            return
        for one in batch.waiting:
            self._run(Batch(batch.model, [one]))

    def _work_beside(self) -> None:
        """Hands out what the device has done while more waits for it, and puts the next batch together while it runs."""
        while True:
            with self.changed:
                self._to_do_beside.wait_for(lambda: self.stopping or self._finished or self._fills_a_batch())
                deliver = self._finished.popleft() if self._finished else None
                if deliver is None and self.stopping:
                    return
                if deliver is None:
                    self._ahead = self._chosen()
                    self.changed.notify_all()
            if deliver is not None:
                deliver()
                del deliver

    def _wake_beside(self) -> None:
        if self._finished or self._fills_a_batch():
            self._to_do_beside.notify()

    def _fills_a_batch(self) -> bool:
        """Whether choosing now, while the device is busy, loses nothing that could still come."""
        busy = self._running is not None and self._ahead is None
        return busy and any(queue.units.cost >= self.batch_tokens for queue in self._queues.values())


def _begins(waiting: Waiting[Unit], seconds: float) -> bool:
    """Whether a unit goes to the device, in a batch that should take so long."""
    future, count = waiting.work.future, len(waiting.work.items)
    if not future.set_running_or_notify_cancel():
        DROPPED.labels("cancelled").inc(count)
        return False
    if waiting.standing.deadline <= time.monotonic() + seconds:
        DROPPED.labels("deadline").inc(count)
        future.set_exception(DeadlineExceeded("the deadline passed while the call waited in the queue, or would before its answer"))
        return False
    return True


def _deliver(batch: Batch, computed: Computed, started: float, seconds: float) -> None:
    BATCH_TOKENS.observe(batch.cost)
    BATCH_SEQUENCES.observe(len(batch.items))
    COMPUTE_SECONDS.observe(seconds)
    for one, done in zip(batch.waiting, batch.parts(computed, started=started, seconds=seconds), strict=True):
        QUEUE_SECONDS.observe(done.queue_seconds)
        one.work.future.set_result(done)
