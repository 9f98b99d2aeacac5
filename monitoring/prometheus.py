"""A real Prometheus on loopback, and questions to it."""

from __future__ import annotations

import json
import math
import shutil
import subprocess
import threading
import time
import urllib.parse
import urllib.request
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import yaml

from assay_cli.ports import free_ports

RULES = Path(__file__).resolve().parent.parent / "helm" / "assay" / "rules"
SCRAPE_SECONDS = 1


@dataclass(frozen=True)
class Target:
    """A page of metrics.

    Attributes:
        job: as Kubernetes' discovery names it: the Service.
        address: host:port.
        labels: that the discovery adds; one that a metric has too takes its place, and the metric's own becomes exported_….
        path: of the page.
    """

    job: str
    address: str
    labels: Mapping[str, str] = field(default_factory=dict)
    path: str = "/metrics"


@dataclass(frozen=True)
class Series:
    """What a query gave: labels, and (time in seconds, value) in order; values are finite."""

    labels: Mapping[str, str]
    points: Sequence[tuple[float, float]]


class QueryFailed(RuntimeError):
    """Prometheus refuses the query, or cannot evaluate it."""


class Prometheus:
    """Scrapes targets once a second and evaluates the chart's rules as often; a context manager."""

    def __init__(self, folder: Path, targets: Sequence[Target]) -> None:
        """Takes a folder for its data and what to scrape.

        Raises:
            FileNotFoundError: there is no program `prometheus` on this machine.
        """
        program = shutil.which("prometheus")
        if program is None:
            raise FileNotFoundError("no program `prometheus`: install the package of that name")
        folder.mkdir(parents=True, exist_ok=True)
        [port] = free_ports(1)
        self.url = f"http://127.0.0.1:{port}"
        self._targets = len(targets)
        self._log = folder / "prometheus.log"
        config = folder / "prometheus.yml"
        config.write_text(yaml.safe_dump(_config(targets)))
        self._command = [
            program,
            f"--config.file={config}",
            f"--storage.tsdb.path={folder / 'data'}",
            f"--web.listen-address=127.0.0.1:{port}",
            "--log.level=warn",
        ]
        self._process: subprocess.Popen[bytes] | None = None

    def __enter__(self) -> Self:
        with self._log.open("wb") as log:
            self._process = subprocess.Popen(self._command, stdout=log, stderr=log)
        deadline = time.monotonic() + 30
        while not self._is_ready():
            if self._process.poll() is not None or time.monotonic() > deadline:
                self.__exit__(None, None, None)
                raise RuntimeError(f"prometheus did not start:\n{self._log.read_text()}")
            threading.Event().wait(0.1)
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        if self._process is not None:
            self._process.terminate()
            self._process.wait(20)

    def wait_until_all_are_scraped(self, timeout_s: float = 60.0) -> None:
        """Waits until each target was read once: what happens before the first reading is no increase of anything.

        Raises:
            TimeoutError: one was not read in time.
        """
        deadline = time.monotonic() + timeout_s
        while sum(series.points[0][1] for series in self.values("up", at=time.time())) < self._targets:
            if time.monotonic() > deadline:
                raise TimeoutError(f"not all of {self._targets} targets were read within {timeout_s:g} s")
            threading.Event().wait(0.2)

    def series(self, query: str, *, start: float, end: float, step: float = SCRAPE_SECONDS) -> list[Series]:
        """What a query gives over a time, as a graph asks for it.

        Raises:
            QueryFailed: it gives an error.
        """
        data = self.ask("query_range", query=query, start=start, end=end, step=step)
        return [_series(one["metric"], one["values"]) for one in data["result"]]

    def values(self, query: str, *, at: float) -> list[Series]:
        """What a query gives at one time, as a table asks for it.

        Raises:
            QueryFailed: it gives an error.
        """
        data = self.ask("query", query=query, time=at)
        if data["resultType"] == "scalar":
            return [_series({}, [data["result"]])]
        return [_series(one["metric"], [one["value"]]) for one in data["result"]]

    def ask(self, what: str, **parameters: object) -> Any:
        """The `data` of an answer of /api/v1/….

        Raises:
            QueryFailed: it is an error.
        """
        url = f"{self.url}/api/v1/{what}?{urllib.parse.urlencode(parameters)}"
        try:
            with urllib.request.urlopen(url, timeout=30) as answer:
                return json.load(answer)["data"]
        except urllib.error.HTTPError as error:
            raise QueryFailed(f"{parameters.get('query', what)}: {error.read().decode()}") from error

    def _is_ready(self) -> bool:
        try:
            with urllib.request.urlopen(f"{self.url}/-/ready", timeout=2) as answer:
                return bool(answer.status == 200)
        except OSError:
            return False


def _config(targets: Sequence[Target]) -> dict[str, Any]:
    every = f"{SCRAPE_SECONDS}s"
    return {
        "global": {"scrape_interval": every, "scrape_timeout": every, "evaluation_interval": every},
        "rule_files": [str(RULES / "*.yaml")],
        "scrape_configs": [
            {
                "job_name": target.job,
                "metrics_path": target.path,
                "static_configs": [{"targets": [target.address], "labels": dict(target.labels)}],
            }
            for target in targets
        ],
    }


def _series(labels: Mapping[str, str], values: Sequence[tuple[float, str]]) -> Series:
    points = [(float(at), float(value)) for at, value in values]
    return Series(labels, [(at, value) for at, value in points if math.isfinite(value)])
