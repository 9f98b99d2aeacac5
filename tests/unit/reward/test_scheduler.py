"""What runs when on the device, by a model that says what it was given."""

import threading
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future

import pytest

from assay_kit.errors import DeadlineExceeded, ResourceExhausted, Unavailable
from assay_reward.admission import Demand, Limits
from assay_reward.batches import Done
from assay_reward.fair_queue import NO_DEADLINE, Standing
from assay_reward.inputs import Priority
from assay_reward.metrics import DROPPED, REJECTED
from assay_reward.models.base import Computed, Prepared
from assay_reward.scheduler import QueueFull, Scheduler

BATCH_TOKENS = 100
NORMAL, BULK, INTERACTIVE = Priority.NORMAL, Priority.BULK, Priority.INTERACTIVE


class Recording:
    """Scores an input by its length, keeps what it was given, and can be held up."""

    kind = architecture = dtype = "recording"
    max_input_tokens = 0

    def __init__(self, seconds: float = 0.0) -> None:
        self.batches: list[list[str]] = []
        self.entered = threading.Event()
        self.open = threading.Event()
        self.open.set()
        self.seconds = seconds

    def prepare(self, inputs, truncation):
        raise AssertionError("the scheduler is given what is prepared")

    def render(self, conversation, truncation):
        raise AssertionError("the scheduler renders nothing")

    def cost(self, prepared: Sequence[Prepared]) -> int:
        return sum(item.tokens for item in prepared)

    def score(self, prepared: Sequence[Prepared]) -> Computed:
        self.entered.set()
        assert self.open.wait(60)
        time.sleep(self.seconds)
        self.batches.append([item.text for item in prepared])
        if any(item.text == "poison" for item in prepared):
            raise RuntimeError("out of memory")
        tokens = sum(item.tokens for item in prepared)
        return Computed(raw=tuple(float(item.tokens) for item in prepared), computed_tokens=tokens, padded_tokens=7)

    @property
    def seen(self) -> list[str]:
        return [name for batch in self.batches for name in batch if name != "gate"]


def item(name: str, tokens: int = 1) -> Prepared:
    return Prepared(text=name, prompt_tokens=0, response_tokens=tokens)


@pytest.fixture
def make() -> Iterator[Callable[..., Scheduler]]:
    made: list[Scheduler] = []

    def start(*, candidates: int = 1000, tokens: int = 10**6, text_bytes: int = 10**6, ageing_seconds: float = 60.0) -> Scheduler:
        limits = Limits(candidates=candidates, tokens=tokens, text_bytes=text_bytes)
        made.append(Scheduler(limits=limits, batch_tokens=BATCH_TOKENS, ageing_seconds=ageing_seconds))
        made[-1].start()
        return made[-1]

    yield start
    for scheduler in made:
        scheduler.stop()


@pytest.fixture
def scheduler(make: Callable[..., Scheduler]) -> Scheduler:
    return make()


def put(
    scheduler: Scheduler,
    model: Recording,
    *items: Prepared,
    priority: Priority = NORMAL,
    caller: str = "",
    deadline: float = NO_DEADLINE,
) -> Future[Done]:
    standing = Standing(priority=priority, caller=caller, deadline=deadline)
    tokens = sum(one.tokens for one in items)
    ticket = scheduler.admit(Demand(model=model, candidates=len(items), text_bytes=4 * tokens, standing=standing))
    future = ticket.submit(items, cost=tokens)
    ticket.close()
    return future


def gated(scheduler: Scheduler, model: Recording) -> Future[Done]:
    """Work that is on the device and stays there until the model is opened."""
    model.entered.clear()
    model.open.clear()
    future = put(scheduler, model, item("gate"), caller="gate")
    assert model.entered.wait(60)
    return future


