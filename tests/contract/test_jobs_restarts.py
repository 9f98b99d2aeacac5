"""Jobs go on by themselves after their service was killed, on SQLite and on PostgreSQL."""

from __future__ import annotations

import json
import signal
import subprocess
import threading
import time
from pathlib import Path
from typing import Any

import pytest
from support.job_databases import database_url, postgres  # noqa: F401
from support.job_service import make_jobs, service_process, settings_for

from assay.jobs.v1 import jobs_pb2
from assay_kit.errors import FailedPrecondition


def submit(process: subprocess.Popen[str], kind: str, job_id: str, **spec: Any) -> None:
    assert process.stdin is not None and process.stdout is not None
    process.stdin.write(f"{kind} {job_id} {json.dumps(spec)}\n")
    process.stdin.flush()
    assert process.stdout.readline().strip() == f"accepted {job_id}"


def until(trace: Path, line: str, times: int = 1) -> None:
    pause = threading.Event()
    deadline = time.monotonic() + 30
    while not trace.exists() or trace.read_text().splitlines().count(line) < times:
        assert time.monotonic() < deadline, f"{line!r} did not come {times} times"
        pause.wait(0.02)


def events_of(stub: Any, job_id: str, from_sequence: int = 0) -> tuple[list[jobs_pb2.JobEvent], jobs_pb2.Job]:
    answers = list(stub.WatchJob(jobs_pb2.WatchJobRequest(id=job_id, from_sequence=from_sequence), timeout=60))
    return [answer.event for answer in answers[:-1]], answers[-1].job


def test_a_job_killed_in_its_third_step_goes_on_there(tmp_path: Path, database_url: str) -> None:  # noqa: F811
    trace, gate = tmp_path / "trace", tmp_path / "gate"
    with service_process(tmp_path, database_url) as (process, stub):
        submit(process, "steps", "s", trace=str(trace), gate=str(gate), gated=3)
        until(trace, "begin 3")
        seen = []
        for answer in stub.WatchJob(jobs_pb2.WatchJobRequest(id="s"), timeout=30):
            seen.append(answer.event)
            if answer.event.progress.done == 2:
                break
        process.send_signal(signal.SIGKILL)
        process.wait()
    gate.touch()
    with service_process(tmp_path, database_url) as (_, stub):
        events, job = events_of(stub, "s")
        assert job.state == jobs_pb2.JOB_STATE_SUCCEEDED
        assert list(job.result["squares"]) == [1, 4, 9, 16, 25, 36]
        assert events[: len(seen)] == seen  # a watcher after the restart is told all from the first
        assert [event.sequence for event in events] == list(range(len(events)))
        later, _ = events_of(stub, "s", from_sequence=len(seen))
        assert later == events[len(seen) :]
    lines = trace.read_text().splitlines()
    assert [line for line in lines if line.startswith("end")] == [f"end {number}" for number in range(1, 7)]
    assert [lines.count(f"begin {number}") for number in range(1, 7)] == [1, 1, 2, 1, 1, 1]


STAGES = [
    {"name": "pairs", "add": 1},
    {"name": "left", "needs": ["pairs"], "add": 10},
    {"name": "right", "needs": ["pairs"], "add": 100},
    {"name": "report", "needs": ["left", "right"], "add": 1000},
]


def test_a_study_killed_in_the_middle_goes_on_without_repeating_its_stages(tmp_path: Path, database_url: str) -> None:  # noqa: F811
    trace, gate = tmp_path / "trace", tmp_path / "gate"
    stages = [STAGES[0], {**STAGES[1], "gate": str(gate)}, *STAGES[2:]]
    with service_process(tmp_path, database_url) as (process, _):
        submit(process, "study", "st", stages=stages, trace=str(trace))
        until(trace, "begin left")
        process.kill()
        process.wait()
    gate.touch()
    with service_process(tmp_path, database_url) as (_, stub):
        _, job = events_of(stub, "st")
        assert dict(job.result["values"]) == {"st/pairs": 1, "st/left": 11, "st/right": 101, "st/report": 1112}
        page = stub.ListJobs(jobs_pb2.ListJobsRequest())
        assert [one.id for one in page.jobs] == ["st/report", "st/right", "st/left", "st/pairs", "st"]
    assert trace.read_text().splitlines() == [
        "begin pairs", "end pairs", "begin left", "begin left", "end left", "begin right", "end right", "begin report", "end report",
    ]  # fmt: skip


def test_a_job_cancelled_before_the_kill_stays_cancelled(tmp_path: Path) -> None:
    trace = tmp_path / "trace"
    with service_process(tmp_path) as (process, stub):
        submit(process, "steps", "first", trace=str(trace), gate=str(tmp_path / "gate"), gated=1)
        submit(process, "steps", "second", trace=str(trace))
        until(trace, "begin 1")
        stub.CancelJob(jobs_pb2.CancelJobRequest(id="first"))
        process.kill()
        process.wait()
    with service_process(tmp_path) as (_, stub):
        assert events_of(stub, "second")[1].state == jobs_pb2.JOB_STATE_SUCCEEDED
        assert events_of(stub, "first")[1].state == jobs_pb2.JOB_STATE_CANCELLED
    assert trace.read_text().splitlines().count("begin 1") == 2


def test_sigterm_interrupts_a_job_at_once_and_it_goes_on_after_the_restart(tmp_path: Path) -> None:
    trace, gate = tmp_path / "trace", tmp_path / "gate"
    with service_process(tmp_path) as (process, _):
        submit(process, "steps", "s", trace=str(trace), gate=str(gate), gated=2)
        until(trace, "begin 2")
        process.terminate()
        assert process.wait(timeout=20) == 0
    assert "removed what was half done" not in trace.read_text()
    gate.touch()
    with service_process(tmp_path) as (_, stub):
        assert events_of(stub, "s")[1].state == jobs_pb2.JOB_STATE_SUCCEEDED
    assert trace.read_text().splitlines().count("begin 1") == 1


def test_a_second_process_does_not_take_the_jobs_of_a_living_one(tmp_path: Path, database_url: str) -> None:  # noqa: F811
    with service_process(tmp_path, database_url):
        jobs = make_jobs(settings_for(tmp_path, database_url).model_copy(update={"drain_seconds": -9.0}))
        with pytest.raises(FailedPrecondition, match="another process"):
            jobs.launch()
