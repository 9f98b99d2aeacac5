"""The panels of a dashboard's JSON, and what their queries give."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from monitoring.prometheus import Prometheus, Series

RATE_SECONDS = 10
_VARIABLES = {"$__rate_interval": f"{RATE_SECONDS}s", "$namespace": "assay", "$job": ".*", "$instance": ".*", "$model": ".*"}


@dataclass(frozen=True)
class Target:
    """A query: its expression with the variables filled in, its letter, its legend, and whether only the newest values are asked for."""

    expr: str
    ref: str
    legend: str
    instant: bool


@dataclass(frozen=True)
class Panel:
    """A panel: the row it is in, its place on the grid, its queries, and its JSON."""

    row: str
    title: str
    targets: Sequence[Target]
    json: Mapping[str, Any]


def panels_of(board: Mapping[str, Any]) -> list[Panel]:
    """The panels of a dashboard, row by row."""
    panels, row = [], ""
    for panel in board["panels"]:
        if panel["type"] == "row":
            row = panel["title"]
        else:
            panels.append(Panel(row, panel["title"], [_target(target) for target in panel["targets"]], panel))
    return panels


def seen(prometheus: Prometheus, target: Target, *, start: float, end: float, step: float = 1) -> list[Series]:
    """What a query gives, asked as Grafana asks it.

    Raises:
        QueryFailed: it is no query that Prometheus can answer.
    """
    if target.instant:
        return prometheus.values(target.expr, at=end)
    return prometheus.series(target.expr, start=start, end=end, step=step)


def _target(target: Mapping[str, Any]) -> Target:
    expr = target["expr"]
    for name, value in _VARIABLES.items():
        expr = expr.replace(name, value)
    return Target(expr, target["refId"], target["legendFormat"], bool(target.get("instant")))