def test_order_is_priority_then_deadline_then_length_then_arrival(scheduler: Scheduler) -> None:
    model = Recording()
    gated(scheduler, model)
    now = time.monotonic()
    full = BATCH_TOKENS
    futures = [
        put(scheduler, model, item("bulk", full), priority=BULK, deadline=now + 50),
        put(scheduler, model, item("first", full), deadline=now + 100),
        put(scheduler, model, item("second", full), deadline=now + 100),
        put(scheduler, model, item("urgent", full), deadline=now + 50),
        put(scheduler, model, item("whenever", full)),
        put(scheduler, model, item("whenever short", full // 2 + 1)),
        put(scheduler, model, item("interactive", full), priority=INTERACTIVE),
    ]
    model.open.set()
    for future in futures:
        future.result(60)
    assert model.seen == ["interactive", "urgent", "first", "second", "whenever short", "whenever", "bulk"]


def test_calls_that_come_while_the_device_is_busy_are_one_batch_within_the_budget(scheduler: Scheduler) -> None:
    model = Recording()
    gated(scheduler, model)
    futures = [put(scheduler, model, item(f"{index}", 30), caller=str(index)) for index in range(5)]
    model.open.set()
    done = [future.result(60) for future in futures]
    assert sorted(len(batch) for batch in model.batches) == [1, 2, 3]
    assert sorted(one.batch_sequences for one in done) == [2, 2, 3, 3, 3]


def test_a_long_entry_does_not_stop_small_ones_that_fit(scheduler: Scheduler) -> None:
    model = Recording()
    gated(scheduler, model)
    soon = time.monotonic() + 1000
    for name, tokens, deadline in (("a", 60, soon), ("long", 90, soon + 1), ("b", 30, soon + 2), ("c", 10, soon + 3)):
        last = put(scheduler, model, item(name, tokens), deadline=deadline)
    model.open.set()
    last.result(60)
    put(scheduler, model, item("end"), priority=BULK).result(60)
    assert [sorted(batch) for batch in model.batches[1:3]] == [["a", "b", "c"], ["long"]]


def test_one_unit_larger_than_the_budget_runs_alone(scheduler: Scheduler) -> None:
    model = Recording()
    assert put(scheduler, model, item("huge", 5 * BATCH_TOKENS)).result(60).value.raw == (500.0,)


def test_equal_inputs_of_two_calls_are_computed_once_and_each_call_has_its_part(scheduler: Scheduler) -> None:
    model = Recording()
    gated(scheduler, model)
    futures = [
        put(scheduler, model, item("same", 20), item("mine", 10), caller="a"),
        put(scheduler, model, item("same", 20), item("yours", 30), caller="b"),
    ]
    model.open.set()
    mine, yours = (future.result(60) for future in futures)
    assert sorted(model.batches[-1]) == ["mine", "same", "yours"]
    assert mine.value.raw == (20.0, 10.0) and yours.value.raw == (20.0, 30.0)
    assert (mine.value.computed_tokens, yours.value.computed_tokens) == (20, 40)
    assert mine.value.padded_tokens + yours.value.padded_tokens == 7
    assert mine.compute_seconds * 2 == pytest.approx(yours.compute_seconds)


def test_a_caller_who_floods_delays_itself_alone(scheduler: Scheduler) -> None:
    model = Recording()
    gated(scheduler, model)
    flood = [put(scheduler, model, item(f"flood{index}", 50), caller="flood") for index in range(20)]
    other = [put(scheduler, model, item(f"other{index}", 50), caller="other") for index in range(3)]
    model.open.set()
    for future in (*flood, *other):
        future.result(60)
    assert {name for batch in model.batches[1:5] for name in batch if name.startswith("other")} == {"other0", "other1", "other2"}


def test_callers_share_by_tokens_and_not_by_calls(scheduler: Scheduler) -> None:
    model = Recording()
    gated(scheduler, model)
    futures = [put(scheduler, model, item(f"large{index}", 80), caller="large") for index in range(3)]
    futures += [put(scheduler, model, item(f"small{index}", 20), caller="small") for index in range(12)]
    model.open.set()
    for future in futures:
        future.result(60)
    assert len([name for batch in model.batches[1:4] for name in batch if name.startswith("small")]) >= 4


def test_bulk_that_has_waited_long_has_a_share_of_every_batch(make: Callable[..., Scheduler]) -> None:
    scheduler, model = make(ageing_seconds=0.001), Recording()
    gated(scheduler, model)
    old = put(scheduler, model, item("old", 20), priority=BULK)
    time.sleep(0.01)
    futures = [put(scheduler, model, item(f"{index}", 50), priority=INTERACTIVE) for index in range(20)]
    model.open.set()
    for future in (old, *futures):
        future.result(60)
    assert "old" in model.batches[1]


def test_what_was_chosen_ahead_is_given_up_for_something_more_urgent(scheduler: Scheduler) -> None:
    model = Recording()
    gated(scheduler, model)
    futures = [put(scheduler, model, item(f"bulk{index}", BATCH_TOKENS), priority=BULK) for index in range(3)]
    with scheduler._changed:
        assert scheduler._changed.wait_for(lambda: scheduler._device._ahead is not None, timeout=60)
    futures.append(put(scheduler, model, item("urgent", 10), priority=INTERACTIVE))
    model.open.set()
    for future in futures:
        future.result(60)
    assert model.seen == ["urgent", "bulk0", "bulk1", "bulk2"]


def test_models_take_turns_by_their_time_on_the_device(scheduler: Scheduler) -> None:
    slow, quick = Recording(seconds=0.03), Recording(seconds=0.01)
    gated(scheduler, slow)
    order: list[str] = []
    futures = []
    for index in range(6):
        for name, model in (("slow", slow), ("quick", quick)):
            futures.append(put(scheduler, model, item(f"{name}{index}", BATCH_TOKENS)))
            futures[-1].add_done_callback(lambda _, name=name: order.append(name))
    slow.open.set()
    for future in futures:
        future.result(60)
    assert len(slow.batches) == 7 and len(quick.batches) == 6
    assert order.index("slow") < len(order) - 1 - order[::-1].index("quick")
    assert order[:8].count("quick") > order[:8].count("slow") >= 1


def test_a_full_queue_refuses_at_once_and_says_when_to_try_again(make: Callable[..., Scheduler]) -> None:
    scheduler, model = make(candidates=10), Recording()
    gated(scheduler, model)
    before = REJECTED.labels("full")._value.get()
    ticket = scheduler.admit(Demand(model=model, candidates=9))
    with pytest.raises(QueueFull) as caught:
        scheduler.admit(Demand(model=model, candidates=1))
    assert caught.value.retry_after_seconds is not None and 0.05 <= caught.value.retry_after_seconds <= 30
    assert REJECTED.labels("full")._value.get() == before + 1
    ticket.close()
    scheduler.admit(Demand(model=model, candidates=9)).close()
    model.open.set()


def test_text_and_tokens_are_bounded_as_candidates_are(make: Callable[..., Scheduler]) -> None:
    model = Recording()
    for limits in ({"text_bytes": 1000}, {"tokens": 250}):
        scheduler = make(**limits)
        ticket = scheduler.admit(Demand(model=model, candidates=1, text_bytes=900))
        with pytest.raises(QueueFull):
            scheduler.admit(Demand(model=model, candidates=1, text_bytes=200))
        ticket.close()
        scheduler.admit(Demand(model=model, candidates=1, text_bytes=10**9)).close()  # alone it may be of any size


def test_who_waits_for_room_gets_it_when_there_is_some(make: Callable[..., Scheduler]) -> None:
    scheduler, model = make(candidates=10), Recording()
    held = scheduler.admit(Demand(model=model, candidates=9))
    room = scheduler.room()
    assert not room.done()
    threading.Timer(0.05, held.close).start()
    scheduler.admit(Demand(model=model, candidates=9), wait_seconds=60).close()
    room.result(60)
    assert scheduler.room().done()


def test_a_deadline_that_cannot_be_met_is_refused_at_once_with_the_time_to_come_again(scheduler: Scheduler) -> None:
    model = Recording(seconds=0.1)
    put(scheduler, model, item("measure", BATCH_TOKENS)).result(60)  # 1000 tokens a second
    gated(scheduler, model)
    held = [put(scheduler, model, item(f"{index}", BATCH_TOKENS)) for index in range(20)]
    before = REJECTED.labels("deadline")._value.get()
    with pytest.raises(ResourceExhausted, match="deadline") as caught:
        put(scheduler, model, item("late"), deadline=time.monotonic() + 0.5)
    assert caught.value.retry_after_seconds == pytest.approx(1.6, abs=1.0)
    assert REJECTED.labels("deadline")._value.get() == before + 1
    urgent = put(scheduler, model, item("urgent"), deadline=time.monotonic() + 30, priority=INTERACTIVE)  # goes before all that
    fair = put(scheduler, model, item("fair"), deadline=time.monotonic() + 1.0, caller="another")  # and this takes turns with it
    for future in held:
        future.cancel()
    model.open.set()
    assert urgent.result(60) and fair.result(60)


def test_an_idle_device_takes_what_an_old_measurement_would_refuse(scheduler: Scheduler) -> None:
    model = Recording(seconds=0.2)
    put(scheduler, model, item("slow once")).result(60)
    model.seconds = 0.0
    assert put(scheduler, model, item("quick", 100), deadline=time.monotonic() + 5).result(60)


def test_a_deadline_that_has_passed_is_not_let_in(scheduler: Scheduler) -> None:
    before = DROPPED.labels("deadline")._value.get()
    with pytest.raises(DeadlineExceeded):
        scheduler.admit(Demand(model=Recording(), candidates=3, standing=Standing(deadline=time.monotonic())))
    assert DROPPED.labels("deadline")._value.get() == before + 3


def test_work_past_its_deadline_never_reaches_the_device(scheduler: Scheduler) -> None:
    model = Recording()
    gated(scheduler, model)
    late = put(scheduler, model, item("late"), deadline=time.monotonic() + 0.05)
    time.sleep(0.06)
    model.open.set()
    with pytest.raises(DeadlineExceeded):
        late.result(60)
    assert model.seen == []


def test_cancelled_work_never_reaches_the_device_and_its_room_is_free_at_once(make: Callable[..., Scheduler]) -> None:
    scheduler, model = make(candidates=10), Recording()
    gated(scheduler, model)
    before = DROPPED.labels("cancelled")._value.get()
    future = put(scheduler, model, *(item(f"{index}") for index in range(9)))
    assert future.cancel()
    assert scheduler.held == 1
    assert DROPPED.labels("cancelled")._value.get() == before + 9
    other = put(scheduler, model, item("other"))
    model.open.set()
    other.result(60)
    assert model.seen == ["other"]


def test_an_error_on_the_device_is_that_units_alone(scheduler: Scheduler) -> None:
    model = Recording()
    gated(scheduler, model)
    fine, bad, also_fine = (put(scheduler, model, item(name), caller=name) for name in ("fine", "poison", "also fine"))
    model.open.set()
    with pytest.raises(RuntimeError, match="out of memory"):
        bad.result(60)
    assert fine.result(60).value.raw == also_fine.result(60).value.raw == (1.0,)


def test_nothing_is_held_when_all_is_done(scheduler: Scheduler) -> None:
    model = Recording()
    futures = [put(scheduler, model, item(f"{index}", 30), caller=str(index % 3)) for index in range(50)]
    for future in futures:
        future.result(60)
    gone = put(scheduler, model, item("last"))
    gone.result(60)
    assert (scheduler.held, scheduler.held_text_bytes, scheduler.backlog_tokens) == (0, 0, 0)


def test_stopping_ends_what_waits(make: Callable[..., Scheduler]) -> None:
    scheduler, model = make(candidates=3), Recording()
    running = gated(scheduler, model)
    waiting = put(scheduler, model, item("waits"))
    room = scheduler.room()
    threading.Timer(0.05, model.open.set).start()
    scheduler.stop()
    assert running.result(60)
    with pytest.raises(Unavailable):
        waiting.result(60)
    room.result(60)
    with pytest.raises(Unavailable):
        scheduler.admit(Demand(model=model, candidates=1))


def test_more_than_was_admitted_cannot_be_submitted(scheduler: Scheduler) -> None:
    ticket = scheduler.admit(Demand(model=Recording(), candidates=1))
    with pytest.raises(ValueError, match="2 candidates"):
        ticket.submit((item("a"), item("b")), cost=2)
    ticket.close()
    assert scheduler.held == 0
