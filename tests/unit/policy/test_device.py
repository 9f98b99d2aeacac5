import threading
from collections.abc import Iterator

import pytest

from assay_kit.errors import Cancelled, DeadlineExceeded, ResourceExhausted, Unavailable
from assay_policy.device import Device, Steps
from assay_policy.generation import Ticket


@pytest.fixture
def device() -> Iterator[Device]:
    device = Device(queue_requests=2)
    yield device
    device.close()


def steps(log: list[str], name: str, count: int, gate: threading.Event | None = None) -> Steps:
    for _ in range(count):
        if gate is not None:
            gate.wait(10)
        log.append(name)
        yield
    return name


def test_requests_take_turns_so_that_a_long_one_does_not_hold_up_a_short_one(device: Device):
    log: list[str] = []
    gate = threading.Event()
    long = device.submit(steps(log, "long", 5, gate), Ticket())
    short = device.submit(steps(log, "short", 1), Ticket())
    gate.set()
    assert [long.result(10), short.result(10)] == ["long", "short"]
    assert log.index("short") < 3
    assert log.count("long") == 5


def test_a_full_queue_refuses_at_once_and_says_when_to_come_again(device: Device):
    gate = threading.Event()
    waiting = [device.submit(steps([], "x", 1, gate), Ticket()) for _ in range(2)]
    with pytest.raises(ResourceExhausted) as refused:
        device.submit(steps([], "y", 1), Ticket())
    assert refused.value.retry_after_seconds is not None and refused.value.retry_after_seconds > 0
    gate.set()
    assert [future.result(10) for future in waiting] == ["x", "x"]
    assert device.submit(steps([], "y", 1), Ticket()).result(10) == "y"


def test_work_whose_caller_is_gone_or_out_of_time_never_runs(device: Device):
    log: list[str] = []
    gate = threading.Event()
    running = device.submit(steps(log, "running", 1, gate), Ticket())
    ticket = Ticket()
    dropped = device.submit(steps(log, "dropped", 1), ticket)
    ticket.abandon()
    gate.set()
    assert running.result(10) == "running"
    with pytest.raises(Cancelled):
        dropped.result(10)
    with pytest.raises(DeadlineExceeded):
        device.submit(steps(log, "late", 1), Ticket(0.0)).result(10)
    assert log == ["running"]


def test_an_error_of_one_request_is_its_own(device: Device):
    def bad() -> Steps:
        yield
        raise ValueError("mine")

    failed = device.submit(bad(), Ticket())
    with pytest.raises(ValueError, match="mine"):
        failed.result(10)
    assert device.submit(steps([], "next", 1), Ticket()).result(10) == "next"


def test_closing_ends_what_waits():
    device = Device(queue_requests=4)
    gate = threading.Event()
    device.submit(steps([], "x", 1, gate), Ticket())
    waiting = device.submit(steps([], "y", 3), Ticket())
    threading.Timer(0.1, gate.set).start()
    device.close()
    with pytest.raises(Unavailable):
        waiting.result(10)
    with pytest.raises(Unavailable):
        device.submit(steps([], "z", 1), Ticket())
