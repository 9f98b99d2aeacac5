"""The room and the thread of models that compute elsewhere."""

import asyncio
import threading
import time
from collections.abc import Iterator
from concurrent.futures import CancelledError

import pytest

from assay_data.conversations import Message
from assay_kit.errors import DeadlineExceeded, ResourceExhausted, Unavailable
from assay_reward.engine import Work
from assay_reward.fair_queue import NO_DEADLINE, Standing
from assay_reward.inputs import TextAnswer, Truncation
from assay_reward.models.base import Computed, Prepared, RemoteModel, Rendered
from assay_reward.remote import RemoteWork
from assay_reward.tokenizing import Tokenizing


class Slow:
    """Waits until it is told, and says whether it was cancelled."""

    kind = architecture = "slow"
    dtype = ""
    max_input_tokens = 0

    def __init__(self, told: bool = False) -> None:
        self.told = told
        self.asked = threading.Event()
        self.cancelled = threading.Event()
        self.inputs: list[str] = []

    def prepare(self, inputs, truncation):
        return [Prepared(text=item.text, prompt_tokens=0, response_tokens=0) for item in inputs]

    def render(self, conversation, truncation) -> Rendered:
        return Rendered(text="")

    async def ask(self, prepared) -> Computed:
        self.inputs = [item.text for item in prepared]
        self.asked.set()
        try:
            if not self.told:
                await asyncio.Event().wait()
        except asyncio.CancelledError:
            self.cancelled.set()
            raise
        return Computed(raw=tuple(float(len(item.text)) for item in prepared), computed_tokens=0, padded_tokens=0)


def inputs(*texts: str) -> list[TextAnswer]:
    return [TextAnswer(id="", path="", field="text", context=(Message("user", "?"),), text=text) for text in texts]


@pytest.fixture
def tokenizing() -> Iterator[Tokenizing]:
    tokenizing = Tokenizing(threads=1)
    tokenizing.start()
    yield tokenizing
    tokenizing.stop()


@pytest.fixture
def begin(tokenizing: Tokenizing):
    def begun(remote: RemoteWork, model: Slow, *texts: str, deadline: float = NO_DEADLINE) -> Work:
        route = remote.route(model, remote.admit(len(texts)), tokenizing, deadline=deadline)
        return Work(model, inputs(*texts), Truncation.ERROR, Standing(deadline=deadline), route).begin()

    return begun


@pytest.fixture
def remote() -> Iterator[RemoteWork]:
    remote = RemoteWork(capacity=4)
    remote.start()
    yield remote
    remote.stop()


def test_equal_inputs_are_asked_about_once_and_answered_in_order(remote: RemoteWork, begin) -> None:
    model = Slow(told=True)
    assert isinstance(model, RemoteModel)
    scored, cost = begin(remote, model, "bb", "a", "bb").results()
    assert [one.raw for one in scored] == [2.0, 1.0, 2.0] and model.inputs == ["bb", "a"]
    assert cost.compute_seconds > 0 and cost.batch_sequences == 2
    remote.admit(4).close()


def test_what_has_no_room_is_refused_until_room_is_given_back(remote: RemoteWork) -> None:
    room = remote.admit(3)
    with pytest.raises(ResourceExhausted) as caught:
        remote.admit(2)
    assert caught.value.retry_after_seconds is not None
    remote.admit(1).close()
    room.close()
    room.close()
    assert remote.admit(4) is not None
    with pytest.raises(ResourceExhausted):
        remote.admit(1)


def test_who_waits_for_room_gets_it_when_it_is_given_back(remote: RemoteWork) -> None:
    room = remote.admit(4)
    threading.Timer(0.05, room.close).start()
    remote.admit(4, wait_seconds=60).close()


def test_a_deadline_cancels_the_asking(remote: RemoteWork, begin) -> None:
    model = Slow()
    work = begin(remote, model, "a", deadline=time.monotonic() + 0.1)
    with pytest.raises(DeadlineExceeded):
        work.results()
    assert model.cancelled.wait(60)


def test_a_deadline_that_is_past_is_not_begun(remote: RemoteWork, begin) -> None:
    model = Slow()
    with pytest.raises(DeadlineExceeded):
        begin(remote, model, "a", deadline=time.monotonic() - 1).results()
    assert not model.asked.is_set()


def test_a_caller_who_goes_ends_the_asking(remote: RemoteWork, begin) -> None:
    model = Slow()
    work = begin(remote, model, "a")
    assert model.asked.wait(60)
    work.cancel()
    assert model.cancelled.wait(60)


def test_a_stop_ends_what_is_under_way_and_takes_no_more(begin) -> None:
    remote = RemoteWork(capacity=4)
    remote.start()
    model = Slow()
    work = begin(remote, model, "a")
    assert model.asked.wait(60)
    remote.stop()
    assert model.cancelled.is_set()
    with pytest.raises(CancelledError):
        work.results()
    with pytest.raises(Unavailable):
        begin(remote, model, "a").results()
