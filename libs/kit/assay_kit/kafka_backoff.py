"""How long to wait while the world fails."""

from __future__ import annotations

import random


class Backoff:
    """Waiting times that double up to a limit, each cut by chance to between half and the whole of it."""

    def __init__(self, *, first_s: float = 0.2, limit_s: float = 30.0) -> None:
        self._first_s = first_s
        self._limit_s = limit_s
        self._failures = 0

    @property
    def failures(self) -> int:
        """Failures since the last success."""
        return self._failures

    def next(self) -> float:
        """Seconds to wait after one more failure."""
        whole = min(self._limit_s, self._first_s * 2.0 ** min(self._failures, 30))
        self._failures += 1
        return whole * random.uniform(0.5, 1.0)

    def succeeded(self) -> None:
        """Begins anew."""
        self._failures = 0
