"""What a job at work is given."""

from __future__ import annotations

import contextvars
import json
import logging
import random
import threading
import time
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any, TypeVar

import grpc
from dbos import DBOS
from dbos import error as dbos_error

from assay.jobs.v1 import jobs_pb2
from assay_kit.errors import AssayError, FailedPrecondition, Unavailable

if TYPE_CHECKING:
    from assay_kit.jobs.engine import Jobs

logger = logging.getLogger(__name__)

_WRITE_EVERY_SECONDS = 0.2
_ASK_DATABASE_EVERY_SECONDS = 1.0
_LOOK_AGAIN_SECONDS = 5.0
_FIRST_PAUSE_SECONDS = 0.5
_LONGEST_PAUSE_SECONDS = 30.0

T = TypeVar("T")


class JobCancelled(Exception):
    """Somebody cancelled the job. A job that has begun to write something removes it and lets this pass."""


class JobInterrupted(BaseException):
    """The service ends; the job is resumed when it is back. A job keeps what it has and lets this pass.

    No subclass of Exception, so that code which handles failures does not take it for one.
    """


def outside(function: Callable[..., T], *args: Any, **kwargs: Any) -> T:
    """Calls a function where DBOS does not see the workflow around it, so that what it reads is not recorded as a step."""
    return contextvars.Context().run(function, *args, **kwargs)


