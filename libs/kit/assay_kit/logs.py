"""Logs: one JSON object a line, with the trace the line belongs to."""

from __future__ import annotations

import datetime
import json
import logging
import sys
from typing import Literal

from opentelemetry import trace

_SAME_AGAIN_SECONDS = 30.0


class JsonFormatter(logging.Formatter):
    """Formats a record as one JSON object; fields given as `extra={"fields": {...}}` are put in it."""

    def __init__(self, service: str) -> None:
        super().__init__()
        self._service = service

    def format(self, record: logging.LogRecord) -> str:
        """The record as JSON."""
        line: dict[str, object] = {
            "time": datetime.datetime.fromtimestamp(record.created, datetime.UTC).isoformat(timespec="milliseconds"),
            "level": record.levelname,
            "service": self._service,
            "logger": record.name,
            "message": record.getMessage(),
        }
        span = trace.get_current_span().get_span_context()
        if span.is_valid:
            line["trace_id"] = f"{span.trace_id:032x}"
        line.update(getattr(record, "fields", {}))
        if record.exc_info:
            line["exception"] = self.formatException(record.exc_info)
        return json.dumps(line, ensure_ascii=False, default=str)


class LibraryErrorsAsWarnings(logging.Filter):
    """Lowers what kafka-python itself logs as an error to a warning, and lets it say the same only once in a while.

    It calls a connection an error that we close while it reads, and tells of each attempt to reach a broker that is away, several a
    second. What fails for good reaches our code as an exception, which is logged there with what follows from it.
    """

    def __init__(self) -> None:
        super().__init__()
        self._said_at: dict[tuple[str, int], float] = {}

    def filter(self, record: logging.LogRecord) -> bool:
        """Lets every record through but what the library said at the same place a moment ago."""
        if not record.name.startswith("kafka.") or record.levelno < logging.WARNING:
            return True
        if record.levelno > logging.WARNING:
            record.levelno, record.levelname = logging.WARNING, logging.getLevelName(logging.WARNING)
        place = (record.name, record.lineno)
        said_at = self._said_at.get(place)
        if said_at is not None and record.created - said_at < _SAME_AGAIN_SECONDS:
            return False
        self._said_at[place] = record.created
        return True


def set_up_logs(service: str, level: str, style: Literal["json", "text"]) -> None:
    """Sends all logs of the process to stderr in the given style."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(JsonFormatter(service) if style == "json" else logging.Formatter("%(levelname)s %(name)s: %(message)s"))
    handler.addFilter(LibraryErrorsAsWarnings())
    logging.basicConfig(level=level, handlers=[handler], force=True)
    for noisy in ("kafka", "httpx", "httpx2", "filelock", "urllib3", "fsspec", "botocore", "aiobotocore"):
        logging.getLogger(noisy).setLevel(max(logging.WARNING, logging.getLevelName(level)))
