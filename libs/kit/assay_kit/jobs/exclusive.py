"""One process at a time works as an executor of a service's jobs: two of one name would each take the other's for interrupted."""

from __future__ import annotations

import contextlib
import fcntl
import logging
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import sqlalchemy as sa

from assay_kit.errors import FailedPrecondition
from assay_kit.jobs.log import advisory_key

logger = logging.getLogger(__name__)

_LOOK_AGAIN_SECONDS = 0.2
_KEEP_SECONDS = 5.0


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
        hold = _PostgresHold(engine, executor)
        try:
            _wait_for(hold.take, executor=executor, wait_seconds=wait_seconds)
            hold.keep()
            yield
        finally:
            hold.release()


@contextlib.contextmanager
def held_if_gone(engine: sa.Engine, executor: str) -> Iterator[bool]:
    """Whether no process works as this executor; while open none can begin to. PostgreSQL only."""
    hold = _PostgresHold(engine, executor)
    try:
        yield hold.take()
    finally:
        hold.release()


class _PostgresHold:
    """An advisory lock of a session of its own."""

    def __init__(self, engine: sa.Engine, executor: str) -> None:
        self._engine = engine
        self._executor = executor
        self._query = sa.select(sa.func.pg_try_advisory_lock(advisory_key(f"assay-jobs-{executor}")))
        self._connection: sa.Connection | None = None
        self._stop = threading.Event()
        self._keeper: threading.Thread | None = None

    def take(self) -> bool:
        """Tries once; whether the lock is held."""
        connection = self._engine.connect().execution_options(isolation_level="AUTOCOMMIT")
        try:
            taken = bool(connection.execute(self._query).scalar())
        except BaseException:
            connection.invalidate()
            connection.close()
            raise
        if taken:
            self._connection = connection
        else:
            connection.close()
        return taken

    def keep(self) -> None:
        """Takes the lock again whenever its session has ended, as it does when the database restarts or fails over."""
        self._keeper = threading.Thread(target=self._keep, name="job-executor", daemon=True)
        self._keeper.start()

    def release(self) -> None:
        """Ends the session, and the lock with it."""
        self._stop.set()
        if self._keeper is not None:
            self._keeper.join()
        self._end_session()

    def _keep(self) -> None:
        while not self._stop.wait(_KEEP_SECONDS):
            try:
                if self._connection is not None:
                    self._connection.execute(sa.select(1))
                elif not self.take():
                    logger.error("another process works on jobs as %s, since this one lost its database for a time", self._executor)
            except sa.exc.SQLAlchemyError as error:
                logger.warning("the session that holds the name %s has ended, it is taken again: %s", self._executor, error)
                self._end_session()

    def _end_session(self) -> None:
        connection, self._connection = self._connection, None
        if connection is not None:
            connection.invalidate()  # not back to the pool: the session ends
            connection.close()


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
