"""A small service with jobs, in this process or as a process of its own that can be killed.

Each kind leaves traces in the file `spec["trace"]`, one line per thing done, so that a test sees what was done how often.
"""

from __future__ import annotations

import contextlib
import os
import select
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import grpc

from assay.jobs.v1 import jobs_pb2, jobs_pb2_grpc
from assay_kit.errors import FailedPrecondition, Unavailable
from assay_kit.jobs import JobCancelled, JobContext, Jobs, job_door
from assay_kit.server import App, run
from assay_kit.settings import ServiceSettings

SERVICE = "training"
TICK = 0.02


def settings_for(data_dir: Path, database_url: str = "") -> ServiceSettings:
    return ServiceSettings(data_dir=data_dir, database_url=database_url, drain_seconds=5, log_format="text")


def make_jobs(settings: ServiceSettings, publish: Any = None, gone_after_seconds: float = 300.0) -> Jobs:
    jobs = Jobs(service=SERVICE, settings=settings, publish=publish, patience_seconds=20, gone_after_seconds=gone_after_seconds)
    jobs.kind("steps", steps)
    jobs.kind("patient", patient)
    jobs.kind("wrong", wrong)
    jobs.kind("busy", busy, concurrency=2)
    jobs.kind("study", study)
    jobs.kind("stage", stage)
    jobs.kind("careless", careless)
    return jobs


def make_app(jobs: Jobs) -> App:
    return App(name=SERVICE, settings=jobs.settings, doors=[job_door(jobs)], startup=jobs.launch, shutdown=jobs.shutdown)


def note(spec: dict[str, Any], line: str) -> None:
    with Path(spec["trace"]).open("a") as file:
        file.write(line + "\n")


def until_there(context: JobContext, path: str) -> None:
    pause = threading.Event()
    while not Path(path).exists():
        context.check_cancelled()
        pause.wait(TICK)


def steps(context: JobContext, spec: dict[str, Any]) -> dict[str, Any]:
    """Six steps; the one numbered `gated` waits for the file `gate`."""

    def one(number: int) -> int:
        note(spec, f"begin {number}")
        if number == spec.get("gated"):
            until_there(context, spec["gate"])
        note(spec, f"end {number}")
        return number * number

    done = []
    try:
        for number in range(1, 7):
            done.append(context.step(f"step {number}", one, number))
            context.progress("steps", number, 6, unit="steps")
    except JobCancelled:
        note(spec, "removed what was half done")
        raise
    return {"squares": done}


def patient(context: JobContext, spec: dict[str, Any]) -> dict[str, Any]:
    """A step that needs a service which is away for the first two calls."""
    calls = []

    def call() -> str:
        calls.append(1)
        if len(calls) < 3:
            raise Unavailable("not there yet")
        return "there"

    return {"answer": context.step("call", call), "calls": len(calls)}


def wrong(context: JobContext, spec: dict[str, Any]) -> dict[str, Any]:
    if spec.get("typed"):
        raise FailedPrecondition("the model has no quality card; run a benchmark first")
    return {"ratio": 1 / 0}


def busy(context: JobContext, spec: dict[str, Any]) -> dict[str, Any]:
    note(spec, "begin")
    until_there(context, spec["gate"])
    note(spec, "end")
    return {}


def study(context: JobContext, spec: dict[str, Any]) -> dict[str, Any]:
    """Starts all stages in topological order at once and waits for each, from the last, which hears of every failure before it."""
    names = [f"{context.job_id}/{one['name']}" for one in spec["stages"]]
    for name, one in zip(names, spec["stages"], strict=True):
        context.start("stage", {**one, "study": context.job_id, "trace": spec["trace"]}, name)
    return {"values": {name: context.wait(name)["value"] for name in reversed(names)}}


