"""Long work: asking for it is each service's own call; watching it is the same everywhere."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any

from assay.jobs.v1 import jobs_pb2, jobs_pb2_grpc
from assay_client.calls import Caller
from assay_client.errors import AssayClientError, JobFailed
from assay_client.messages import plain


class JobsClient:
    """The jobs of one service."""

    def __init__(self, caller: Caller) -> None:
        """Takes the channel of the service."""
        self._caller = caller

    @property
    def _stub(self) -> jobs_pb2_grpc.JobServiceStub:
        return self._caller.stub(jobs_pb2_grpc.JobServiceStub)

    def get(self, job_id: str) -> jobs_pb2.Job:
        """A job; NOT_FOUND names those there are."""
        return self._caller.call(self._stub.GetJob, jobs_pb2.GetJobRequest(id=job_id)).job

    def list(self, *, states: Sequence[jobs_pb2.JobState.ValueType] = (), kind: str = "", page_size: int = 100) -> Iterator[jobs_pb2.Job]:
        """All jobs, newest first, read page by page.

        Args:
            states: only these; empty means all.
            kind: only this; empty means all.
            page_size: jobs a call.
        """
        token = ""
        while True:
            request = jobs_pb2.ListJobsRequest(states=states, kind=kind, page_size=page_size, page_token=token)
            page = self._caller.call(self._stub.ListJobs, request)
            yield from page.jobs
            token = page.next_page_token
            if not token:
                return

    def cancel(self, job_id: str) -> jobs_pb2.Job:
        """Cancels a job; an ended one stays as it is."""
        return self._caller.call(self._stub.CancelJob, jobs_pb2.CancelJobRequest(id=job_id)).job

    def watch(self, job_id: str, from_sequence: int = 0) -> Iterator[jobs_pb2.WatchJobResponse]:
        """Events of a job from a sequence number on, as they happen; the last answer carries the job as it ended.

        With patience, a service that goes away and comes back is waited for, and no event is lost or given twice.

        Raises:
            AssayClientError: NOT_FOUND, or UNAVAILABLE for longer than the client's patience.
        """
        pauses = self._caller.pauses()
        while True:
            request = jobs_pb2.WatchJobRequest(id=job_id, from_sequence=from_sequence)
            try:
                for answer in self._caller.stream(self._stub.WatchJob, request):
                    pauses = self._caller.pauses()
                    if answer.HasField("event"):
                        from_sequence = answer.event.sequence + 1
                    yield answer
                return
            except AssayClientError as error:
                self._caller.pause_or_raise(error, pauses)

    def wait(self, job_id: str, on_event: Callable[[jobs_pb2.JobEvent], None] | None = None) -> dict[str, Any]:
        """As `wait_for_job`."""
        return wait_for_job(self, job_id, on_event)


def wait_for_job(jobs: JobsClient, job_id: str, on_event: Callable[[jobs_pb2.JobEvent], None] | None = None) -> dict[str, Any]:
    """Waits until a job has ended.

    Args:
        jobs: of the service that owns it.
        job_id: the job.
        on_event: called with each event from the first, for progress.

    Returns:
        Its result.

    Raises:
        JobFailed: it failed or was cancelled.
        AssayClientError: the service does not know it, or is away for longer than the client's patience.
    """
    job = jobs_pb2.Job()
    for answer in jobs.watch(job_id):
        if answer.HasField("job"):
            job = answer.job
        elif on_event is not None:
            on_event(answer.event)
    if job.state != jobs_pb2.JOB_STATE_SUCCEEDED:
        raise JobFailed(job)
    return plain(job.result)
