import threading
import time
from collections.abc import Iterator

import pytest

from assay_kit.errors import DeadlineExceeded, ResourceExhausted, Unavailable
from assay_reward.inputs import Priority
from assay_reward.scheduler import Scheduler


@pytest.fixture
def scheduler() -> Iterator[Scheduler]:
    scheduler = Scheduler(capacity=10)
    scheduler.start()
    yield scheduler
    scheduler.stop()


class Gate:
    """Work that holds the device until it is let go."""

    def __init__(self, scheduler: Scheduler) -> None:
        self.entered = threading.Event()
        self.open = threading.Event()
        self.future = scheduler.admit(1).submit(self._run, cost=1, priority=Priority.INTERACTIVE)
        assert self.entered.wait(5)

    def _run(self) -> None:
        self.entered.set()
        assert self.open.wait(5)


def test_order_is_priority_then_deadline_then_arrival(scheduler: Scheduler) -> None:
    gate = Gate(scheduler)
    ran: list[str] = []
    now = time.monotonic()
    ticket = scheduler.admit(6)
    asked = [
        ("bulk", Priority.BULK, now + 50),
        ("first", Priority.NORMAL, now + 100),
        ("second", Priority.NORMAL, now + 100),
        ("urgent", Priority.NORMAL, now + 50),
        ("whenever", Priority.NORMAL, float("inf")),
        ("interactive", Priority.INTERACTIVE, now + 100),
    ]
    futures = [ticket.submit(lambda name=name: ran.append(name), cost=1, priority=how, deadline=when) for name, how, when in asked]
    gate.open.set()
    for future in futures:
        future.result(5)
    assert ran == ["interactive", "urgent", "first", "second", "whenever", "bulk"]


def test_a_full_queue_refuses_at_once_and_says_when_to_try_again(scheduler: Scheduler) -> None:
    gate = Gate(scheduler)
    ticket = scheduler.admit(9)
    started = time.monotonic()
    with pytest.raises(ResourceExhausted) as caught:
        scheduler.admit(1)
    assert time.monotonic() - started < 1
    assert caught.value.retry_after_seconds is not None and 0.05 <= caught.value.retry_after_seconds <= 30
    ticket.close()
    scheduler.admit(9).close()
    gate.open.set()


def test_the_wait_it_names_follows_the_rate_it_measured(scheduler: Scheduler) -> None:
    ticket = scheduler.admit(10)
    ticket.submit(lambda: time.sleep(0.2), cost=10, priority=Priority.NORMAL).result(5)  # 50 candidates a second
    gate = Gate(scheduler)
    held = scheduler.admit(9)
    with pytest.raises(ResourceExhausted) as caught:
        scheduler.admit(5)
    assert caught.value.retry_after_seconds == pytest.approx(0.2, rel=0.5)
    held.close()
    gate.open.set()


def test_who_waits_for_room_gets_it_when_there_is_some(scheduler: Scheduler) -> None:
    gate = Gate(scheduler)
    held = scheduler.admit(9)
    threading.Timer(0.1, held.close).start()
    scheduler.admit(9, wait_seconds=5).close()
    gate.open.set()


def test_work_past_its_deadline_never_reaches_the_device(scheduler: Scheduler) -> None:
    gate = Gate(scheduler)
    ran = threading.Event()
    late = scheduler.admit(1).submit(ran.set, cost=1, priority=Priority.NORMAL, deadline=time.monotonic())
    gate.open.set()
    with pytest.raises(DeadlineExceeded):
        late.result(5)
    assert not ran.is_set()


def test_cancelled_work_never_reaches_the_device_and_its_room_is_free_at_once(scheduler: Scheduler) -> None:
    gate = Gate(scheduler)
    ran = threading.Event()
    future = scheduler.admit(9).submit(ran.set, cost=9, priority=Priority.NORMAL)
    assert future.cancel()
    assert scheduler.held == 1
    gate.open.set()
    scheduler.admit(9, wait_seconds=5).submit(lambda: None, cost=9, priority=Priority.BULK).result(5)
    assert not ran.is_set()


def test_an_error_on_the_device_is_the_callers_and_the_next_one_runs(scheduler: Scheduler) -> None:
    ticket = scheduler.admit(2)

    def fail() -> None:
        raise RuntimeError("out of memory")

    failed = ticket.submit(fail, cost=1, priority=Priority.NORMAL)
    fine = ticket.submit(lambda: 7, cost=1, priority=Priority.NORMAL)
    with pytest.raises(RuntimeError, match="out of memory"):
        failed.result(5)
    assert fine.result(5).value == 7


def test_stopping_ends_what_waits(scheduler: Scheduler) -> None:
    gate = Gate(scheduler)
    waiting = scheduler.admit(1).submit(lambda: None, cost=1, priority=Priority.NORMAL)
    threading.Timer(0.1, gate.open.set).start()
    scheduler.stop()
    with pytest.raises(Unavailable):
        waiting.result(5)
    with pytest.raises(Unavailable):
        scheduler.admit(1)


def test_more_than_was_admitted_cannot_be_submitted(scheduler: Scheduler) -> None:
    ticket = scheduler.admit(1)
    with pytest.raises(ValueError, match="2 candidates"):
        ticket.submit(lambda: None, cost=2, priority=Priority.NORMAL)
    ticket.close()
    assert scheduler.held == 0
