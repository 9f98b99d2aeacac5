"""Several processes share the jobs of one service in one PostgreSQL."""

from __future__ import annotations

import json
import subprocess
import threading
import time
import uuid
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import psycopg
import pytest
import sqlalchemy as sa
from support.job_databases import postgres  # noqa: F401
from support.job_service import make_jobs, service_process, settings_for
from support.postgres import new_database

from assay.jobs.v1 import jobs_pb2
from assay_kit.errors import FailedPrecondition
from assay_kit.jobs import migrate
from assay_kit.jobs.log import advisory_key


@pytest.fixture
def database(postgres: str) -> str:  # noqa: F811
    return new_database(postgres)


def submit(process: subprocess.Popen[str], kind: str, job_id: str, **spec: Any) -> None:
    assert process.stdin is not None and process.stdout is not None
    process.stdin.write(f"{kind} {job_id} {json.dumps(spec)}\n")
    process.stdin.flush()
    assert process.stdout.readline().strip() == f"accepted {job_id}"


def lines_of(trace: Path) -> list[str]:
    return trace.read_text().splitlines() if trace.exists() else []


def until(trace: Path, line: str, times: int = 1) -> None:
    pause = threading.Event()
    deadline = time.monotonic() + 30
    while lines_of(trace).count(line) < times:
        assert time.monotonic() < deadline, f"{line!r} did not come {times} times"
        pause.wait(0.02)


def end_of(stub: Any, job_id: str) -> jobs_pb2.Job:
    job: jobs_pb2.Job = list(stub.WatchJob(jobs_pb2.WatchJobRequest(id=job_id), timeout=60))[-1].job
    return job


def executors(database: str) -> dict[str, str]:
    with psycopg.connect(database) as connection:
        return dict(connection.execute("select workflow_uuid, executor_id from assay_training.workflow_status").fetchall())


