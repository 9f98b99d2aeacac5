"""The device's one thread: requests take turns on it, a chunk each."""

from __future__ import annotations

import logging
import threading
import time
from collections import deque
from collections.abc import Generator
from concurrent.futures import Future
from dataclasses import dataclass
from typing import Any

from assay_kit.errors import ResourceExhausted, Unavailable
from assay_policy.generation import Ticket
from assay_policy.metrics import QUEUED

logger = logging.getLogger(__name__)

Steps = Generator[None, None, Any]
"""Work in steps: runs on the device between two `yield`s, and returns its result."""


@dataclass(frozen=True)
class _Job:
    steps: Steps
    ticket: Ticket
    future: Future[Any]


class Device:
    """Runs work on one thread. What a step computes hangs on its own request alone, so the order of turns changes no result."""

    def __init__(self, *, queue_requests: int) -> None:
        """Starts the thread.

        Args:
            queue_requests: most requests that wait or take turns, > 0.
        """
        self._limit = queue_requests
        self._jobs: deque[_Job] = deque()
        self._held = 0
        self._closed = False
        self._seconds_a_request = 0.1
        self._changed = threading.Condition()
        self._thread = threading.Thread(target=self._run, name="assay-policy-device", daemon=True)
        self._thread.start()

    def submit(self, steps: Steps, ticket: Ticket) -> Future[Any]:
        """Queues work; it is dropped, with the ticket's error, when its turn comes and its caller no longer waits.

        Raises:
            ResourceExhausted: the queue is full; says when a place should be free.
            Unavailable: the device is closed.
        """
        with self._changed:
            if self._closed:
                raise Unavailable("the policy service is ending")
            if self._held >= self._limit:
                raise ResourceExhausted(
                    f"the queue of {self._limit} requests is full (ASSAY_POLICY_QUEUE_REQUESTS)", max(0.1, self._seconds_a_request)
                )
            job = _Job(steps, ticket, Future())
            job.future.set_running_or_notify_cancel()  # from here on only the ticket ends it early
            self._held += 1
            QUEUED.set(self._held)
            self._jobs.append(job)
            self._changed.notify()
        return job.future

    def close(self) -> None:
        """Lets the step in progress end, and drops what waits."""
        with self._changed:
            self._closed = True
            self._changed.notify()
        self._thread.join()
        for job in self._jobs:
            job.steps.close()
            job.future.set_exception(Unavailable("the policy service is ending"))
        self._jobs.clear()

    def _run(self) -> None:
        while True:
            with self._changed:
                self._changed.wait_for(lambda: self._closed or self._jobs)
                if self._closed:
                    return
                job = self._jobs.popleft()
            began = time.monotonic()
            if not self._step(job):
                with self._changed:
                    self._jobs.append(job)
            else:
                with self._changed:
                    self._held -= 1
                    QUEUED.set(self._held)
                    self._seconds_a_request = 0.8 * self._seconds_a_request + 0.2 * (time.monotonic() - began)

    def _step(self, job: _Job) -> bool:
        """One turn of a job; whether it has ended."""
        try:
            job.ticket.check()
            next(job.steps)
            return False
        except StopIteration as end:
            job.future.set_result(end.value)
        except Exception as error:  # the caller's to handle: it comes out of the future
            job.steps.close()
            job.future.set_exception(error)
        return True
