"""The gRPC door of the jobs."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any, TypeVar

from assay.jobs.v1 import jobs_pb2, jobs_pb2_grpc
from assay_kit.errors import InvalidArgument, Unavailable
from assay_kit.jobs.engine import Jobs
from assay_kit.jobs.log import TERMINAL
from assay_kit.server import Door

T = TypeVar("T")

_DATABASE_THREADS = 4
_LOOK_AGAIN_SECONDS = 1.0
_DEFAULT_PAGE = 100
_LARGEST_PAGE = 1000


class JobServicer(jobs_pb2_grpc.JobServiceServicer):
    """assay.jobs.v1.JobService: a watcher holds no thread, only the database calls do, a few at a time."""

    def __init__(self, jobs: Jobs) -> None:
        self._jobs = jobs
        self._threads = ThreadPoolExecutor(_DATABASE_THREADS, thread_name_prefix="jobs-door")

    async def GetJob(self, request: jobs_pb2.GetJobRequest, context: Any) -> jobs_pb2.GetJobResponse:
        """One job."""
        return jobs_pb2.GetJobResponse(job=await self._call(self._jobs.get, _id(request.id)))

    async def ListJobs(self, request: jobs_pb2.ListJobsRequest, context: Any) -> jobs_pb2.ListJobsResponse:
        """A page of jobs, newest first."""
        if request.page_size > _LARGEST_PAGE:
            raise InvalidArgument("page_size", f"at most {_LARGEST_PAGE}, not {request.page_size}")
        jobs, token = await self._call(
            lambda: self._jobs.list(
                states=tuple(request.states),
                kind=request.kind,
                page_size=request.page_size or _DEFAULT_PAGE,
                page_token=request.page_token,
            )
        )
        return jobs_pb2.ListJobsResponse(jobs=jobs, next_page_token=token)

    async def CancelJob(self, request: jobs_pb2.CancelJobRequest, context: Any) -> jobs_pb2.CancelJobResponse:
        """The job, cancelled unless it had ended."""
        return jobs_pb2.CancelJobResponse(job=await self._call(self._jobs.cancel, _id(request.id)))

    async def WatchJob(self, request: jobs_pb2.WatchJobRequest, context: Any) -> AsyncIterator[jobs_pb2.WatchJobResponse]:
        """Events from `from_sequence` on, as they happen; the last message carries the job itself."""
        job_id = _id(request.id)
        sequence = request.from_sequence
        loop = asyncio.get_running_loop()
        told = asyncio.Event()

        def tell() -> None:
            loop.call_soon_threadsafe(told.set)

        await self._call(self._jobs.get, job_id)
        with self._jobs.log.listening(job_id, tell):
            while True:
                told.clear()
                job = await self._call(self._jobs.get, job_id)
                events = await self._call(self._jobs.log.read, job_id, sequence)
                for event in events:
                    yield jobs_pb2.WatchJobResponse(event=event)
                sequence += len(events)
                if job.state in TERMINAL and not events:
                    yield jobs_pb2.WatchJobResponse(job=job)
                    return
                if self._jobs.stopping:
                    raise Unavailable(f"the {self._jobs.service} service ends; watch again from sequence {sequence}")
                if not events:
                    await _told_or_time(told)

    async def _call(self, function: Callable[..., T], *args: Any) -> T:
        return await asyncio.get_running_loop().run_in_executor(self._threads, function, *args)


def job_door(jobs: Jobs) -> Door:
    """The door of a service's jobs."""
    return Door(add=jobs_pb2_grpc.add_JobServiceServicer_to_server, servicer=JobServicer(jobs), service_name="assay.jobs.v1.JobService")


async def _told_or_time(told: asyncio.Event) -> None:
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(_LOOK_AGAIN_SECONDS):
            await told.wait()


def _id(job_id: str) -> str:
    if not job_id:
        raise InvalidArgument("id", "must name a job")
    return job_id
