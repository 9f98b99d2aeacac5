"""One process at a time works on a service's jobs: two would each take the other's for interrupted."""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import sqlalchemy as sa

from assay_kit.errors import FailedPrecondition

_LOOK_AGAIN_SECONDS = 0.2


@contextlib.contextmanager
def only_process(*, service: str, data_dir: Path, engine: sa.Engine, wait_seconds: float) -> Iterator[None]:
    """Holds the service's jobs for this process; the hold ends with the process, however it ends.

    Raises:
        FailedPrecondition: another process still holds them after `wait_seconds`.
    """
    if engine.dialect.name == "sqlite":
        with (data_dir / "jobs.lock").open("w") as file:
            _wait_for(lambda: _lock_file(file.fileno()), service=service, wait_seconds=wait_seconds)
            yield
    else:
        key = int.from_bytes(hashlib.sha256(f"assay-jobs-{service}".encode()).digest()[:8], "big", signed=True)
        with engine.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
            query = sa.select(sa.func.pg_try_advisory_lock(key))
            _wait_for(lambda: bool(connection.execute(query).scalar()), service=service, wait_seconds=wait_seconds)
            try:
                yield
            finally:
                connection.execute(sa.select(sa.func.pg_advisory_unlock(key)))


def _lock_file(descriptor: int) -> bool:
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def _wait_for(attempt: Callable[[], bool], *, service: str, wait_seconds: float) -> None:
    never = threading.Event()
    for _ in range(max(1, round(wait_seconds / _LOOK_AGAIN_SECONDS))):
        if attempt():
            return
        never.wait(_LOOK_AGAIN_SECONDS)
    raise FailedPrecondition(
        f"another process works on the jobs of the {service} service; only one may at a time (replicas: 1, strategy: Recreate). "
        "Stop it, or give this one a data_dir or a database of its own"
    )
