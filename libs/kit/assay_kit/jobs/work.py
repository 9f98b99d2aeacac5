"""A job's work from its beginning to the event with which it ends."""

from __future__ import annotations

import contextlib
import json
import logging
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from dbos import error as dbos_error
from prometheus_client import Counter, Gauge

from assay.jobs.v1 import jobs_pb2
from assay_kit.jobs.context import JobCancelled, JobContext, JobInterrupted, message_of
from assay_kit.jobs.log import TERMINAL

if TYPE_CHECKING:
    from assay_kit.jobs.engine import Jobs

logger = logging.getLogger(__name__)

RUNNING = Gauge("assay_jobs_running", "Jobs at work in this process.", ["service", "kind"])
ENDED = Counter("assay_jobs_ended_total", "Jobs that ended, by how.", ["service", "kind", "state"])

Run = Callable[[JobContext, dict[str, Any]], dict[str, Any]]


class JobFailed(Exception):
    """What DBOS is told of a job that FAILED."""


@dataclass(frozen=True, kw_only=True)
class Kind:
    """A kind of work."""

    name: str
    run: Run
    concurrency: int


class AtWork:
    """The jobs that run in this process now."""

    def __init__(self) -> None:
        self._contexts: dict[str, JobContext] = {}
        self._changed = threading.Condition()

    @contextlib.contextmanager
    def during(self, context: JobContext) -> Iterator[None]:
        """Counts a job as at work while open."""
        with self._changed:
            self._contexts[context.job_id] = context
        try:
            yield
        finally:
            with self._changed:
                del self._contexts[context.job_id]
                self._changed.notify_all()

    def cancel(self, job_id: str) -> None:
        """Tells a job that it is cancelled, where it runs here."""
        with self._changed:
            context = self._contexts.get(job_id)
        if context is not None:
            context.wake(cancelled=True)

    def interrupt(self, *, timeout_seconds: float) -> list[str]:
        """Ends the waits of all jobs, whose service ends, and waits for them to stop; gives the ids of those that did not."""
        with self._changed:
            for context in self._contexts.values():
                context.wake(cancelled=False)
            self._changed.wait_for(lambda: not self._contexts, timeout=timeout_seconds)
            return list(self._contexts)


def execute(jobs: Jobs, at_work: AtWork, kind: Kind, job_id: str, spec: dict[str, Any]) -> None:
    """Runs a job to its end, or on from where it was interrupted; the body of its DBOS workflow."""
    standing = jobs.log.standing(job_id)
    if standing is not None and standing.last.state in TERMINAL:
        if standing.last.state == jobs_pb2.JOB_STATE_FAILED:
            jobs.cancel_children(job_id)  # the process may have died between the two
        return  # it had ended; only DBOS did not know yet
    if jobs.stopping:
        raise JobInterrupted(f"job {job_id} starts after the restart")
    context = JobContext(jobs, job_id=job_id, kind=kind.name, spec=spec)
    with at_work.during(context), RUNNING.labels(jobs.service, kind.name).track_inprogress():
        jobs.log.append(jobs.event(job_id, kind.name, jobs_pb2.JOB_STATE_RUNNING))
        _to_the_end(jobs, context, kind)


def _to_the_end(jobs: Jobs, context: JobContext, kind: Kind) -> None:
    event = jobs.event(context.job_id, kind.name, jobs_pb2.JOB_STATE_SUCCEEDED)
    result = None
    try:
        result = json.loads(json.dumps(kind.run(context, context.spec)))
        if not isinstance(result, dict):
            raise TypeError(f"a job's result is a dict, not {type(result).__name__}")
    except JobCancelled:
        if jobs.stopping and not jobs.ended(context.job_id):
            raise JobInterrupted(f"job {context.job_id} is interrupted") from None
        event.state = jobs_pb2.JOB_STATE_CANCELLED
    except Exception as error:
        if jobs.stopping:
            raise JobInterrupted(f"job {context.job_id} is interrupted") from error
        logger.warning("job %s failed", context.job_id, exc_info=True)
        event.state = jobs_pb2.JOB_STATE_FAILED
        event.error = message_of(error)
    context.flush()
    if jobs.log.append(event, result=result):
        count_end(event)
    if event.state == jobs_pb2.JOB_STATE_FAILED:
        jobs.cancel_children(context.job_id)
        raise JobFailed(event.error)


def count_from_zero(service: str, kind: str) -> None:
    """Shows how jobs of a kind may end before one has: else the first one would be no increase to Prometheus."""
    for state in TERMINAL:
        ENDED.labels(service, kind, _name_of(state))


def count_end(event: jobs_pb2.JobEvent) -> None:
    """Counts the end of a job."""
    ENDED.labels(event.service, event.kind, _name_of(event.state)).inc()


def _name_of(state: jobs_pb2.JobState.ValueType) -> str:
    return jobs_pb2.JobState.Name(state).removeprefix("JOB_STATE_").lower()


def quiet_logs() -> None:
    """Leads what DBOS logs through `logging`, without what the jobs' own log says already."""
    dbos_logger = logging.getLogger("dbos")
    if not dbos_logger.handlers:
        dbos_logger.addHandler(logging.NullHandler())  # else DBOS adds a console handler of its own and stops the propagation
    dbos_logger.addFilter(_unless_said)


def _unless_said(record: logging.LogRecord) -> bool:
    """Drops DBOS's stack traces of jobs that failed or were cancelled."""
    error = record.exc_info[1] if record.exc_info else None
    return not isinstance(error, JobFailed | dbos_error.DBOSAwaitedWorkflowCancelledError)
