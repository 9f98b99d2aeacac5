"""One run as an algorithm sees it: what it is given, what it tells, and what it hands back."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from typing import IO, Any

from assay_data.conversations import PreferencePair
from assay_data.pairs import read_pairs
from assay_training.spec import OptimizerOptions, RunSpec, TrainingRequest


class TrainingError(Exception):
    """A run that cannot go on: the message says what is wrong and what would be right."""


class Reporter:
    """Writes progress as JSON lines: {"stage", "done", "total", "unit", "message", "metrics"}."""

    def __init__(self, stream: IO[str]) -> None:
        self._stream = stream

    def progress(
        self,
        stage: str,
        done: int = 0,
        total: int = 0,
        *,
        unit: str = "steps",
        message: str = "",
        metrics: Mapping[str, float] | None = None,
    ) -> None:
        """Tells how far the run is; `metrics` are finite numbers."""
        self._write({"stage": stage, "done": done, "total": total, "unit": unit, "message": message, "metrics": dict(metrics or {})})

    def error(self, message: str) -> None:
        """Tells why the run ends without a model."""
        self._write({"error": message})

    def _write(self, line: Mapping[str, Any]) -> None:
        print(json.dumps(line, ensure_ascii=False), file=self._stream, flush=True)


@dataclass(frozen=True, kw_only=True)
class Run:
    """What an algorithm is given."""

    spec: RunSpec
    options: OptimizerOptions
    """The request's options with the algorithm's defaults filled in."""
    reporter: Reporter
    resume: bool = True
    """Whether to go on from the newest whole checkpoint, where there is one."""

    @property
    def request(self) -> TrainingRequest:
        """What was asked for."""
        return self.spec.request

    @property
    def checkpoints(self) -> Path:
        """Folder of the checkpoints."""
        return self.spec.work_dir / "checkpoints"

    @property
    def snapshots(self) -> Path:
        """Folder of the policies saved on the way."""
        return self.spec.work_dir / "snapshots"

    def pairs(self) -> Iterator[PreferencePair]:
        """The pairs of the data, at most `limit` of them, in the order of the file; DataError names a bad row."""
        pairs = read_pairs(self.request.spec.data_uri)
        return islice(pairs, self.request.limit) if self.request.limit else iter(pairs)


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """What an algorithm hands back."""

    save: Callable[[Path], None]
    """Writes the model, as `save_pretrained` would, into a folder that is empty."""
    steps: int
    """Optimiser steps of the whole run."""
    metrics: Mapping[str, float]
    """Figures of the end of the run."""
    facts: Mapping[str, Any] = field(default_factory=dict)
    """What the lineage should also say: rows used and left out, labels flipped, snapshots."""
