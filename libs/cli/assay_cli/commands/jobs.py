"""`assay jobs`."""

from __future__ import annotations

from enum import StrEnum
from typing import Annotated

import typer

from assay.jobs.v1 import jobs_pb2
from assay_cli.commands.common import DEFAULT_DATA_DIR, WAITING_PATIENCE_SECONDS, AsJson, DataDir, connect, follow_job
from assay_cli.output import console, print_json, print_table

app = typer.Typer(help="Long work: list it, look at it, watch it, cancel it.", no_args_is_help=True)


class Service(StrEnum):
    """Services that have long work."""

    CLEANING = "cleaning"
    TRAINING = "training"
    EVALUATION = "evaluation"


JobId = Annotated[str, typer.Argument(help="Job id.")]


def state_name(state: jobs_pb2.JobState.ValueType) -> str:
    """JOB_STATE_RUNNING as "running"."""
    return jobs_pb2.JobState.Name(state).removeprefix("JOB_STATE_").lower()


@app.command("list")
def show_all(
    service: Annotated[Service | None, typer.Option(help="Only of this service.")] = None,
    as_json: AsJson = False,
    data_dir: DataDir = DEFAULT_DATA_DIR,
) -> None:
    """List the jobs of the services, newest first.

    Example: `assay jobs list --service training`
    """
    with connect(data_dir) as client:
        found = [job for each in ([service] if service else list(Service)) for job in client.jobs(each.value).list()]
    if as_json:
        print_json(found)
        return
    rows = [
        [job.service, job.id, job.kind, state_name(job.state), f"{job.created_at.ToDatetime():%Y-%m-%d %H:%M:%S}", job.error]
        for job in found
    ]
    print_table("Jobs", ["service", "id", "kind", "state", "created (UTC)", "error"], rows)


@app.command()
def show(service: Service, job_id: JobId, data_dir: DataDir = DEFAULT_DATA_DIR) -> None:
    """Print a job as JSON.

    Example: `assay jobs show training demo.sft`
    """
    with connect(data_dir) as client:
        print_json(client.jobs(service.value).get(job_id))


@app.command()
def watch(service: Service, job_id: JobId, as_json: AsJson = False, data_dir: DataDir = DEFAULT_DATA_DIR) -> None:
    """Show a job's progress on stderr until it ends, then print its result as JSON; with --json without the progress.

    Example: `assay jobs watch training demo.sft`
    """
    with connect(data_dir) as client:
        client.jobs(service.value).get(job_id)
    with connect(data_dir, patience_s=WAITING_PATIENCE_SECONDS) as client:
        print_json(follow_job(client, service.value, job_id, quiet=as_json))


@app.command()
def cancel(service: Service, job_id: JobId, as_json: AsJson = False, data_dir: DataDir = DEFAULT_DATA_DIR) -> None:
    """Ask a job to stop; what is half-done is removed.

    Example: `assay jobs cancel evaluation demo`
    """
    with connect(data_dir) as client:
        job = client.jobs(service.value).cancel(job_id)
    if as_json:
        print_json(job)
    else:
        console.print(f"{job.id}: {state_name(job.state)}", markup=False)
