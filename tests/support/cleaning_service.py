"""The cleaning service for tests: in this process behind a real gRPC server."""

from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import grpc
from google.protobuf import json_format

from assay.cleaning.v1 import cleaning_pb2, cleaning_pb2_grpc
from assay.jobs.v1 import jobs_pb2, jobs_pb2_grpc
from assay_cleaning.__main__ import app_of
from assay_cleaning.settings import CleaningSettings
from assay_data.conversations import PreferencePair
from assay_data.wire import to_proto
from assay_kit.server import running


class CleaningStubs:
    """Both services over one channel."""

    def __init__(self, channel: grpc.aio.Channel) -> None:
        self.channel = channel
        self.cleaning = cleaning_pb2_grpc.CleaningServiceStub(channel)
        self.jobs = jobs_pb2_grpc.JobServiceStub(channel)

    async def label(self, pairs: Sequence[PreferencePair], **options: Any) -> list[cleaning_pb2.LabelResult]:
        request = cleaning_pb2.LabelPairsRequest(pairs=[to_proto(pair) for pair in pairs], options=cleaning_pb2.CleaningOptions(**options))
        return list((await self.cleaning.LabelPairs(request)).results)

    async def ended(self, job_id: str) -> jobs_pb2.Job:
        """The job, once it has ended."""
        async for response in self.jobs.WatchJob(jobs_pb2.WatchJobRequest(id=job_id)):
            if response.HasField("job"):
                return response.job
        raise AssertionError("the watch ended without the job")


def result_of(job: jobs_pb2.Job) -> dict[str, Any]:
    """The result of a job that must have succeeded."""
    assert job.state == jobs_pb2.JOB_STATE_SUCCEEDED, job.error
    return json_format.MessageToDict(job.result)


@asynccontextmanager
async def cleaning_service(data_dir: Path, **settings: Any) -> AsyncIterator[CleaningStubs]:
    app = app_of(CleaningSettings(data_dir=data_dir, **settings))
    async with running(app) as target, grpc.aio.insecure_channel(target) as channel:
        yield CleaningStubs(channel)