def stage(context: JobContext, spec: dict[str, Any]) -> dict[str, Any]:
    """The sum of what its dependencies gave, plus `add`."""
    inputs = [context.wait(f"{spec['study']}/{name}")["value"] for name in spec.get("needs", [])]

    def work() -> int:
        note(spec, f"begin {spec['name']}")
        if spec.get("fails"):
            raise FailedPrecondition("no such pairs")
        if spec.get("gate"):
            until_there(context, spec["gate"])
        note(spec, f"end {spec['name']}")
        return sum(inputs) + int(spec["add"])

    return {"value": context.step("work", work)}


def careless(context: JobContext, spec: dict[str, Any]) -> dict[str, Any]:
    """Fails while its children, and a child of one, are at work; a third "busy" one waits in the queue."""
    shared = {"trace": spec["trace"], "gate": spec["gate"]}
    context.start("study", {**shared, "stages": [{"name": "pairs", "add": 1, "gate": spec["gate"]}]}, f"{context.job_id}/study")
    for number in range(1, 4):
        context.start("busy", shared, f"{context.job_id}/{number}")
    pause = threading.Event()
    while not Path(spec["trace"]).exists() or len(Path(spec["trace"]).read_text().splitlines()) < 3:
        context.check_cancelled()
        pause.wait(TICK)
    raise FailedPrecondition("no such pairs")


@contextlib.contextmanager
def service_process(
    data_dir: Path, database_url: str = "", *, instance: str = "", gone_after_seconds: float = 300.0
) -> Iterator[tuple[subprocess.Popen[str], jobs_pb2_grpc.JobServiceStub]]:
    """Runs the service as a process; killed at the end if it still lives."""
    root = Path(__file__).parents[1]
    environment = {
        **os.environ,
        "PYTHONPATH": str(root),
        "ASSAY_DATA_DIR": str(data_dir),
        "ASSAY_DATABASE_URL": database_url,
        "ASSAY_DRAIN_SECONDS": "5",
        "ASSAY_INSTANCE": instance,
        "GONE_AFTER_SECONDS": str(gone_after_seconds),
    }
    process = subprocess.Popen(
        [sys.executable, "-m", "support.job_service"], env=environment, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    try:
        assert process.stdout is not None
        ready, _, _ = select.select([process.stdout], [], [], 60)
        target = process.stdout.readline().strip() if ready else ""
        assert target, "the service did not become ready"
        with grpc.insecure_channel(target) as channel:
            yield process, jobs_pb2_grpc.JobServiceStub(channel)
    finally:
        process.kill()
        process.wait()


def publish(event: jobs_pb2.JobEvent) -> None:
    """Appends to the file of the environment, where one is named."""
    if file := os.environ.get("PUBLISHED"):
        with Path(file).open("a") as published:
            published.write(f"{event.job_id} {event.sequence}\n")


def submit_from_stdin(jobs: Jobs) -> None:
    """Lines of `kind id json` from stdin are submitted: creating jobs is each service's own RPC, and this service has none."""
    import json

    for line in sys.stdin:
        kind, job_id, spec = line.split(" ", 2)
        jobs.submit(kind, json.loads(spec), job_id)
        print(f"accepted {job_id}", flush=True)


def main() -> int:
    jobs = make_jobs(ServiceSettings(), publish=publish, gone_after_seconds=float(os.environ["GONE_AFTER_SECONDS"]))
    app = make_app(jobs)

    class Announce:
        """Says where the service listens once it is ready, then takes jobs."""

        def start(self) -> None:
            threading.Thread(target=self._run, daemon=True).start()

        def stop(self) -> None:
            pass

        def _run(self) -> None:
            endpoint = jobs.settings.data_dir / "endpoint.json"
            pause = threading.Event()
            import json

            while not (endpoint.exists() and json.loads(endpoint.read_text())["pid"] == os.getpid()):
                pause.wait(TICK)
            print(json.loads(endpoint.read_text())["grpc"], flush=True)
            submit_from_stdin(jobs)

    app.workers = [Announce()]
    return run(app)


if __name__ == "__main__":
    raise SystemExit(main())
