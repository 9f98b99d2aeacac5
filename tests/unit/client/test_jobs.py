from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import grpc
import pytest
from support.service_thread import served

from assay.jobs.v1 import jobs_pb2, jobs_pb2_grpc
from assay_client import AssayClient, AssayClientError, Endpoints, JobFailed, wait_for_job
from assay_kit.errors import NotFound
from assay_kit.server import Door


class Jobs(jobs_pb2_grpc.JobServiceServicer):
    """One job, "j", of six steps; its state is kept while the server is away."""

    def __init__(self) -> None:
        self.job = jobs_pb2.Job(id="j", service="training", kind="sft", state=jobs_pb2.JOB_STATE_SUCCEEDED)
        self.job.result.update({"steps": 6, "loss": 1.5, "nested": {"list": [1, 2.5]}})
        self.events = [
            jobs_pb2.JobEvent(job_id="j", sequence=sequence, progress=jobs_pb2.JobProgress(stage="train", done=sequence, total=6))
            for sequence in range(6)
        ]
        self.known = 3
        self.watchers = 0

    async def WatchJob(self, request: jobs_pb2.WatchJobRequest, context: Any) -> AsyncIterator[jobs_pb2.WatchJobResponse]:
        if request.id != "j":
            raise NotFound(f"no job {request.id!r}; there is: j")
        self.watchers += 1
        sequence = request.from_sequence
        while sequence < len(self.events):
            if sequence < self.known:
                yield jobs_pb2.WatchJobResponse(event=self.events[sequence])
                sequence += 1
            else:
                await asyncio.sleep(0.02)
        yield jobs_pb2.WatchJobResponse(job=self.job)

    async def ListJobs(self, request: jobs_pb2.ListJobsRequest, context: Any) -> jobs_pb2.ListJobsResponse:
        start = int(request.page_token or 0)
        jobs = [jobs_pb2.Job(id=f"job-{number}") for number in range(5)]
        end = start + request.page_size
        return jobs_pb2.ListJobsResponse(jobs=jobs[start:end], next_page_token=str(end) if end < len(jobs) else "")


def door(servicer: Jobs) -> Door:
    return Door(add=jobs_pb2_grpc.add_JobServiceServicer_to_server, servicer=servicer, service_name="assay.jobs.v1.JobService")


@pytest.fixture
def assay(tmp_path: Path) -> Iterator[tuple[Jobs, AssayClient]]:
    servicer = Jobs()
    with served([door(servicer)], tmp_path) as target, AssayClient(Endpoints(training=target)) as client:
        yield servicer, client


def test_waiting_gives_each_event_and_then_the_result(assay: tuple[Jobs, AssayClient]) -> None:
    servicer, client = assay
    servicer.known = 6
    seen: list[int] = []
    result = wait_for_job(client.jobs("training"), "j", lambda event: seen.append(event.progress.done))
    assert seen == [0, 1, 2, 3, 4, 5]
    assert result == {"steps": 6, "loss": 1.5, "nested": {"list": [1, 2.5]}} and isinstance(result["steps"], int)


@pytest.mark.parametrize(
    ("state", "error", "message"),
    [(jobs_pb2.JOB_STATE_FAILED, "no pairs", "training job j failed: no pairs"), (jobs_pb2.JOB_STATE_CANCELLED, "", "was cancelled")],
)
def test_a_job_that_did_not_succeed_raises(assay: tuple[Jobs, AssayClient], state: Any, error: str, message: str) -> None:
    servicer, client = assay
    servicer.known, servicer.job.state, servicer.job.error = 6, state, error
    with pytest.raises(JobFailed, match=message) as failed:
        client.jobs("training").wait("j")
    assert failed.value.job.state == state


def test_an_unknown_job_is_not_waited_for(assay: tuple[Jobs, AssayClient]) -> None:
    with pytest.raises(AssayClientError, match="there is: j") as unknown:
        assay[1].jobs("training").wait("x")
    assert unknown.value.code is grpc.StatusCode.NOT_FOUND


def test_watching_goes_on_where_it_was_when_the_service_comes_back(tmp_path: Path) -> None:
    servicer = Jobs()
    seen: list[int] = []
    results: list[dict[str, Any]] = []
    three = threading.Event()

    def on_event(event: jobs_pb2.JobEvent) -> None:
        seen.append(event.sequence)
        if event.sequence == 2:
            three.set()

    def watch(target: str) -> None:
        with AssayClient(Endpoints(training=target), patience_s=30) as client:
            results.append(client.jobs("training").wait("j", on_event))

    with served([door(servicer)], tmp_path) as target:
        watching = threading.Thread(target=watch, args=(target,))
        watching.start()
        assert three.wait(20)
    servicer.known = 6
    with served([door(servicer)], tmp_path, port=int(target.rpartition(":")[2])):
        watching.join(30)
    assert seen == [0, 1, 2, 3, 4, 5] and results[0]["steps"] == 6
    assert servicer.watchers >= 2


def test_the_list_is_read_page_by_page(assay: tuple[Jobs, AssayClient]) -> None:
    assert [job.id for job in assay[1].jobs("training").list(page_size=2)] == [f"job-{number}" for number in range(5)]
