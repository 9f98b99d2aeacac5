"""What a stage or a job is given to work with: the other services, the broker, a folder, and a way to say how far it is."""

from __future__ import annotations

import threading
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Protocol, TypeVar

from assay_data.storage import exists, join_uri, read_json, write_json
from assay_evaluation.bulk_scoring import BulkScorer
from assay_evaluation.remote import Remote
from assay_kit.kafka import EventProducer, KafkaConnection

T = TypeVar("T")


class Reporter(Protocol):
    """How a job says how far it is; both raise where it is to stop."""

    def progress(self, stage: str, done: int = 0, total: int = 0, *, unit: str = "", message: str = "") -> None:
        """Says how far the work is."""

    def check_cancelled(self) -> None:
        """Raises where the work is to stop."""


@dataclass(frozen=True, kw_only=True)
class Tools:
    """What the whole process has once.

    Attributes:
        remote: The other services.
        scorer: Scoring in bulk through Kafka.
        connection: The broker; None without one.
        producer: Sends single records; None without a broker.
    """

    remote: Remote
    scorer: BulkScorer
    connection: KafkaConnection | None
    producer: EventProducer | None
    _locks: dict[str, threading.Lock] = field(default_factory=dict)
    _guard: threading.Lock = field(default_factory=threading.Lock)

    def lock(self, name: str) -> threading.Lock:
        """A lock by name, so that two stages do not do the same work side by side."""
        with self._guard:
            return self._locks.setdefault(name, threading.Lock())


@dataclass(frozen=True, kw_only=True)
class Work:
    """One piece of work.

    Attributes:
        name: What it is called in progress and in the names of what it makes.
        run_id: Names this run among all runs on the same broker; the same after a restart.
        folder: Where its outputs go.
        memo: Where it keeps what it must not lose in a restart.
        shared: The same for what several stages of a study need.
        tools: What the process has.
        reporter: How it says how far it is.
    """

    name: str
    run_id: str
    folder: str
    memo: str
    shared: str
    tools: Tools
    reporter: Reporter

    def pause(self, seconds: float) -> None:
        """Waits between two attempts; raises where the work is to stop."""
        self.reporter.check_cancelled()
        threading.Event().wait(seconds)

    def patiently(self, call: Callable[[], T]) -> T:
        """Makes a call of one of the clients until the service answers; see `Remote.patiently`."""
        return self.tools.remote.patiently(call, pause=self.pause)

    def once(self, name: str, make: Callable[[], Any]) -> Any:
        """Makes a JSON value once: after a restart the kept one is returned."""
        uri = join_uri(self.memo, f"{name}.json")
        if not exists(uri):
            self.reporter.check_cancelled()
            write_json(uri, make())
        return read_json(uri)

    def counter(self, unit: str, message: str = "") -> Callable[[int, int], None]:
        """A function that reports (done, total) of this work."""

        def report(done: int, total: int) -> None:
            self.reporter.progress(self.name, done, total, unit=unit, message=message)

        return report
