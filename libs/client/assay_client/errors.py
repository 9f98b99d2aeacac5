"""Errors of the client.

AssayClientError        a call failed: code, message, violations, when to try again
├── InvalidArgument     the request is wrong; `violations` names the fields
├── NotFound            there is no such model, job or card; says which there are
├── FailedPrecondition  the request is right and its time is not, for example a scale without a quality card
├── ResourceExhausted   the service is full; `retry_after_seconds` says when it may have room
├── Unavailable         the service is away, loads or drains
├── DeadlineExceeded    the call's time is up
├── Aborted             the model changed under the call
├── Unauthenticated     the service does not know the caller
├── PermissionDenied    the caller may not do this
├── ItemFailed          one item of a batch failed
└── JobFailed           a job failed or was cancelled

Any other code is an AssayClientError itself.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import grpc
from google.protobuf import any_pb2
from google.rpc import error_details_pb2
from grpc_status import rpc_status

from assay.common.v1 import common_pb2
from assay.jobs.v1 import jobs_pb2


class AssayClientError(Exception):
    """A call failed."""

    def __init__(
        self,
        code: grpc.StatusCode,
        message: str,
        violations: Sequence[tuple[str, str]] = (),
        retry_after_seconds: float | None = None,
    ) -> None:
        """Takes what the server said.

        Args:
            code: canonical code.
            message: what is wrong and what would be right.
            violations: (field, what is wrong with it), with INVALID_ARGUMENT.
            retry_after_seconds: when to try again, with RESOURCE_EXHAUSTED.
        """
        super().__init__(message)
        self.code = code
        self.message = message
        self.violations = tuple(violations)
        self.retry_after_seconds = retry_after_seconds

    def __str__(self) -> str:
        return f"{self.code.name}: {self.message}"

    def __reduce__(self) -> tuple[Any, ...]:
        return type(self), (self.code, self.message, self.violations, self.retry_after_seconds)


class InvalidArgument(AssayClientError):
    """The request is wrong; `violations` names the fields. Asking again changes nothing."""


class NotFound(AssayClientError):
    """There is no such model, job or card; the message names those there are."""


class FailedPrecondition(AssayClientError):
    """The request is right and its time is not, for example a scale that needs a quality card."""


class ResourceExhausted(AssayClientError):
    """The service is full; `retry_after_seconds` says when it may have room. The client has waited as long as it may."""


class Unavailable(AssayClientError):
    """The service is away, loads or drains. The client has waited as long as it may."""


class DeadlineExceeded(AssayClientError):
    """The call's time is up."""


class Aborted(AssayClientError):
    """The model changed under the call, so that its scores would not be of one kind; the same call may be made again."""


class Unauthenticated(AssayClientError):
    """The service does not know the caller: no token, or one that it does not take."""


class PermissionDenied(AssayClientError):
    """The service knows the caller and does not let him do this."""


class ItemFailed(AssayClientError):
    """One item of a batch failed; its neighbours did not."""


class JobFailed(AssayClientError):
    """A job failed or was cancelled."""

    def __init__(self, job: jobs_pb2.Job) -> None:
        """Takes the job as it ended."""
        cancelled = job.state == jobs_pb2.JOB_STATE_CANCELLED
        super().__init__(
            grpc.StatusCode.CANCELLED if cancelled else grpc.StatusCode.ABORTED,
            f"{job.service} job {job.id} was cancelled" if cancelled else f"{job.service} job {job.id} failed: {job.error}",
        )
        self.job = job

    def __reduce__(self) -> tuple[Any, ...]:
        return JobFailed, (self.job,)


_BY_CODE: Mapping[grpc.StatusCode, type[AssayClientError]] = {
    grpc.StatusCode.INVALID_ARGUMENT: InvalidArgument,
    grpc.StatusCode.NOT_FOUND: NotFound,
    grpc.StatusCode.FAILED_PRECONDITION: FailedPrecondition,
    grpc.StatusCode.RESOURCE_EXHAUSTED: ResourceExhausted,
    grpc.StatusCode.UNAVAILABLE: Unavailable,
    grpc.StatusCode.DEADLINE_EXCEEDED: DeadlineExceeded,
    grpc.StatusCode.ABORTED: Aborted,
    grpc.StatusCode.UNAUTHENTICATED: Unauthenticated,
    grpc.StatusCode.PERMISSION_DENIED: PermissionDenied,
}


def made(
    code: grpc.StatusCode, message: str, violations: Sequence[tuple[str, str]] = (), retry_after_seconds: float | None = None
) -> AssayClientError:
    """An error of the class of its code.

    Example:
        >>> raise made(grpc.StatusCode.NOT_FOUND, "no model 'x'")
        Traceback (most recent call last):
        assay_client.errors.NotFound: NOT_FOUND: no model 'x'
    """
    return _BY_CODE.get(code, AssayClientError)(code, message, violations, retry_after_seconds)


def error_of(call: Any, where: str) -> AssayClientError:
    """The error of a failed call, with the google.rpc details that the server sent.

    Args:
        call: the grpc.RpcError that was raised; it is a grpc.Call too.
        where: who was called, put in front where the server itself did not speak.
    """
    code, message = call.code(), call.details() or ""
    violations: list[tuple[str, str]] = []
    retry_after: float | None = None
    status = rpc_status.from_call(call)
    for detail in () if status is None else status.details:
        violations += _violations(detail)
        retry_after = _retry_after(detail) if retry_after is None else retry_after
    if code in (grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.DEADLINE_EXCEEDED):
        message = f"{where}: {message}"
    return made(code, message, violations, retry_after)


def item_failed(error: common_pb2.ItemError) -> ItemFailed:
    """The error of one item."""
    code = next((one for one in grpc.StatusCode if one.value[0] == error.code), grpc.StatusCode.UNKNOWN)
    return ItemFailed(code, error.message, [(error.field, error.message)] if error.field else [])


def _violations(detail: any_pb2.Any) -> list[tuple[str, str]]:
    bad = error_details_pb2.BadRequest()
    if not detail.Is(bad.DESCRIPTOR):
        return []
    detail.Unpack(bad)
    return [(violation.field, violation.description) for violation in bad.field_violations]


def _retry_after(detail: any_pb2.Any) -> float | None:
    info = error_details_pb2.RetryInfo()
    if not detail.Is(info.DESCRIPTOR):
        return None
    detail.Unpack(info)
    return float(info.retry_delay.ToNanoseconds()) / 1e9
