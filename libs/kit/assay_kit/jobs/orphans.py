"""Jobs of an executor that does not come back, for example of a replica that was scaled away: the others take them over."""

from __future__ import annotations

import logging
import threading
import time

import sqlalchemy as sa
from dbos import DBOS

from assay_kit.jobs.exclusive import held_if_gone

logger = logging.getLogger(__name__)

_ROUNDS = 5  # of looking in the time after which an executor is taken for gone


class Orphans:
    """A thread that gives jobs back to their queue once nobody has worked under their executor's name for some time."""

    def __init__(self, *, executor: str, engine: sa.Engine, gone_after_seconds: float) -> None:
        """Takes the parts.

        Args:
            executor: of this process, whose jobs are left alone.
            engine: PostgreSQL.
            gone_after_seconds: longer than a restart takes: a job that comes back to its own executor finds what that one has kept.
        """
        self._executor = executor
        self._engine = engine
        self._gone_after = gone_after_seconds
        self._gone_since: dict[str, float] = {}
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name="job-orphans", daemon=True)

    def start(self) -> None:
        """Begins to look."""
        self._thread.start()

    def stop(self) -> None:
        """Ends."""
        self._stop.set()
        self._thread.join()

    def _run(self) -> None:
        while not self._stop.wait(self._gone_after / _ROUNDS):
            try:
                self._look()
            except Exception:
                logger.warning("the executors of running jobs could not be looked at; it is tried again", exc_info=True)

    def _look(self) -> None:
        running = DBOS.list_workflows(status="PENDING", load_input=False, load_output=False)
        executors = {workflow.executor_id for workflow in running if workflow.executor_id not in (None, self._executor)}
        self._gone_since = {executor: since for executor, since in self._gone_since.items() if executor in executors}
        for executor in executors:
            with held_if_gone(self._engine, executor) as gone:
                if not gone:
                    self._gone_since.pop(executor, None)
                elif time.monotonic() - self._gone_since.setdefault(executor, time.monotonic()) >= self._gone_after:
                    handles = DBOS._recover_pending_workflows([executor])
                    logger.warning(
                        "%s has not come back for %g s; back in the queue: %s",
                        executor,
                        self._gone_after,
                        ", ".join(handle.workflow_id for handle in handles),
                    )
