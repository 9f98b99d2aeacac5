"""Errors as HTTP statuses, with the body that clients of OpenAI's and vLLM's API know."""

from __future__ import annotations

import math

import grpc
from aiohttp import web

from assay_kit.errors import AssayError
from assay_reward.doors.http_bodies import WrongShape

_UNPROCESSABLE = 422
# As google/rpc/code.proto maps them.
_STATUSES = {
    grpc.StatusCode.INVALID_ARGUMENT: 400,
    grpc.StatusCode.FAILED_PRECONDITION: 400,
    grpc.StatusCode.NOT_FOUND: 404,
    grpc.StatusCode.RESOURCE_EXHAUSTED: 429,
    grpc.StatusCode.UNAVAILABLE: 503,
    grpc.StatusCode.DEADLINE_EXCEEDED: 504,
}
_SECONDS_UNTIL_AVAILABLE = 1.0
"""A model that loads says not how long it takes."""


def refused(status: int, kind: str, message: str, *, field: str = "", retry_after_seconds: float | None = None) -> web.Response:
    """An error's answer; the time to wait is rounded up to whole seconds, as HTTP has it."""
    headers = {} if retry_after_seconds is None else {"Retry-After": str(max(1, math.ceil(retry_after_seconds)))}
    body = {"error": {"message": message, "type": kind, "param": field or None, "code": status}}
    return web.json_response(body, status=status, headers=headers)


def refused_by(error: AssayError) -> web.Response:
    """The answer to an error that a caller may see."""
    status = _UNPROCESSABLE if isinstance(error, WrongShape) else _STATUSES.get(error.code, 500)
    wait = error.retry_after_seconds
    if wait is None and error.code is grpc.StatusCode.UNAVAILABLE:
        wait = _SECONDS_UNTIL_AVAILABLE
    field = error.violations[0][0] if error.violations else ""
    return refused(status, error.code.name, error.message, field=field, retry_after_seconds=wait)
