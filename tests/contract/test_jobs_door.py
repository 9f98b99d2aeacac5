"""assay.jobs.v1.JobService over a real server, on SQLite and on PostgreSQL."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import grpc
import pytest
from prometheus_client import REGISTRY
from support.job_databases import database_url, postgres  # noqa: F401
from support.job_service import make_app, make_jobs, settings_for

from assay.jobs.v1 import jobs_pb2, jobs_pb2_grpc
from assay_kit.errors import AlreadyExists, InvalidArgument
from assay_kit.jobs import JobInterrupted, Jobs
from assay_kit.server import running

QUEUED, RUNNING = jobs_pb2.JOB_STATE_QUEUED, jobs_pb2.JOB_STATE_RUNNING
SUCCEEDED, FAILED, CANCELLED = jobs_pb2.JOB_STATE_SUCCEEDED, jobs_pb2.JOB_STATE_FAILED, jobs_pb2.JOB_STATE_CANCELLED


class Door:
    """The jobs and a client of their door."""

    def __init__(self, jobs: Jobs, stub: Any, folder: Path) -> None:
        self.jobs, self.stub, self.folder = jobs, stub, folder
        self.trace, self.gate = folder / "trace", folder / "gate"
        self.trace.touch()

    async def submit(self, kind: str, job_id: str, **spec: Any) -> jobs_pb2.Job:
        return await asyncio.to_thread(self.jobs.submit, kind, {"trace": str(self.trace), "gate": str(self.gate), **spec}, job_id)

    async def get(self, job_id: str) -> jobs_pb2.Job:
        return (await self.stub.GetJob(jobs_pb2.GetJobRequest(id=job_id))).job

    async def watch(self, job_id: str, from_sequence: int = 0) -> tuple[list[jobs_pb2.JobEvent], jobs_pb2.Job]:
        answers = [answer async for answer in self.stub.WatchJob(jobs_pb2.WatchJobRequest(id=job_id, from_sequence=from_sequence))]
        assert not any(answer.HasField("job") for answer in answers[:-1])
        return [answer.event for answer in answers[:-1]], answers[-1].job

    async def until(self, line: str, times: int = 1) -> None:
        async with asyncio.timeout(20):
            while self.lines().count(line) < times:
                await asyncio.sleep(0.02)

    def lines(self) -> list[str]:
        return self.trace.read_text().splitlines()


@pytest.fixture
async def door(tmp_path: Path, database_url: str) -> AsyncIterator[Door]:  # noqa: F811
    jobs = make_jobs(settings_for(tmp_path, database_url))
    async with running(make_app(jobs)) as target, grpc.aio.insecure_channel(target) as channel:
        yield Door(jobs, jobs_pb2_grpc.JobServiceStub(channel), tmp_path)


async def test_a_job_succeeds_and_its_events_tell_how(door: Door) -> None:
    await door.submit("steps", "s1")
    events, job = await door.watch("s1")
    assert job.state == SUCCEEDED
    assert job.service == "training" and job.kind == "steps"
    assert list(job.result["squares"]) == [1, 4, 9, 16, 25, 36]
    assert job.spec["trace"] == str(door.trace)
    assert [event.sequence for event in events] == list(range(len(events)))
    assert events[0].state == QUEUED and events[1].state == RUNNING and events[-1].state == SUCCEEDED
    assert job.progress.done == 6 and job.progress.total == 6 and job.progress.unit == "steps"
    assert job.created_at.ToNanoseconds() <= events[1].at.ToNanoseconds() <= job.updated_at.ToNanoseconds()


async def test_a_failure_is_told_in_its_own_words(door: Door) -> None:
    await door.submit("wrong", "typed", typed=True)
    await door.submit("wrong", "untyped")
    events, job = await door.watch("typed")
    assert job.state == FAILED
    assert job.error == "the model has no quality card; run a benchmark first"
    assert events[-1].error == job.error
    assert (await door.watch("untyped"))[1].error == "ZeroDivisionError: division by zero"


async def test_a_step_waits_for_a_service_that_is_away(door: Door) -> None:
    await door.submit("patient", "p")
    _, job = await door.watch("p")
    assert job.result["answer"] == "there" and job.result["calls"] == 3


async def test_asking_twice_with_one_id_is_asking_once(door: Door) -> None:
    first = await door.submit("steps", "twice", gated=9)
    second = await door.submit("steps", "twice", gated=9)
    assert first.created_at == second.created_at
    await door.watch("twice")
    await door.submit("steps", "twice", gated=9)
    assert door.lines().count("begin 1") == 1
    with pytest.raises(AlreadyExists, match="gated = 9, not 8"):
        await door.submit("steps", "twice", gated=8)
    with pytest.raises(AlreadyExists, match="kind 'steps', not 'busy'"):
        await door.submit("busy", "twice", gated=9)


async def test_a_kind_or_id_that_cannot_be_is_refused(door: Door) -> None:
    with pytest.raises(InvalidArgument, match="busy, careless, patient, stage, steps, study, wrong"):
        await door.submit("dance", "d")
    with pytest.raises(InvalidArgument, match="job_id"):
        await door.submit("steps", "no spaces please")
    with pytest.raises(InvalidArgument, match="spec"):
        await door.submit("steps", "s", odd={1, 2})


async def test_an_unknown_job_is_not_found_and_the_known_are_named(door: Door) -> None:
    with pytest.raises(grpc.aio.AioRpcError) as none:
        await door.get("nothing")
    assert none.value.code() is grpc.StatusCode.NOT_FOUND and "none yet" in str(none.value.details())
    await door.submit("steps", "the-one")
    for call in (door.stub.GetJob(jobs_pb2.GetJobRequest(id="x")), door.stub.CancelJob(jobs_pb2.CancelJobRequest(id="x"))):
        with pytest.raises(grpc.aio.AioRpcError) as other:
            await call
        assert other.value.code() is grpc.StatusCode.NOT_FOUND and "the-one" in str(other.value.details())
    with pytest.raises(grpc.aio.AioRpcError) as watched:
        await door.watch("x")
    assert watched.value.code() is grpc.StatusCode.NOT_FOUND


async def test_a_running_job_is_cancelled_and_cleans_up(door: Door) -> None:
    await door.submit("steps", "long", gated=3)
    await door.until("begin 3")
    cancelled = (await door.stub.CancelJob(jobs_pb2.CancelJobRequest(id="long"))).job
    assert cancelled.state == CANCELLED
    await door.until("removed what was half done")
    events, job = await door.watch("long")
    assert job.state == CANCELLED and events[-1].state == CANCELLED
    assert "end 3" not in door.lines()
    again = (await door.stub.CancelJob(jobs_pb2.CancelJobRequest(id="long"))).job
    assert again == job


async def test_a_queued_job_is_cancelled_and_never_begins(door: Door) -> None:
    await door.submit("steps", "first", gated=1)
    await door.until("begin 1")
    assert (await door.submit("steps", "second")).state == QUEUED
    assert (await door.stub.CancelJob(jobs_pb2.CancelJobRequest(id="second"))).job.state == CANCELLED
    door.gate.touch()
    assert (await door.watch("first"))[1].state == SUCCEEDED
    events, _ = await door.watch("second")
    assert [event.state for event in events] == [QUEUED, CANCELLED]
    assert door.lines().count("begin 1") == 1


async def test_ends_are_counted(door: Door) -> None:
    def count(state: str) -> float:
        return REGISTRY.get_sample_value("assay_jobs_ended_total", {"service": "training", "kind": "steps", "state": state}) or 0

    before = count("succeeded"), count("cancelled")
    await door.submit("steps", "good")
    await door.watch("good")
    await door.submit("steps", "long", gated=1)
    await door.until("begin 1", 2)
    assert REGISTRY.get_sample_value("assay_jobs_running", {"service": "training", "kind": "steps"}) == 1
    await door.stub.CancelJob(jobs_pb2.CancelJobRequest(id="long"))
    await door.until("removed what was half done")
    assert (count("succeeded"), count("cancelled")) == (before[0] + 1, before[1] + 1)


async def test_an_ended_job_stays_as_it_is_when_cancelled(door: Door) -> None:
    await door.submit("steps", "done")
    await door.watch("done")
    assert (await door.stub.CancelJob(jobs_pb2.CancelJobRequest(id="done"))).job.state == SUCCEEDED


async def test_no_more_jobs_of_a_kind_run_than_it_allows(door: Door) -> None:
    for number in range(5):
        await door.submit("busy", f"busy-{number}")
    await door.until("begin", 2)
    await asyncio.sleep(1)
    assert door.lines() == ["begin", "begin"]
    states = [(await door.get(f"busy-{number}")).state for number in range(5)]
    assert states == [RUNNING, RUNNING, QUEUED, QUEUED, QUEUED]  # first in, first out
    door.gate.touch()
    await door.until("end", 5)


async def test_many_watchers_see_the_same_events(door: Door) -> None:
    await door.submit("steps", "seen", gated=2)
    watchers = [asyncio.create_task(door.watch("seen")) for _ in range(30)]
    await door.until("begin 2")
    assert (await door.get("seen")).state == RUNNING  # the door answers while many watch
    door.gate.touch()
    seen = await asyncio.gather(*watchers)
    assert len({b"".join(event.SerializeToString(deterministic=True) for event in events) for events, _ in seen}) == 1
    late, _ = await door.watch("seen", from_sequence=2)
    assert [event.sequence for event in late] == [event.sequence for event in seen[0][0][2:]]


async def test_pages_hold_each_job_once_newest_first(door: Door) -> None:
    door.gate.touch()
    for number in range(7):
        await door.submit("busy" if number % 2 else "wrong", f"job-{number}")
    for number in range(7):
        await door.watch(f"job-{number}")

    async def pages(**wanted: Any) -> list[list[str]]:
        found, token = [], ""
        while True:
            answer = await door.stub.ListJobs(jobs_pb2.ListJobsRequest(page_token=token, **wanted))
            found.append([job.id for job in answer.jobs])
            token = answer.next_page_token
            if not token:
                return found

    assert await pages(page_size=3) == [["job-6", "job-5", "job-4"], ["job-3", "job-2", "job-1"], ["job-0"]]
    assert await pages() == [[f"job-{number}" for number in reversed(range(7))]]
    assert await pages(page_size=2, states=[FAILED]) == [["job-6", "job-4"], ["job-2", "job-0"]]
    assert await pages(kind="busy", page_size=2) == [["job-5", "job-3"], ["job-1"]]
    assert await pages(states=[CANCELLED]) == [[]]
    for request, field in (
        (jobs_pb2.ListJobsRequest(page_size=1001), "page_size"),
        (jobs_pb2.ListJobsRequest(page_token="!"), "page_token"),
        (jobs_pb2.ListJobsRequest(kind="dance"), "kind"),
    ):
        with pytest.raises(grpc.aio.AioRpcError) as refused:
            await door.stub.ListJobs(request)
        assert refused.value.code() is grpc.StatusCode.INVALID_ARGUMENT and field in str(refused.value.details())


STAGES = [
    {"name": "pairs", "add": 1},
    {"name": "left", "needs": ["pairs"], "add": 10},
    {"name": "right", "needs": ["pairs"], "add": 100},
    {"name": "report", "needs": ["left", "right"], "add": 1000},
]


async def test_a_study_runs_its_stages_in_order_though_one_slot_serves_them(door: Door) -> None:
    await door.submit("study", "st", stages=STAGES)
    _, job = await door.watch("st")
    assert dict(job.result["values"]) == {"st/pairs": 1, "st/left": 11, "st/right": 101, "st/report": 1112}
    assert door.lines()[0] == "begin pairs" and door.lines()[-1] == "end report"


async def test_a_failed_stage_fails_those_that_wait_for_it_and_says_why(door: Door) -> None:
    stages = [{**STAGES[0], "fails": True}, *STAGES[1:]]
    await door.submit("study", "st", stages=stages)
    _, job = await door.watch("st")
    assert job.state == FAILED and job.error == "st/report failed: st/left failed: st/pairs failed: no such pairs"
    _, report = await door.watch("st/report")
    assert report.error == "st/left failed: st/pairs failed: no such pairs"
    assert door.lines() == ["begin pairs"]


async def test_cancelling_a_study_cancels_its_stages(door: Door) -> None:
    stages = [STAGES[0], {**STAGES[1], "gate": str(door.gate)}, *STAGES[2:]]
    await door.submit("study", "st", stages=stages)
    await door.until("begin left")
    await door.stub.CancelJob(jobs_pb2.CancelJobRequest(id="st"))
    states = {name: (await door.watch(f"st/{name}"))[1].state for name in ("pairs", "left", "right", "report")}
    assert states == {"pairs": SUCCEEDED, "left": CANCELLED, "right": CANCELLED, "report": CANCELLED}
    assert (await door.get("st")).state == CANCELLED
    await door.submit("study", "next", stages=STAGES)  # the slots are free again
    assert (await door.watch("next"))[1].state == SUCCEEDED


CHILDREN = ("study", "study/pairs", "1", "2", "3")


async def test_a_job_that_fails_ends_its_children_and_keeps_its_own_error(door: Door) -> None:
    await door.submit("careless", "st")
    events, job = await door.watch("st")
    assert job.state == FAILED and job.error == "no such pairs"
    assert events[-1].error == job.error
    assert [(await door.watch(f"st/{name}"))[1].state for name in CHILDREN] == [CANCELLED] * 5
    await door.submit("study", "next", stages=STAGES)  # the slots are free again
    assert (await door.watch("next"))[1].state == SUCCEEDED
    assert "end" not in door.lines() and door.lines().count("end pairs") == 1


def test_a_job_whose_process_died_as_it_failed_ends_its_children_after_the_restart(tmp_path: Path, database_url: str) -> None:  # noqa: F811
    def die(job_id: str) -> None:
        raise JobInterrupted(f"the process of {job_id} died")

    first = make_jobs(settings_for(tmp_path, database_url))
    first.cancel_children = die  # type: ignore[method-assign]
    first.launch()
    try:
        first.submit("careless", {"trace": str(tmp_path / "trace"), "gate": str(tmp_path / "gate")}, "st")
        assert list(first.watch("st"))[-1].state == FAILED
        assert first.get("st/1").state == RUNNING
    finally:
        first.shutdown()
    second = make_jobs(settings_for(tmp_path, database_url))
    second.launch()
    try:
        assert [list(second.watch(f"st/{name}"))[-1].state for name in CHILDREN] == [CANCELLED] * 5
        assert second.get("st").error == "no such pairs"
    finally:
        second.shutdown()


async def test_events_reach_the_publisher_in_order_though_it_fails_at_first(tmp_path: Path, database_url: str) -> None:  # noqa: F811
    published: list[jobs_pb2.JobEvent] = []
    failures = [1, 1]

    def publish(event: jobs_pb2.JobEvent) -> None:
        if failures:
            failures.pop()
            raise ConnectionError("the broker is away")
        published.append(event)

    jobs = make_jobs(settings_for(tmp_path, database_url), publish)
    await asyncio.to_thread(jobs.launch)
    try:
        await asyncio.to_thread(jobs.submit, "wrong", {}, "w")
        events = await asyncio.to_thread(lambda: list(jobs.watch("w")))
    finally:
        await asyncio.to_thread(jobs.shutdown)
    assert not failures
    assert published == events and events[-1].state == FAILED