class JobContext:
    """A job at work. `step`, `start` and `wait` belong in the job's own thread; the rest may be called from any."""

    def __init__(self, jobs: Jobs, *, job_id: str, kind: str, spec: dict[str, Any]) -> None:
        self._jobs = jobs
        self.job_id = job_id
        """Id of the job."""
        self.kind = kind
        """Kind of the job."""
        self.spec = spec
        """What was asked for."""
        self._thread = threading.get_ident()
        self._wake = threading.Event()
        self._cancelled = False
        self._asked_at = time.monotonic()
        self._lock = threading.Lock()
        self._unwritten: jobs_pb2.JobProgress | None = None
        self._written_at = 0.0
        self._written_stage = ""
        self._timer: threading.Timer | None = None

    # Progress

    def progress(
        self,
        stage: str,
        done: int = 0,
        total: int = 0,
        *,
        unit: str = "",
        message: str = "",
        metrics: Mapping[str, float] | None = None,
    ) -> None:
        """Says how far the job is. Of many calls a few a second are kept; the newest always is.

        Args:
            stage: what is being done, for example "train".
            done: units done in the stage.
            total: units of the stage; 0 when not known.
            unit: what a unit is, for example "steps".
            message: a line for people.
            metrics: figures of the moment.

        Raises:
            JobCancelled, JobInterrupted: as `check_cancelled`.
        """
        self.check_cancelled()
        progress = jobs_pb2.JobProgress(stage=stage, done=done, total=total, unit=unit, message=message)
        for name, value in (metrics or {}).items():
            progress.metrics[name] = float(value)
        with self._lock:
            self._unwritten = progress
            due = self._written_at + _WRITE_EVERY_SECONDS - time.monotonic()
            if stage != self._written_stage or due <= 0:
                self._write()
            elif self._timer is None:
                self._timer = threading.Timer(due, self.flush)
                self._timer.daemon = True
                self._timer.start()

    def flush(self) -> None:
        """Writes the newest progress now, if it is not written yet."""
        with self._lock:
            if self._timer is not None:
                self._timer.cancel()
                self._timer = None
            self._write()

    def _write(self) -> None:
        if self._unwritten is None:
            return
        event = self._jobs.event(self.job_id, self.kind, jobs_pb2.JOB_STATE_RUNNING)
        event.progress.CopyFrom(self._unwritten)
        self._written_stage, self._unwritten, self._written_at = self._unwritten.stage, None, time.monotonic()
        if not self._jobs.log.append(event):
            self._cancelled = True

    # Cancellation

    def cancelled(self) -> bool:
        """Whether to stop: somebody cancelled the job, or the service ends. Cheap enough for every iteration."""
        if self._cancelled or self._jobs.stopping:
            return True
        now = time.monotonic()
        if now - self._asked_at >= _ASK_DATABASE_EVERY_SECONDS:
            self._asked_at = now
            self._cancelled = outside(self._jobs.ended, self.job_id)
        return self._cancelled

    def check_cancelled(self) -> None:
        """Raises where `cancelled()` is true.

        Raises:
            JobCancelled: somebody cancelled the job; remove what is half done.
            JobInterrupted: the service ends; the job will be resumed.
        """
        if not self.cancelled():
            return
        if self._cancelled:
            raise JobCancelled(f"job {self.job_id} was cancelled")
        raise JobInterrupted(f"job {self.job_id} is interrupted; it goes on after the restart")

    def wake(self, *, cancelled: bool) -> None:
        """Ends every wait of the job; called when it is cancelled or the service ends."""
        self._cancelled = self._cancelled or cancelled
        self._wake.set()

    # Steps

    def step(self, name: str, function: Callable[..., T], *args: Any) -> T:
        """Does something once: after a restart the remembered result is returned and `function` is not called again.

        A step that was under way when the process died is done again, so it must be able to. Failures that pass
        (errors.Unavailable, and any error whose code is UNAVAILABLE) are tried again with growing pauses, up to the patience of
        `Jobs`; other errors are raised, and remembered.

        Args:
            name: for people; the order of the steps is what identifies one, so it must not depend on chance or time.
            function: what to do; its result must be JSON.
            args: its arguments.

        Returns:
            The result as JSON gives it back (tuples are lists).
        """
        self._in_own_thread("step")
        self.check_cancelled()
        live: list[Exception] = []

        def remembered() -> dict[str, Any]:
            try:
                return {"value": json.loads(json.dumps(self._patiently(name, function, args)))}
            except JobCancelled:
                raise
            except Exception as error:
                if self._jobs.stopping:
                    raise JobInterrupted(f"step {name} of job {self.job_id} is interrupted") from error
                live.append(error)
                return {"error": _remembered_error(error)}

        try:
            outcome = DBOS.run_step({"name": name}, remembered)
        except (dbos_error.DBOSWorkflowCancelledError, dbos_error.DBOSWorkflowConflictIDError) as error:
            if not outside(self._jobs.ended, self.job_id):
                raise
            self._cancelled = True
            raise JobCancelled(f"job {self.job_id} was cancelled") from error
        if "error" in outcome:
            raise live[0] if live else _error_again(outcome["error"])
        value: T = outcome["value"]
        return value

    def _patiently(self, name: str, function: Callable[..., T], args: tuple[Any, ...]) -> T:
        deadline = time.monotonic() + self._jobs.patience_seconds
        pause = _FIRST_PAUSE_SECONDS
        while True:
            try:
                return function(*args)
            except Exception as error:
                if not is_transient(error) or time.monotonic() + pause > deadline:
                    raise
                logger.warning("step %s of job %s is tried again in %.1f s: %s", name, self.job_id, pause, error)
            self._wake.clear()
            self.check_cancelled()
            self._wake.wait(pause * random.uniform(0.8, 1.2))
            self.check_cancelled()
            pause = min(pause * 2, _LONGEST_PAUSE_SECONDS)

    # Child jobs

    def start(self, kind: str, spec: Mapping[str, Any], job_id: str) -> None:
        """Starts a job of the same service as a child: when this one is cancelled or fails, it is cancelled.

        Start children before those that wait for them: a queue is first in, first out, so a waiting job's work is always ahead
        of it, and no number of slots can deadlock.

        Args:
            kind: another kind than this job's own, whose slot it holds.
            spec: what is asked for.
            job_id: id of the child; a job that is there already with the same kind and spec is taken as it is.
        """
        self._in_own_thread("start")
        self.check_cancelled()
        if kind == self.kind:
            raise FailedPrecondition(
                f"a job of kind {kind} cannot start another of its own kind: it would wait for the slot it holds itself"
            )
        self._jobs.submit_child(kind, spec, job_id)
        if outside(self._jobs.ended, self.job_id):
            outside(self._jobs.cancel, job_id)
            self._cancelled = True
            self.check_cancelled()

    def wait(self, job_id: str) -> dict[str, Any]:
        """Waits until another job of this service has ended; a remembered step.

        Returns:
            Its result.

        Raises:
            FailedPrecondition: it failed, or was cancelled; the message says which and why.
            JobCancelled, JobInterrupted: as `check_cancelled`.
        """
        self._in_own_thread("wait")
        self.step(f"wait for {job_id}", self._until_ended, job_id)
        job = outside(self._jobs.get, job_id)
        if job.state == jobs_pb2.JOB_STATE_FAILED:
            raise FailedPrecondition(f"{job_id} failed: {job.error}")
        if job.state == jobs_pb2.JOB_STATE_CANCELLED:
            raise FailedPrecondition(f"{job_id} was cancelled")
        return outside(self._jobs.result, job_id)

    def _until_ended(self, job_id: str) -> None:
        outside(self._jobs.get, job_id)
        with self._jobs.log.listening(job_id, self._wake.set):
            while not outside(self._jobs.ended, job_id):
                self._wake.wait(_LOOK_AGAIN_SECONDS)
                self._wake.clear()
                self.check_cancelled()

    def _in_own_thread(self, what: str) -> None:
        if threading.get_ident() != self._thread:
            raise RuntimeError(f"{what} belongs in the job's own thread: in another its result would not be remembered")


def is_transient(error: BaseException) -> bool:
    """Whether an error says that the same call may succeed later: UNAVAILABLE, of whatever client."""
    if isinstance(error, Unavailable):
        return True
    code = getattr(error, "code", None)
    if callable(code):
        code = code()
    return code is grpc.StatusCode.UNAVAILABLE or getattr(code, "name", "") == "UNAVAILABLE"


def message_of(error: BaseException) -> str:
    """What a caller is told about an error that ended a job."""
    if isinstance(error, AssayError) or isinstance(getattr(error, "code", None), grpc.StatusCode):
        return str(getattr(error, "message", error))  # of this kit or of the client: made to be read
    text = str(getattr(error, "message", "") or error)
    return f"{type(error).__name__}: {text}" if text else type(error).__name__


def _remembered_error(error: Exception) -> dict[str, Any]:
    code = getattr(error, "code", None)
    if callable(code):
        code = code()
    return {"message": message_of(error), "code": getattr(code, "name", "INTERNAL")}


def _error_again(remembered: Mapping[str, Any]) -> AssayError:
    error = AssayError(remembered["message"])
    error.code = getattr(grpc.StatusCode, remembered["code"], grpc.StatusCode.INTERNAL)
    return error
