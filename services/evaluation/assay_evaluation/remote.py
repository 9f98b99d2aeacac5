"""Calls to the other services, with patience: a service that was killed is given time to come back, and a cancelled job stops asking."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any, TypeVar

import grpc

from assay.jobs.v1 import jobs_pb2, jobs_pb2_grpc
from assay_client.channels import Security
from assay_client.client import AssayClient
from assay_client.endpoints import Endpoints
from assay_client.errors import AssayClientError, JobFailed
from assay_client.messages import plain
from assay_kit.settings import ServiceSettings

T = TypeVar("T")

_ENDED = (jobs_pb2.JOB_STATE_SUCCEEDED, jobs_pb2.JOB_STATE_FAILED, jobs_pb2.JOB_STATE_CANCELLED)
_PASSING = (grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.RESOURCE_EXHAUSTED)
_FIRST_PAUSE_SECONDS = 0.2
_LONGEST_PAUSE_SECONDS = 5.0
_LOOK_AGAIN_SECONDS = 5.0

Pause = Callable[[float], None]
"""Waits for so many seconds; raises where the work was cancelled."""


class Remote(AssayClient):
    """The four other services, which this one waits for longer than a client does."""

    def __init__(self, settings: ServiceSettings, *, patience_seconds: float) -> None:
        """Connects to nothing yet.

        Args:
            settings: Where the services are, and the certificate to show them.
            patience_seconds: Longest time that a service which is away is waited for.
        """
        endpoints = Endpoints(
            cleaning=settings.cleaning_target,
            reward=settings.reward_target,
            policy=settings.policy_target,
            training=settings.training_target,
        )
        super().__init__(endpoints, security=Security.from_folder(settings.tls_dir))
        self._patience_seconds = patience_seconds

    def patiently(self, call: Callable[[], T], *, pause: Pause) -> T:
        """Calls until the service answers, for as long as the patience lasts.

        Args:
            call: One call of one of the clients; made again, it must do no harm.
            pause: Waits between attempts.

        Raises:
            AssayClientError: The service refused, or did not come back.
        """
        waits = _Waits(self._patience_seconds)
        while True:
            try:
                return call()
            except AssayClientError as error:
                waits.wait_or_raise(error, pause)

    def follow_job(self, service: str, job_id: str, *, on_event: Callable[[jobs_pb2.JobEvent], None], pause: Pause) -> dict[str, Any]:
        """Follows a job of another service to its end, over restarts of that service.

        Args:
            service: "cleaning" or "training".
            job_id: The job.
            on_event: Called with each event.
            pause: Asked every few seconds whether to go on, and waits between attempts.

        Returns:
            The job's result.

        Raises:
            JobFailed: It failed or was cancelled; the message says why.
            AssayClientError: The service did not come back.
        """
        caller = self._caller(service)
        sequence = 0
        waits = _Waits(self._patience_seconds)
        while True:
            request = jobs_pb2.WatchJobRequest(id=job_id, from_sequence=sequence)
            try:
                # A short deadline, so that a cancelled study does not hang on a job that says nothing.
                for response in caller.stream(
                    caller.stub(jobs_pb2_grpc.JobServiceStub).WatchJob, request, timeout_seconds=_LOOK_AGAIN_SECONDS
                ):
                    waits = _Waits(self._patience_seconds)
                    if response.HasField("event"):
                        sequence = response.event.sequence + 1
                        on_event(response.event)
                    if response.HasField("job") and response.job.state in _ENDED:
                        if response.job.state != jobs_pb2.JOB_STATE_SUCCEEDED:
                            raise JobFailed(response.job)
                        return plain(response.job.result)
            except AssayClientError as error:
                if error.code is grpc.StatusCode.DEADLINE_EXCEEDED:
                    waits = _Waits(self._patience_seconds)
                    pause(0.0)
                else:
                    waits.wait_or_raise(error, pause)

    def cancel_job(self, service: str, job_id: str) -> None:
        """Asks a job of another service to stop; one that does not know it, or is away, has nothing to stop.

        Raises:
            AssayClientError: It refused.
        """
        caller = self._caller(service)
        try:
            caller.call(caller.stub(jobs_pb2_grpc.JobServiceStub).CancelJob, jobs_pb2.CancelJobRequest(id=job_id), timeout_seconds=10)
        except AssayClientError as error:
            if error.code not in (*_PASSING, grpc.StatusCode.NOT_FOUND):
                raise


class _Waits:
    """The growing waits of one call."""

    def __init__(self, patience_seconds: float) -> None:
        self._deadline = time.monotonic() + patience_seconds
        self._wait = _FIRST_PAUSE_SECONDS

    def wait_or_raise(self, error: AssayClientError, pause: Pause) -> None:
        if error.code not in _PASSING or time.monotonic() + self._wait > self._deadline:
            raise error
        pause(self._wait)
        self._wait = min(self._wait * 2, _LONGEST_PAUSE_SECONDS)
