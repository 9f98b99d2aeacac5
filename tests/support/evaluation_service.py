"""The evaluation service in this process, behind real gRPC."""

import contextlib
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import grpc
from google.rpc import error_details_pb2
from grpc_status import rpc_status

from assay.evaluation.v1 import evaluation_pb2_grpc
from assay.jobs.v1 import jobs_pb2, jobs_pb2_grpc
from assay_evaluation.__main__ import app_of
from assay_evaluation.settings import EvaluationSettings
from assay_kit.server import running


@dataclass(frozen=True)
class Stubs:
    target: str
    evaluation: Any
    jobs: Any

    async def ended(self, job_id: str) -> jobs_pb2.Job:
        """The job once it has ended."""
        job = jobs_pb2.Job()
        async for response in self.jobs.WatchJob(jobs_pb2.WatchJobRequest(id=job_id), timeout=120):
            job = response.job
        return job


@contextlib.asynccontextmanager
async def evaluation_service(data_dir: Path, **settings: Any) -> AsyncIterator[Stubs]:
    app = app_of(EvaluationSettings(data_dir=data_dir, drain_seconds=1, **settings))
    async with running(app) as target, grpc.aio.insecure_channel(target) as channel:
        yield Stubs(target, evaluation_pb2_grpc.EvaluationServiceStub(channel), jobs_pb2_grpc.JobServiceStub(channel))


def violations(error: grpc.RpcError) -> dict[str, str]:
    """Field violations of an INVALID_ARGUMENT."""
    status = rpc_status.from_call(error)
    assert status is not None
    found: dict[str, str] = {}
    for detail in status.details:
        bad = error_details_pb2.BadRequest()
        if detail.Unpack(bad):
            found |= {violation.field: violation.description for violation in bad.field_violations}
    return found
