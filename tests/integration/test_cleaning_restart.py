"""The cleaning service as a process: killed at work, started again."""

import json
import os
import subprocess
import sys
import time
from pathlib import Path

import grpc

from assay.cleaning.v1 import cleaning_pb2, cleaning_pb2_grpc
from assay.jobs.v1 import jobs_pb2, jobs_pb2_grpc
from assay_cleaning.categories import Options
from assay_cleaning.cleaning import clean
from assay_data.generated import generate_pairs
from assay_data.pairs import write_pairs


def start(state: Path) -> tuple[subprocess.Popen[bytes], grpc.Channel]:
    """A service process and a channel to it, once it has bound its port."""
    endpoint = state / "endpoint.json"
    endpoint.unlink(missing_ok=True)
    environment = {**os.environ, "ASSAY_DATA_DIR": str(state), "ASSAY_DRAIN_SECONDS": "5", "ASSAY_KAFKA_BOOTSTRAP": ""}
    process = subprocess.Popen(
        [sys.executable, "-m", "assay_cleaning"], env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    deadline = time.monotonic() + 60
    while not endpoint.exists():
        assert process.poll() is None and time.monotonic() < deadline, "the service did not start"
        time.sleep(0.05)
    return process, grpc.insecure_channel(json.loads(endpoint.read_text())["grpc"])


def test_a_job_killed_at_work_is_finished_after_the_restart_as_if_nothing_had_been(tmp_path: Path) -> None:
    source, out, undisturbed = str(tmp_path / "in" / "pairs.jsonl"), tmp_path / "out", tmp_path / "undisturbed"
    write_pairs(source, generate_pairs(1500, seed=4))
    process, channel = start(tmp_path / "state")
    try:
        created = cleaning_pb2_grpc.CleaningServiceStub(channel).CreateCleaningJob(
            cleaning_pb2.CreateCleaningJobRequest(job_id="resumed", input_uri=source, output_uri=str(out)), wait_for_ready=True
        )
        for response in jobs_pb2_grpc.JobServiceStub(channel).WatchJob(jobs_pb2.WatchJobRequest(id=created.job.id)):
            if response.event.progress.stage == "fit":
                break
        process.kill()
        process.wait()
        assert not out.exists()
        assert [name for name in os.listdir(tmp_path) if name.startswith(".partial-")], "the job was not at work when it was killed"

        process, channel = start(tmp_path / "state")
        watch = jobs_pb2_grpc.JobServiceStub(channel).WatchJob(jobs_pb2.WatchJobRequest(id="resumed"), wait_for_ready=True)
        job = next(response.job for response in watch if response.HasField("job"))
        assert job.state == jobs_pb2.JOB_STATE_SUCCEEDED, job.error
        process.terminate()
        assert process.wait(timeout=30) == 0
    finally:
        process.kill()
        process.wait()

    assert sorted(os.listdir(tmp_path)) == ["in", "out", "state"]
    clean(
        input_uri=source,
        output_uri=str(undisturbed),
        options=Options(),
        limit=0,
        committee=None,
        tag="other",
        progress=lambda *facts: None,
        on_verdict=lambda verdict: None,
    )
    assert sorted(os.listdir(out)) == sorted(os.listdir(undisturbed))
    for name in set(os.listdir(out)) - {"summary.json"}:
        assert (out / name).read_bytes() == (undisturbed / name).read_bytes()


def test_a_misspelt_setting_stops_the_start_with_one_line() -> None:
    environment = {**os.environ, "ASSAY_CLEANING_MIN_FLIP_CONFIDENSE": "0.7"}
    run = subprocess.run([sys.executable, "-m", "assay_cleaning"], env=environment, capture_output=True, text=True, timeout=60)
    assert run.returncode == 2
    (line,) = run.stderr.splitlines()
    assert "ASSAY_CLEANING_MIN_FLIP_CONFIDENCE" in line