def test_two_replicas_that_start_at_once_run_each_job_once_and_publish_its_events_in_order(
    tmp_path: Path, database: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    published, gate = tmp_path / "published", tmp_path / "gate"
    monkeypatch.setenv("PUBLISHED", str(published))
    started: list[Any] = []
    with ExitStack() as replicas:

        def start(name: str) -> None:
            started.append(replicas.enter_context(service_process(tmp_path / name, database, instance=name)))

        starting = [threading.Thread(target=start, args=(f"training-{number}",)) for number in range(2)]
        for thread in starting:
            thread.start()
        for thread in starting:
            thread.join()
        (first, stub), (second, other) = started
        for number in range(12):
            submit((first, second)[number % 2], "busy", f"b{number}", trace=str(tmp_path / f"trace-{number}"), gate=str(gate))
        deadline = time.monotonic() + 30
        while sum("begin" in lines_of(tmp_path / f"trace-{number}") for number in range(12)) < 4:  # two at once in each
            assert time.monotonic() < deadline, "the two processes did not share the work"
            time.sleep(0.05)
        gate.touch()
        for number in range(12):
            assert end_of((other, stub)[number % 2], f"b{number}").state == jobs_pb2.JOB_STATE_SUCCEEDED
    assert [lines_of(tmp_path / f"trace-{number}") for number in range(12)] == [["begin", "end"]] * 12
    assert set(executors(database).values()) == {"assay-training-training-0", "assay-training-training-1"}
    of_job: dict[str, list[int]] = {}
    for line in published.read_text().splitlines():
        job, sequence = line.split()
        of_job.setdefault(job, []).append(int(sequence))
    assert of_job == {f"b{number}": [0, 1, 2] for number in range(12)}


def test_the_job_of_a_killed_replica_waits_for_its_restart(tmp_path: Path, database: str) -> None:
    trace, gate = tmp_path / "trace", tmp_path / "gate"
    with service_process(tmp_path / "1", database, instance="1") as (process, _):
        submit(process, "steps", "s", trace=str(trace), gate=str(gate), gated=2)
        until(trace, "begin 2")
        with service_process(tmp_path / "0", database, instance="0") as (neighbour, stub):
            process.kill()
            process.wait()
            gate.touch()
            # The neighbour takes what is asked for meanwhile, and leaves alone what is another's.
            submit(neighbour, "busy", "b", trace=str(tmp_path / "other"), gate=str(gate))
            assert end_of(stub, "b").state == jobs_pb2.JOB_STATE_SUCCEEDED
            assert lines_of(trace) == ["begin 1", "end 1", "begin 2"]
            with service_process(tmp_path / "1", database, instance="1"):
                assert list(end_of(stub, "s").result["squares"]) == [1, 4, 9, 16, 25, 36]
    assert [lines_of(trace).count(f"begin {number}") for number in range(1, 7)] == [1, 2, 1, 1, 1, 1]


def test_the_jobs_of_a_replica_that_was_scaled_away_go_on_in_another(tmp_path: Path, database: str) -> None:
    trace, gate = tmp_path / "trace", tmp_path / "gate"
    with service_process(tmp_path / "0", database, instance="0", gone_after_seconds=2) as (_, stub):
        with service_process(tmp_path / "1", database, instance="1") as (process, _):
            # Each replica has one slot of this kind, so one of the two jobs is at work in the one that goes.
            submit(process, "steps", "s", trace=str(trace), gate=str(gate), gated=2)
            submit(process, "steps", "t", trace=str(tmp_path / "other"), gate=str(gate), gated=1)
            until(trace, "begin 2")
            until(tmp_path / "other", "begin 1")
            process.terminate()
            assert process.wait(timeout=20) == 0
        gate.touch()
        for job in ("s", "t"):
            assert list(end_of(stub, job).result["squares"]) == [1, 4, 9, 16, 25, 36]
    assert set(executors(database).values()) == {"assay-training-0"}
    assert lines_of(trace).count("begin 1") == 1


def test_two_replicas_of_one_name_are_refused(tmp_path: Path, database: str) -> None:
    with service_process(tmp_path / "a", database, instance="0"):
        settings = settings_for(tmp_path / "b", database).model_copy(update={"drain_seconds": -9.0, "instance": "0"})
        with pytest.raises(FailedPrecondition, match="another process works on jobs as assay-training-0"):
            make_jobs(settings).launch()


def test_a_service_without_the_right_to_make_tables_works_once_they_are_made(
    tmp_path: Path, database: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    role = f"service_{uuid.uuid4().hex[:8]}"
    with psycopg.connect(database, autocommit=True) as connection:
        connection.execute(f"CREATE ROLE {role} LOGIN")  # type: ignore[arg-type]
    limited = database.replace("//assay@", f"//{role}@")
    with pytest.raises(sa.exc.ProgrammingError, match="permission denied"):
        make_jobs(settings_for(tmp_path, limited)).launch()
    monkeypatch.setenv("ASSAY_DATABASE_URL", database)
    for _ in range(2):
        assert migrate.main(["--role", role, "training"]) == 0
        assert capsys.readouterr().out == "training: assay_training is there\n"
    trace = tmp_path / "trace"
    with service_process(tmp_path, limited, instance="0") as (process, stub):
        submit(process, "steps", "s", trace=str(trace))
        assert end_of(stub, "s").state == jobs_pb2.JOB_STATE_SUCCEEDED
    monkeypatch.setenv("ASSAY_DATABASE_URL", limited)
    assert migrate.main(["cleaning"]) == 3
    assert "permission denied" in capsys.readouterr().err


def test_a_replica_keeps_its_name_over_the_end_of_its_database_session(tmp_path: Path, database: str) -> None:
    held = "select pid from pg_locks where locktype = 'advisory' and granted and (classid::bigint << 32) | objid::bigint = %s"
    key = (advisory_key("assay-jobs-assay-training-0"),)
    with service_process(tmp_path, database, instance="0"), psycopg.connect(database, autocommit=True) as connection:
        [(before,)] = connection.execute(held, key).fetchall()
        connection.execute("select pg_terminate_backend(%s)", (before,))
        deadline = time.monotonic() + 30
        while not (now := [pid for (pid,) in connection.execute(held, key).fetchall() if pid != before]):
            assert time.monotonic() < deadline, "the name was not taken again"
            time.sleep(0.1)
        assert len(now) == 1
