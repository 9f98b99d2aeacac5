"""Errors with a canonical gRPC code.

AssayError
├── InvalidArgument     a field is wrong; says which and what would be right
├── NotFound            says what there is
├── AlreadyExists
├── FailedPrecondition  for example the gate
├── ResourceExhausted   says when to try again
├── DeadlineExceeded
├── Cancelled
└── Unavailable         loading, draining, or a service behind is away
"""

from __future__ import annotations

from collections.abc import Sequence

import grpc
from google.protobuf import any_pb2, duration_pb2
from google.rpc import code_pb2, error_details_pb2, status_pb2

from assay.common.v1 import common_pb2

_TEXT_BYTES = 1024
_VIOLATIONS_BYTES = 2048


class AssayError(Exception):
    """An error that a caller may see, with its code."""

    code: grpc.StatusCode = grpc.StatusCode.INTERNAL

    def __init__(self, message: str) -> None:
        super().__init__(message)
        self.message = message
        self.violations: list[tuple[str, str]] = []
        self.retry_after_seconds: float | None = None


class InvalidArgument(AssayError):
    """A field of the request is wrong."""

    code = grpc.StatusCode.INVALID_ARGUMENT

    def __init__(self, field: str, description: str) -> None:
        super().__init__(f"{field}: {description}")
        self.violations = [(field, description)]

    @classmethod
    def many(cls, violations: Sequence[tuple[str, str]]) -> InvalidArgument:
        """One error for all the fields that are wrong."""
        error = cls(*violations[0])
        error.violations = list(violations)
        error.message = "; ".join(f"{field}: {description}" for field, description in violations)
        error.args = (error.message,)
        return error


class NotFound(AssayError):
    """There is no such thing; the message names what there is."""

    code = grpc.StatusCode.NOT_FOUND


class AlreadyExists(AssayError):
    """The name is taken by something else."""

    code = grpc.StatusCode.ALREADY_EXISTS


class FailedPrecondition(AssayError):
    """The request is right, the state of the system is not."""

    code = grpc.StatusCode.FAILED_PRECONDITION


class ResourceExhausted(AssayError):
    """No room now; carries RetryInfo."""

    code = grpc.StatusCode.RESOURCE_EXHAUSTED

    def __init__(self, message: str, retry_after_seconds: float) -> None:
        super().__init__(message)
        self.retry_after_seconds = retry_after_seconds


class DeadlineExceeded(AssayError):
    """The caller's time was up before the work began or ended."""

    code = grpc.StatusCode.DEADLINE_EXCEEDED


class Cancelled(AssayError):
    """The caller gave up."""

    code = grpc.StatusCode.CANCELLED


class Unavailable(AssayError):
    """Try again: the service, or one behind it, loads, drains or is away."""

    code = grpc.StatusCode.UNAVAILABLE


def item_error(error: AssayError, field: str = "") -> common_pb2.ItemError:
    """The error as that of one item of a batch; `field` is put in front of the error's own field."""
    own = error.violations[0][0] if error.violations else ""
    path = f"{field}.{own}" if field and own else field or own
    return common_pb2.ItemError(code=error.code.value[0], message=error.message, field=path)


def status_of(error: AssayError) -> status_pb2.Status:
    """The error as google.rpc.Status with BadRequest and RetryInfo details, short enough to travel.

    All of it is in the trailing metadata, of which gRPC refuses what is over 8 KiB, the message being there twice: what is too
    much is left out, and said to be.
    """
    details: list[any_pb2.Any] = []
    if error.violations:
        bad = error_details_pb2.BadRequest(
            field_violations=[
                error_details_pb2.BadRequest.FieldViolation(field=field, description=description)
                for field, description in _that_fit(error.violations)
            ]
        )
        details.append(_packed(bad))
    if error.retry_after_seconds is not None:
        delay = duration_pb2.Duration()
        delay.FromNanoseconds(round(error.retry_after_seconds * 1e9))
        details.append(_packed(error_details_pb2.RetryInfo(retry_delay=delay)))
    return status_pb2.Status(code=getattr(code_pb2, error.code.name), message=_cut(error.message), details=details)


def _that_fit(violations: Sequence[tuple[str, str]]) -> list[tuple[str, str]]:
    """The first of them, at least one, up to the size that may travel; with a last line for those left out."""
    fitting: list[tuple[str, str]] = []
    size = 0
    for field, description in violations:
        description = _cut(description)
        size += len(field.encode()) + len(description.encode())
        if fitting and size > _VIOLATIONS_BYTES:
            return [*fitting, ("", f"{len(violations) - len(fitting)} more fields are wrong")]
        fitting.append((field, description))
    return fitting


def _cut(text: str) -> str:
    raw = text.encode()
    return text if len(raw) <= _TEXT_BYTES else raw[: _TEXT_BYTES - 4].decode(errors="ignore") + " …"


def _packed(message: object) -> any_pb2.Any:
    packed = any_pb2.Any()
    packed.Pack(message)  # type: ignore[arg-type]
    return packed
