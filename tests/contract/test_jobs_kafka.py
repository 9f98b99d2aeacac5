"""Jobs asked for over Kafka, and their events on it, with a real broker."""

from __future__ import annotations

import threading
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from support.job_service import make_jobs, settings_for

from assay.jobs.v1 import jobs_pb2
from assay_kit.errors import InvalidArgument
from assay_kit.jobs import JobRequestWorker, Jobs
from assay_kit.kafka import EventProducer, KafkaConnection, Record, collect, end_offsets, ensure_topics
from assay_kit.topics import DEAD_LETTERS, JOBS_EVENTS, JOBS_REQUESTED, Topic


@pytest.fixture
def connection(kafka_bootstrap: str) -> KafkaConnection:
    connection = KafkaConnection(kafka_bootstrap)
    ensure_topics(connection)
    return connection


@pytest.fixture
def producer(connection: KafkaConnection) -> Iterator[EventProducer]:
    producer = EventProducer(connection, "test")
    yield producer
    producer.close()


@pytest.fixture
def jobs(tmp_path: Path, producer: EventProducer) -> Iterator[Jobs]:
    def publish(event: jobs_pb2.JobEvent) -> None:
        producer.send(JOBS_EVENTS, event.job_id, event)
        producer.flush()

    jobs = make_jobs(settings_for(tmp_path), publish)
    jobs.launch()
    yield jobs
    jobs.shutdown()


def check(kind: str, spec: dict[str, Any]) -> dict[str, Any]:
    if spec.get("typed") not in (None, True):
        raise InvalidArgument("typed", "must be true or left out")
    return spec


def request(job_id: str, *, service: str = "training", kind: str = "wrong", **spec: Any) -> jobs_pb2.Job:
    job = jobs_pb2.Job(id=job_id, service=service, kind=kind)
    job.spec.update(spec)
    return job


def gather(connection: KafkaConnection, topic: Topic, start: dict[int, int], of: str, count: int) -> list[Record]:
    found: list[Record] = []

    def wanted(record: Record) -> bool:
        if of not in record.key.decode():
            return False
        found.append(record)
        return True

    collect(connection, topic, start=start, wanted=wanted, until=lambda: len(found) >= count, timeout_s=40)
    return found


def test_jobs_of_this_service_are_taken_the_wrong_are_refused_and_others_pass_by(
    tmp_path: Path, connection: KafkaConnection, producer: EventProducer, jobs: Jobs
) -> None:
    run = uuid.uuid4().hex[:8]
    events_from, dead_from = end_offsets(connection, JOBS_EVENTS), end_offsets(connection, DEAD_LETTERS)
    worker = JobRequestWorker(connection, jobs, check=check)
    worker.start()
    try:
        assert worker.wait_for_assignment(30)
        trace = str(tmp_path / "trace")
        for job in (
            request(f"{run}-good", kind="steps", trace=trace, gated=9),
            request(f"{run}-good", kind="steps", trace=trace, gated=9),  # the same message twice is one job
            request(f"{run}-other", service="evaluation", kind="study"),
            request(f"{run}-kind", kind="dance"),
            request(f"{run}-spec", typed="yes"),
            request(f"{run}-good", kind="steps", trace=trace, gated=8),
        ):
            producer.send(JOBS_REQUESTED, job.id, job)
        producer.flush()
        dead = gather(connection, DEAD_LETTERS, dead_from, run, 3)
        events = gather(connection, JOBS_EVENTS, events_from, f"{run}-good", 3 + 2)
    finally:
        worker.stop()
    reasons = {record.key.decode().removeprefix(run): record.message.error for record in dead}
    assert "it has busy" in reasons["-kind"]
    assert reasons["-spec"] == "typed: must be true or left out"
    assert "gated = 9, not 8" in reasons["-good"]
    assert [record.message.sequence for record in events] == list(range(len(events)))
    assert jobs.get(f"{run}-good").state == jobs_pb2.JOB_STATE_SUCCEEDED
    assert jobs.get(f"{run}-good").spec["gated"] == 9
    assert [job.id for job in jobs.list()[0]] == [f"{run}-good"]
    assert Path(trace).read_text().splitlines().count("begin 1") == 1


def test_whole_numbers_arrive_as_integers(tmp_path: Path, connection: KafkaConnection, producer: EventProducer, jobs: Jobs) -> None:
    run = uuid.uuid4().hex[:8]
    seen: list[dict[str, Any]] = []
    done = threading.Event()

    def note(kind: str, spec: dict[str, Any]) -> dict[str, Any]:
        seen.append(spec)
        done.set()
        return spec

    worker = JobRequestWorker(connection, jobs, check=note)
    worker.start()
    try:
        assert worker.wait_for_assignment(30)
        producer.send(JOBS_REQUESTED, run, request(run, steps=3, rate=0.5, nested={"list": [1, 2.5]}))
        producer.flush()
        assert done.wait(30)
    finally:
        worker.stop()
    assert seen[0] == {"steps": 3, "rate": 0.5, "nested": {"list": [1, 2.5]}}
    assert isinstance(seen[0]["steps"], int) and isinstance(seen[0]["nested"]["list"][0], int)
