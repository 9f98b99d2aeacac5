"""What several commands share."""

from __future__ import annotations

import contextlib
import json
import os
from collections.abc import Callable, Iterator
from dataclasses import fields
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

from assay.jobs.v1 import jobs_pb2
from assay_cli.output import EXIT_BAD_INPUT, EXIT_UNAVAILABLE, Interrupted, complaints, console, fail, print_json
from assay_client.channels import Security
from assay_client.client import AssayClient, JobOwner
from assay_client.endpoints import Endpoints
from assay_client.jobs import wait_for_job
from assay_data.conversations import Message
from assay_data.formats import transcript
from assay_data.hub import is_hub_id

DataDir = Annotated[
    Path,
    typer.Option(
        "--data-dir", envvar="ASSAY_STACK_DIR", help="Folder of the local stack that `assay up` started.", rich_help_panel="Where"
    ),
]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON, for scripts.")]
Wait = Annotated[bool, typer.Option("--wait/--no-wait", help="Wait for the job, or print its id and leave.")]
DEFAULT_DATA_DIR = Path(".assay")
WAITING_PATIENCE_SECONDS = 60.0
"""How long the service of a job that is waited for may be away: a local stack starts it again, and the job goes on."""


def connect(data_dir: Path, *, patience_s: float = 0.0) -> AssayClient:
    """A client of the services: those that ASSAY_<SERVICE>_TARGET name, else those of the local stack in `data_dir`."""
    named = Endpoints.from_environment()
    security = None if named == Endpoints() else Security.from_environment()  # a local stack speaks plaintext
    if (data_dir / "endpoints.json").exists():
        try:
            local = Endpoints.from_folder(data_dir)
        except (ValueError, AttributeError) as error:
            raise _no_endpoints(data_dir) from error
        named = Endpoints(**{field.name: getattr(named, field.name) or getattr(local, field.name) for field in fields(Endpoints)})
    elif named == Endpoints():
        hint = "Start one with `assay up`, name its folder with --data-dir, or set ASSAY_REWARD_TARGET=host:port and its like."
        raise fail(f"no stack in {data_dir}", EXIT_UNAVAILABLE, hint)
    return AssayClient(named, patience_s=patience_s, security=security)


def kafka_environment(data_dir: Path) -> dict[str, str]:
    """The environment with ASSAY_KAFKA_BOOTSTRAP set: as it is, else to the local stack's broker.

    Raises:
        typer.Exit: neither is there.
    """
    environment = dict(os.environ)
    if not environment.get("ASSAY_KAFKA_BOOTSTRAP"):
        endpoints = data_dir / "endpoints.json"
        if not endpoints.exists():
            raise fail(f"no stack in {data_dir}", EXIT_UNAVAILABLE, "Start one with `assay up`, or set ASSAY_KAFKA_BOOTSTRAP.")
        try:
            environment["ASSAY_KAFKA_BOOTSTRAP"] = json.loads(endpoints.read_text())["kafka"]
        except (ValueError, KeyError, TypeError) as error:
            raise _no_endpoints(data_dir) from error
    return environment


def _no_endpoints(data_dir: Path) -> typer.Exit:
    hint = "Start the stack anew with `assay up`."
    return fail(f"{data_dir / 'endpoints.json'} is not what `assay up` writes", EXIT_UNAVAILABLE, hint)


def conversation_of(prompt: str, system: str = "") -> list[Message]:
    """A prompt as turns: one of the user's, or an HH-RLHF transcript (`Human: … Assistant: … Human: …`)."""
    turns = [Message(role="system", content=system)] if system else []
    if prompt.lstrip().startswith("Human:") and "\n\nAssistant:" in prompt:
        return [*turns, *transcript(f"\n\n{prompt.strip()}", "--prompt")]
    return [*turns, Message(role="user", content=prompt)]


def follow_job(client: AssayClient, service: JobOwner, job_id: str, *, quiet: bool = False) -> dict[str, Any]:
    """Shows a job's progress until it ends and returns its result; a line a stage where nobody looks.

    Raises:
        JobFailed: it failed or was cancelled.
    """
    with Progress(
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        TimeRemainingColumn(compact=True),
        TextColumn("[dim]{task.fields[message]}"),
        console=complaints,
        disable=quiet or not complaints.is_terminal,
    ) as progress:
        task = progress.add_task(job_id, total=None, message="")
        say = _stage_lines() if progress.disable and not quiet else None

        def show(event: jobs_pb2.JobEvent) -> None:
            if not event.HasField("progress"):
                return
            now = event.progress
            progress.update(task, description=now.stage or job_id, completed=now.done, total=now.total or None, message=now.message)
            if say is not None:
                say(now)

        with goes_on(service, job_id):
            return wait_for_job(client.jobs(service), job_id, on_event=show)


def _stage_lines() -> Callable[[jobs_pb2.JobProgress], None]:
    last = ""

    def say(progress: jobs_pb2.JobProgress) -> None:
        nonlocal last
        if progress.stage != last:
            last = progress.stage
            of = f", {progress.total:,} {progress.unit}".rstrip() if progress.total else ""
            complaints.print(f"▶ {progress.stage}{of}", markup=False, soft_wrap=True)

    return say


@contextlib.contextmanager
def goes_on(service: JobOwner, job_id: str) -> Iterator[None]:
    """Says at Ctrl-C that only the waiting ends."""
    try:
        yield
    except Interrupted:
        told = f"job {job_id} goes on: `assay jobs watch {service} {job_id}` looks at it, `assay jobs cancel {service} {job_id}` ends it"
        complaints.print(told, markup=False, soft_wrap=True)
        raise


def kept_or_new(job: jobs_pb2.Job, *, wait: bool, as_json: bool, data_dir: Path, service: JobOwner) -> dict[str, Any] | None:
    """Waits for a job, or says how to look at it later; the result, or None where nobody waits."""
    if not wait:
        if as_json:
            print_json(job)
        else:
            console.print(f"{job.id}\nLook at it with `assay jobs watch {service} {job.id}`.", soft_wrap=True)
        return None
    with connect(data_dir, patience_s=WAITING_PATIENCE_SECONDS) as client:
        return follow_job(client, service, job.id, quiet=as_json)


def absolute_uri(uri: str, *, must_exist: bool = True) -> str:
    """A local path made absolute, since the services have working folders of their own; hub ids and URIs stay as they are.

    Args:
        uri: what was typed.
        must_exist: refuse a relative path that is not there and can be no hub id; an absolute one may be on the services' own disk.

    Raises:
        typer.Exit: it is refused.
    """
    if "://" in uri:
        return uri
    path = Path(uri).expanduser()
    if uri and (path.exists() or not must_exist):
        return str(path.resolve())
    if path.is_absolute() or (is_hub_id(uri) and not path.parent.exists()):
        return str(path) if path.is_absolute() else uri
    raise fail(f"{uri or repr(uri)}: there is no such file or folder", EXIT_BAD_INPUT, "A path, a URI or a hub id (owner/name) is wanted.")
