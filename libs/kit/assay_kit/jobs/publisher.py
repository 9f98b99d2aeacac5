"""Hands the events of the log to a callback, each at least once, in order, whatever fails in between."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable

from assay.jobs.v1 import jobs_pb2
from assay_kit.jobs.log import EventLog

logger = logging.getLogger(__name__)

_FIRST_PAUSE_SECONDS = 0.5
_LONGEST_PAUSE_SECONDS = 30.0
_LOOK_AGAIN_SECONDS = 5.0
_TURN_OF_OTHERS_SECONDS = 0.2


class EventPublisher:
    """A thread that publishes what the log holds unpublished; an event is marked only after `publish` returned."""

    def __init__(self, log: EventLog, publish: Callable[[jobs_pb2.JobEvent], None]) -> None:
        self._log = log
        self._publish = publish
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name="job-events", daemon=True)

    def start(self) -> None:
        """Begins, with what an earlier process left unpublished."""
        self._thread.start()

    def stop(self) -> None:
        """Publishes what is left, unless the other side is away, and ends."""
        self._stop.set()
        self._log.appended.set()
        self._thread.join()

    def _run(self) -> None:
        pause = _FIRST_PAUSE_SECONDS
        while True:
            ending = self._stop.is_set()
            self._log.appended.clear()
            try:
                while self._publish_some():
                    pause = _FIRST_PAUSE_SECONDS
            except Exception:
                logger.warning("job events cannot be published; they are kept and tried again in %.1f s", pause, exc_info=True)
                self._stop.wait(pause)
                pause = min(pause * 2, _LONGEST_PAUSE_SECONDS)
                self._log.appended.set()
            if ending:
                return
            self._log.appended.wait(_LOOK_AGAIN_SECONDS)

    def _publish_some(self) -> bool:
        """Publishes what there is; whether there may be more."""
        with self._log.publishing() as alone:
            if alone:
                events = self._log.unpublished()
                done: list[jobs_pb2.JobEvent] = []
                try:
                    for event in events:
                        self._publish(event)
                        done.append(event)
                finally:
                    self._log.mark_published(done)
                return bool(events)
        return not self._stop.wait(_TURN_OF_OTHERS_SECONDS)
