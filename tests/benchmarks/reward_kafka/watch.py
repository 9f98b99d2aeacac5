"""What the service looks like while it works: memory, processor time and how far behind it is, once a second."""

from __future__ import annotations

import contextlib
import threading
import time
import urllib.request
from collections.abc import Iterator
from dataclasses import asdict, dataclass

from benchmarks.reward_peers.processes import ServerProcess

_LAG = "assay_kafka_consumer_lag{"
_SECONDS = 1.0
_KEPT = 120


@dataclass(frozen=True, kw_only=True)
class Sample:
    """One look."""

    seconds: float
    """Since the watch began."""
    rss_mib: float
    lag: int
    """Requests in the topic that are not done."""


class Watch:
    """Samples of one phase."""

    def __init__(self, process: ServerProcess, metrics: str) -> None:
        self._process = process
        self._metrics = metrics
        self.samples: list[Sample] = []
        self.cpu_seconds = 0.0

    @contextlib.contextmanager
    def watching(self) -> Iterator[None]:
        """Looks while open."""
        over, busy, began = threading.Event(), self._process.cpu_seconds(), time.monotonic()

        def look() -> None:
            while True:
                self.samples.append(
                    Sample(seconds=round(time.monotonic() - began, 2), rss_mib=round(self._process.resident_mib(), 1), lag=self._lag())
                )
                if over.wait(_SECONDS):
                    return

        thread = threading.Thread(target=look)
        thread.start()
        try:
            yield
        finally:
            over.set()
            thread.join()
            self.cpu_seconds = self._process.cpu_seconds() - busy

    def memory(self) -> dict[str, float]:
        """MiB at the start, the most, and at the end."""
        return {
            "start_mib": self.samples[0].rss_mib,
            "most_mib": max(sample.rss_mib for sample in self.samples),
            "end_mib": self.samples[-1].rss_mib,
        }

    def few(self) -> list[dict[str, float]]:
        """Samples spread over the whole time, for the report."""
        step = -(-len(self.samples) // _KEPT)
        return [asdict(sample) for sample in self.samples[::step]]

    def _lag(self) -> int:
        page = urllib.request.urlopen(self._metrics, timeout=10).read().decode()
        return round(sum(float(line.rpartition(" ")[2]) for line in page.splitlines() if line.startswith(_LAG)))
