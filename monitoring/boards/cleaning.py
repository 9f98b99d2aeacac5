"""What cleaning finds, and how fast."""

from __future__ import annotations

from grafana_foundation_sdk.models.dashboard import Dashboard

from monitoring.board import board
from monitoring.parts import IN, RATE, YELLOW, Query, bars, lines, number

_PAIRS = f"assay_cleaning_pairs_total{{{IN}}}"
_NOT_KEPT = f'assay_cleaning_pairs_total{{{IN}, action!="keep"}}'


def made() -> Dashboard:
    """The dashboard."""
    return board(
        "assay-cleaning",
        "Cleaning",
        "Pairs that the cleaning service labels: what noise it finds, what is done with them, how fast, and what waits.",
        lists="assay_cleaning_pairs_total",
        rows=[("What it finds", _found()), ("How fast", _speed())],
    )


def _found() -> list[object]:
    return [
        number("Pairs labelled, 1 h", "By all doors.", Query(f"sum(increase({_PAIRS}[1h]))"), width=4, decimals=0),
        number(
            "Not kept, 1 h",
            "Share of pairs that are dropped or turned round.",
            Query(f"(sum(increase({_NOT_KEPT}[1h])) or vector(0)) / sum(increase({_PAIRS}[1h]))"),
            unit="percentunit",
            width=4,
            steps=[(0.3, YELLOW)],
        ),
        bars(
            "Categories, 1 h",
            "Pairs by what was found.",
            Query(f"sort_desc(sum by (category) (increase({_PAIRS}[1h])))", "{{category}}"),
            width=8,
        ),
        bars(
            "Actions, 1 h",
            "Pairs by what is done with them.",
            Query(f"sort_desc(sum by (action) (increase({_PAIRS}[1h])))", "{{action}}"),
            width=8,
        ),
        lines(
            "Share of each category",
            "Of the pairs labelled; a change of the source shows here.",
            Query(
                f"sum by (category) (rate({_PAIRS}[{RATE}])) / ignoring (category) group_left sum(rate({_PAIRS}[{RATE}]))", "{{category}}"
            ),
            unit="percentunit",
            width=12,
            stacked=True,
            maximum=1,
        ),
        lines(
            "Pairs not kept",
            "By category.",
            Query(f"sum by (category) (rate({_NOT_KEPT}[{RATE}]))", "{{category}}"),
            unit="cps",
            width=12,
        ),
    ]


def _speed() -> list[object]:
    call = f'{IN}, grpc_service="assay.cleaning.v1.CleaningService"'
    topic = f'{IN}, topic="assay.preferences.raw.v1"'
    return [
        lines(
            "Pairs labelled, by door",
            "grpc, kafka, or a job over a dataset.",
            Query(f"sum by (door) (rate({_PAIRS}[{RATE}]))", "{{door}}"),
            unit="cps",
            stacked=True,
        ),
        lines(
            "Time of calls",
            "By method.",
            Query(
                f"histogram_quantile(0.99, sum by (grpc_method, le) (rate(grpc_server_handling_seconds_bucket{{{call}}}[{RATE}])))",
                "{{grpc_method}} p99",
            ),
            unit="s",
        ),
        lines(
            "Raw pairs waiting",
            "Records of assay.preferences.raw.v1 not labelled yet.",
            Query(f"sum(assay_kafka_consumer_lag{{{topic}}})", "waiting"),
        ),
        lines(
            "Records of raw pairs",
            "By what became of them.",
            Query(f"sum by (outcome) (rate(assay_kafka_records_total{{{topic}}}[{RATE}]))", "{{outcome}}"),
            unit="cps",
            width=12,
        ),
        lines(
            "Jobs",
            "Cleaning and committee jobs at work.",
            Query(f'sum by (kind) (assay_jobs_running{{{IN}, kind=~"clean|committee"}})', "{{kind}}"),
            width=12,
        ),
    ]
