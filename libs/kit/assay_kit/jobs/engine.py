"""A service's kinds of work and the jobs there are, on DBOS."""

from __future__ import annotations

import contextlib
import logging
import re
import threading
import uuid
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

from dbos import DBOS, SetEnqueueOptions, SetWorkflowID, WorkflowStatus

from assay.jobs.v1 import jobs_pb2
from assay_kit.errors import FailedPrecondition, InvalidArgument, NotFound
from assay_kit.jobs import records
from assay_kit.jobs.context import outside
from assay_kit.jobs.exclusive import only_process
from assay_kit.jobs.log import TERMINAL, EventLog, Standing, database_url, schema_of
from assay_kit.jobs.orphans import Orphans
from assay_kit.jobs.publisher import EventPublisher
from assay_kit.jobs.work import AtWork, Kind, Run, count_end, count_from_zero, execute, quiet_logs
from assay_kit.settings import ServiceSettings

logger = logging.getLogger(__name__)

_JOB_ID = re.compile(r"[A-Za-z0-9][A-Za-z0-9._:/-]{0,199}")
_POLL_SECONDS = 0.5
_NAMES_SHOWN = 20


class Jobs:
    """The jobs of one service. One at a time in a process, and one process at a time on a database.

    On PostgreSQL several processes may share the jobs, each with an `instance` of its own in its settings.
    """

    def __init__(
        self,
        *,
        service: str,
        settings: ServiceSettings,
        publish: Callable[[jobs_pb2.JobEvent], None] | None = None,
        patience_seconds: float = 900.0,
        gone_after_seconds: float = 300.0,
    ) -> None:
        """Takes the parts; nothing is opened before `launch`.

        Args:
            service: "cleaning", "training", "evaluation".
            settings: `instance`, `data_dir`, `database_url` and `drain_seconds` are read.
            publish: given each event at least once and in order; an event whose call raised is given again.
            patience_seconds: longest that a step waits for a service that is UNAVAILABLE.
            gone_after_seconds: how long the name of another process must be unused before its jobs are taken over.
        """
        self.service = service
        self.settings = settings
        self.patience_seconds = patience_seconds
        self.executor = f"assay-{service}-{settings.instance}" if settings.instance else f"assay-{service}"
        """Name under which this process works on jobs; one that comes back under it goes on with them."""
        self._gone_after_seconds = gone_after_seconds
        self.stopping = False
        """Whether the service ends; jobs at work are to stop and will be resumed."""
        self._publish = publish
        self._kinds: dict[str, Kind] = {}
        self._workflows: dict[str, Callable[..., None]] = {}
        self._at_work = AtWork()
        self._submitting = threading.Lock()
        self._open = contextlib.ExitStack()
        self._log: EventLog | None = None

    def kind(self, name: str, run: Run, *, concurrency: int = 1) -> None:
        """Declares a kind of work, before `launch`.

        Args:
            name: for example "sft".
            run: does the work: (context, spec) -> result, both JSON. It is called again from the start after an interruption, so what
                must not happen twice belongs in `context.step`, and what lies between the steps must not depend on chance or time.
            concurrency: how many jobs of this kind run at once.
        """
        if self._log is not None:
            raise RuntimeError("kinds are declared before launch")
        self._kinds[name] = Kind(name=name, run=run, concurrency=concurrency)
        count_from_zero(self.service, name)

    @property
    def kinds(self) -> tuple[str, ...]:
        """Names of the kinds."""
        return tuple(sorted(self._kinds))

    @property
    def log(self) -> EventLog:
        """The event log, once launched."""
        if self._log is None:
            raise FailedPrecondition(f"the jobs of the {self.service} service are not launched yet")
        return self._log

    def launch(self) -> None:
        """Opens the database and goes on with the jobs that were interrupted.

        Raises:
            FailedPrecondition: another process works on these jobs under the same name.
        """
        url = database_url(self.settings.data_dir, self.settings.database_url)
        schema = schema_of(self.service)
        log = EventLog(url=url, schema=schema, keep_unpublished=self._publish is not None)
        with contextlib.ExitStack() as opened:
            opened.callback(log.close)
            opened.enter_context(
                only_process(
                    executor=self.executor,
                    data_dir=self.settings.data_dir,
                    engine=log.engine,
                    wait_seconds=self.settings.drain_seconds + 10,
                )
            )
            self._log = log
            if self._publish is not None:
                publisher = EventPublisher(log, self._publish)
                publisher.start()
                opened.callback(publisher.stop)
            self._launch_dbos(url, schema)
            opened.callback(DBOS.destroy, destroy_registry=True)
            if self.settings.instance and log.engine.dialect.name != "sqlite":
                orphans = Orphans(executor=self.executor, engine=log.engine, gone_after_seconds=self._gone_after_seconds)
                orphans.start()
                opened.callback(orphans.stop)
            self._open = opened.pop_all()

    def _launch_dbos(self, url: str, schema: str) -> None:
        quiet_logs()
        DBOS(
            config={
                "name": f"assay-{self.service}",
                "system_database_url": url,
                "dbos_system_schema": schema,
                "application_version": "1",
                "executor_id": self.executor,
                "log_level": "DEBUG" if self.settings.log_level == "DEBUG" else "WARNING",
                "enable_otlp": False,
            }
        )
        for kind in self._kinds.values():
            self._workflows[kind.name] = self._workflow(kind)
        DBOS.launch()
        for kind in self._kinds.values():
            DBOS.register_queue(
                self._queue(kind.name), worker_concurrency=kind.concurrency, polling_interval_sec=_POLL_SECONDS, on_conflict="always_update"
            )

    def begin_to_stop(self) -> None:
        """Ends what is being watched and lets jobs at work find out that their service ends; `shutdown` waits for them."""
        self.stopping = True

    def shutdown(self) -> None:
        """Interrupts the jobs at work, waits for them at most `drain_seconds`, and closes the database."""
        self.stopping = True
        left = self._at_work.interrupt(timeout_seconds=self.settings.drain_seconds)
        if left:
            logger.warning("jobs that do not stop are abandoned and will be resumed: %s", ", ".join(left))
        self._open.close()

    # Asking

    def submit(self, kind: str, spec: Mapping[str, Any], job_id: str = "") -> jobs_pb2.Job:
        """Accepts a job; with an id that is there already, that job.

        Args:
            kind: one of `kinds`.
            spec: what is asked for; JSON.
            job_id: chosen by the caller, or empty.

        Raises:
            InvalidArgument: the kind, the id or the spec cannot be.
            AlreadyExists: a job of that id was asked for something else; the message names the first field that differs.
        """
        job_id = job_id or f"{kind}-{uuid.uuid4().hex[:12]}"
        outside(self.submit_child, kind, spec, job_id)
        return self.get(job_id)

    def submit_child(self, kind: str, spec: Mapping[str, Any], job_id: str) -> None:
        """As `submit`, from within a job: the new one is its child."""
        if kind not in self._kinds:
            raise InvalidArgument("kind", f"the {self.service} service has no {kind!r}; it has {', '.join(self.kinds)}")
        if not _JOB_ID.fullmatch(job_id):
            raise InvalidArgument("job_id", "1 to 200 letters, digits and . _ : / -, the first a letter or digit")
        plain = records.plain_json(spec)
        log = self.log
        with self._submitting:
            there = outside(records.workflow, job_id)
            if there is not None:
                records.same_or_refuse(there, kind, plain)
            # By priority, since DBOS alone orders a queue by time, on SQLite by whole seconds.
            with SetWorkflowID(job_id), SetEnqueueOptions(priority=log.next_order()):
                DBOS.enqueue_workflow(self._queue(kind), self._workflows[kind], job_id, plain)
        log.append(self.event(job_id, kind, jobs_pb2.JOB_STATE_QUEUED), first=True)

    def get(self, job_id: str) -> jobs_pb2.Job:
        """A job.

        Raises:
            NotFound: there is none of that id; the message names those there are.
        """
        workflow = outside(records.workflow, job_id)
        if workflow is None:
            raise NotFound(f"no job {job_id!r} in the {self.service} service; {self._names()}")
        return self._job(workflow)

    def result(self, job_id: str) -> dict[str, Any]:
        """What came out of a job that SUCCEEDED, integers as integers."""
        standing = self.log.standing(job_id)
        if standing is None or standing.result is None:
            raise FailedPrecondition(f"job {job_id} has no result")
        return standing.result

    def ended(self, job_id: str) -> bool:
        """Whether a job has ended."""
        return self.get(job_id).state in TERMINAL

    def list(
        self, *, states: Sequence[int] = (), kind: str = "", page_size: int = 100, page_token: str = ""
    ) -> tuple[list[jobs_pb2.Job], str]:
        """A page of jobs, newest first.

        Args:
            states: only these; empty means all.
            kind: only this; empty means all.
            page_size: 1 to 1,000.
            page_token: as the page before gave it; empty for the first.

        Returns:
            The jobs, and the token of the next page; empty on the last.

        Raises:
            InvalidArgument: the token is none, or the kind is unknown.
        """
        if kind and kind not in self._kinds:
            raise InvalidArgument("kind", f"the {self.service} service has no {kind!r}; it has {', '.join(self.kinds)}")
        found: list[jobs_pb2.Job] = []
        place = records.parse_page_token(page_token)
        while True:
            places = self.log.accepted(before=place, kind=kind, limit=page_size + 1)
            for here, job in zip(places, self._jobs_of([job_id for _, job_id in places]), strict=True):
                if place is not None and len(found) == page_size:
                    return found, records.page_token(place)
                place = here
                if not states or job.state in states:
                    found.append(job)
            if len(places) <= page_size:
                return found, ""

    def cancel(self, job_id: str) -> jobs_pb2.Job:
        """Cancels a job and its children at once; what runs finds out by `JobContext.cancelled`. An ended job stays as it is.

        Raises:
            NotFound: there is no such job.
        """
        if self.get(job_id).state in TERMINAL:
            return self.get(job_id)
        self._cancel(outside(records.family, job_id))
        return self.get(job_id)

    def cancel_children(self, job_id: str) -> None:
        """Cancels what is left of the children of a job that has failed, and theirs; doing it again changes nothing."""
        self._cancel([workflow for workflow in outside(records.family, job_id) if workflow.workflow_id != job_id])

    def _cancel(self, workflows: Sequence[WorkflowStatus]) -> None:
        for workflow in workflows:
            event = self.event(workflow.workflow_id, records.kind_of(workflow), jobs_pb2.JOB_STATE_CANCELLED)
            if self.log.append(event):
                count_end(event)
                self._at_work.cancel(workflow.workflow_id)
        outside(DBOS.cancel_workflows, [workflow.workflow_id for workflow in workflows])

    def watch(self, job_id: str, from_sequence: int = 0) -> Iterator[jobs_pb2.JobEvent]:
        """Events of a job from a sequence number on, as they happen, until it has ended.

        Raises:
            NotFound: there is no such job.
        """
        told = threading.Event()
        with self.log.listening(job_id, told.set):
            while True:
                told.clear()
                ended = self.ended(job_id)
                events = self.log.read(job_id, from_sequence)
                yield from events
                from_sequence += len(events)
                if ended and not events:
                    return
                if not events:
                    told.wait(1.0)

    # Working

    def event(self, job_id: str, kind: str, state: int) -> jobs_pb2.JobEvent:
        """A new event of a job, not written yet."""
        return jobs_pb2.JobEvent(job_id=job_id, service=self.service, kind=kind, state=state)  # type: ignore[arg-type]

    def _workflow(self, kind: Kind) -> Callable[..., None]:
        def workflow(job_id: str, spec: dict[str, Any]) -> None:
            execute(self, self._at_work, kind, job_id, spec)

        return DBOS.workflow(name=self._name(kind.name), max_recovery_attempts=10_000)(workflow)

    # Helpers

    def _name(self, kind: str) -> str:
        return f"assay.{self.service}.{kind}"

    def _queue(self, kind: str) -> str:
        return f"{self.service}.{kind}"

    def _names(self) -> str:
        jobs, more = self.list(page_size=_NAMES_SHOWN)
        if not jobs:
            return "it has none yet"
        return "it has " + ", ".join(job.id for job in jobs) + (", …" if more else "")

    def _job(self, workflow: WorkflowStatus) -> jobs_pb2.Job:
        return self._read(workflow, self.log.standing(workflow.workflow_id))

    def _jobs_of(self, job_ids: Sequence[str]) -> Sequence[jobs_pb2.Job]:
        workflows = outside(records.workflows, job_ids)
        standings = self.log.standings(job_ids)
        return [self._read(workflows[job_id], standings[job_id]) for job_id in job_ids]

    def _read(self, workflow: WorkflowStatus, standing: Standing | None) -> jobs_pb2.Job:
        job = records.job(self.service, workflow, standing)
        if job.state in TERMINAL and (standing is None or standing.last.state not in TERMINAL):
            # DBOS gave it up without the log hearing of it, for example after too many interruptions
            event = self.event(job.id, job.kind, job.state)
            event.error = job.error
            if self.log.append(event):
                self.cancel_children(job.id)
        return job
