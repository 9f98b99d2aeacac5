"""The thread that lets candidates score what was drawn for them, behind all callers."""

from __future__ import annotations

import logging
import threading
from dataclasses import replace

import numpy as np

from assay_kit.errors import AssayError, FailedPrecondition, ResourceExhausted
from assay_reward.inputs import Priority, Scale
from assay_reward.scoring import Scoring
from assay_reward.shadow import Compared, Drawn, Shadows, compare

logger = logging.getLogger(__name__)


class ShadowWorker:
    """One call at a time, at the priority of bulk work: a caller waits for it no longer than for one unit of work."""

    def __init__(self, *, shadows: Shadows, scoring: Scoring) -> None:
        self._shadows = shadows
        self._scoring = scoring
        self._thread = threading.Thread(target=self._work, name="shadow", daemon=True)

    def start(self) -> None:
        """Starts the thread."""
        self._thread.start()

    def stop(self) -> None:
        """Ends the thread after the call it is at."""
        self._shadows.end()
        self._thread.join()

    def _work(self) -> None:
        while (drawn := self._shadows.next()) is not None:
            try:
                drawn.shadow.add(self._compared(drawn))
            except ResourceExhausted:
                drawn.shadow.skip()
            except AssayError as error:
                drawn.shadow.fail(error.message)
            except Exception as error:  # a fault of ours costs a comparison, never the thread
                logger.exception("the shadow of %s could not score a call", drawn.shadow.model.model)
                drawn.shadow.fail(f"internal error: {type(error).__name__}")

    def _compared(self, drawn: Drawn) -> Compared:
        candidate = drawn.shadow.candidate
        options = replace(drawn.options, priority=Priority.BULK, scale=Scale.RAW)
        loaded, results = self._scoring.beside(candidate.model, candidate.revision, drawn.inputs, options)
        if loaded.fingerprint.fingerprint != candidate.fingerprint:
            raise FailedPrecondition(f"{candidate.model} {candidate.revision} has other weights now than when the shadow was set")
        raw = []
        for result in results:
            if isinstance(result, AssayError):
                raise result
            raw.append(result.raw)
        return compare(drawn.inputs, np.array(drawn.raw), np.array(raw))
