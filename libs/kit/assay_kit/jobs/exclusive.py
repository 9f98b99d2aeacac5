"""One process at a time works as an executor of a service's jobs: two of one name would each take the other's for interrupted."""

from __future__ import annotations

import contextlib
import fcntl
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import sqlalchemy as sa

from assay_kit.errors import FailedPrecondition
from assay_kit.jobs.log import advisory_key

_LOOK_AGAIN_SECONDS = 0.2


@contextlib.contextmanager
def only_process(*, executor: str, data_dir: Path, engine: sa.Engine, wait_seconds: float) -> Iterator[None]:
    """Holds an executor's name for this process; the hold ends with the process, however it ends. On SQLite there is one name for all.

    Raises:
        FailedPrecondition: another process still holds it after `wait_seconds`.
    """
    if engine.dialect.name == "sqlite":
        with (data_dir / "jobs.lock").open("w") as file:
            _wait_for(lambda: _lock_file(file.fileno()), executor=executor, wait_seconds=wait_seconds)
            yield
    else:
        with _postgres_hold(engine, executor) as hold:
            _wait_for(hold, executor=executor, wait_seconds=wait_seconds)
            yield


@contextlib.contextmanager
def held_if_gone(engine: sa.Engine, executor: str) -> Iterator[bool]:
    """Whether no process works as this executor; while open none can begin to. PostgreSQL only."""
    with _postgres_hold(engine, executor) as hold:
        yield hold()


@contextlib.contextmanager
def _postgres_hold(engine: sa.Engine, executor: str) -> Iterator[Callable[[], bool]]:
    key = advisory_key(f"assay-jobs-{executor}")
    held = False
    with engine.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:

        def hold() -> bool:
            nonlocal held
            held = bool(connection.execute(sa.select(sa.func.pg_try_advisory_lock(key))).scalar())
            return held

        try:
            yield hold
        finally:
            if held:
                connection.execute(sa.select(sa.func.pg_advisory_unlock(key)))


def _lock_file(descriptor: int) -> bool:
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def _wait_for(attempt: Callable[[], bool], *, executor: str, wait_seconds: float) -> None:
    never = threading.Event()
    for _ in range(max(1, round(wait_seconds / _LOOK_AGAIN_SECONDS))):
        if attempt():
            return
        never.wait(_LOOK_AGAIN_SECONDS)
    raise FailedPrecondition(
        f"another process works on jobs as {executor}; only one may at a time. Stop it, or give this one a database of its own, or on "
        "PostgreSQL a name of its own with ASSAY_INSTANCE"
    )
