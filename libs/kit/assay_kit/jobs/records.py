"""What DBOS knows about workflows, read as jobs."""

from __future__ import annotations

import base64
import binascii
import json
from collections.abc import Mapping, Sequence
from typing import Any

from dbos import DBOS, WorkflowStatus
from google.protobuf import struct_pb2

from assay.jobs.v1 import jobs_pb2
from assay_kit.errors import AlreadyExists, InvalidArgument
from assay_kit.jobs.log import TERMINAL, Standing

_GIVEN_UP = {
    "ERROR": (jobs_pb2.JOB_STATE_FAILED, "the job ended with an error"),
    "MAX_RECOVERY_ATTEMPTS_EXCEEDED": (jobs_pb2.JOB_STATE_FAILED, "the job was interrupted too often and is given up"),
    "CANCELLED": (jobs_pb2.JOB_STATE_CANCELLED, ""),
}


def plain_json(spec: Mapping[str, Any]) -> dict[str, Any]:
    """The spec as JSON gives it back.

    Raises:
        InvalidArgument: it is not JSON.
    """
    try:
        plain: dict[str, Any] = json.loads(json.dumps(dict(spec), allow_nan=False))
    except (TypeError, ValueError) as error:
        raise InvalidArgument("spec", f"must be JSON: {error}") from error
    return plain


def workflows(job_ids: Sequence[str]) -> dict[str, WorkflowStatus]:
    """The workflows of jobs, by id."""
    if not job_ids:
        return {}
    return {found.workflow_id: found for found in DBOS.list_workflows(workflow_ids=list(job_ids), load_output=False)}


def workflow(job_id: str) -> WorkflowStatus | None:
    """The workflow of a job."""
    return workflows([job_id]).get(job_id)


def family(job_id: str) -> list[WorkflowStatus]:
    """The workflow of a job, its children and theirs."""
    found = DBOS.list_workflows(workflow_ids=[job_id], load_output=False)
    generation = [one.workflow_id for one in found]
    seen = set(generation)
    while generation:
        children = [one for one in DBOS.list_workflows(parent_workflow_id=generation, load_output=False) if one.workflow_id not in seen]
        found += children
        generation = [one.workflow_id for one in children]
        seen.update(generation)
    return found


def kind_of(status: WorkflowStatus) -> str:
    """Kind of a job by the name of its workflow."""
    return status.name.split(".", 2)[2]


def spec_of(status: WorkflowStatus) -> dict[str, Any]:
    """What a job was asked for."""
    spec: dict[str, Any] = status.input["args"][1] if status.input else {}
    return spec


def same_or_refuse(there: WorkflowStatus, kind: str, spec: Mapping[str, Any]) -> None:
    """Passes where the job that is there was asked for the same.

    Raises:
        AlreadyExists: it was asked for something else; names the first field that differs.
    """
    has_kind, has_spec = kind_of(there), spec_of(there)
    if has_kind != kind:
        raise AlreadyExists(f"job {there.workflow_id} is there already as kind {has_kind!r}, not {kind!r}; take another id")
    for field in sorted({*has_spec, *spec}):
        if has_spec.get(field) != spec.get(field):
            raise AlreadyExists(
                f"job {there.workflow_id} is there already with {field} = {json.dumps(has_spec.get(field))}, "
                f"not {json.dumps(spec.get(field))}; take another id or ask for the same"
            )


def job(service: str, status: WorkflowStatus, standing: Standing | None) -> jobs_pb2.Job:
    """A job by what DBOS and the event log say; the log has the last word on an end."""
    answer = jobs_pb2.Job(id=status.workflow_id, service=service, kind=kind_of(status))
    answer.spec.CopyFrom(struct(spec_of(status)))
    answer.created_at.FromMilliseconds(status.created_at or 0)
    answer.updated_at.FromMilliseconds(status.updated_at or 0)
    if standing is not None:
        if standing.progress is not None:
            answer.progress.CopyFrom(standing.progress)
        answer.error = standing.last.error
        answer.created_at.FromNanoseconds(standing.first_at_ns)
        answer.updated_at.CopyFrom(standing.last.at)
    if standing is not None and standing.last.state in TERMINAL:
        answer.state = standing.last.state
        if standing.result is not None:
            answer.result.CopyFrom(struct(standing.result))
    elif status.status in _GIVEN_UP:
        answer.state, answer.error = _GIVEN_UP[status.status]
    else:
        started = status.status == "PENDING" or (standing is not None and standing.started)
        answer.state = jobs_pb2.JOB_STATE_RUNNING if started else jobs_pb2.JOB_STATE_QUEUED
    return answer


def struct(value: Mapping[str, Any]) -> struct_pb2.Struct:
    """JSON as a protobuf Struct, whose numbers are all doubles."""
    answer = struct_pb2.Struct()
    answer.update(value)
    return answer


def page_token(place: tuple[int, str]) -> str:
    """The place where a page ended as an opaque text."""
    return base64.urlsafe_b64encode(json.dumps(place).encode()).decode()


def parse_page_token(token: str) -> tuple[int, str] | None:
    """The place of a token; None for an empty one.

    Raises:
        InvalidArgument: the token is none of ours.
    """
    if not token:
        return None
    try:
        accepted_ns, job_id = json.loads(base64.urlsafe_b64decode(token.encode()))
        return int(accepted_ns), str(job_id)
    except (binascii.Error, ValueError, TypeError) as error:
        raise InvalidArgument("page_token", "must be next_page_token of an earlier answer, or empty") from error
