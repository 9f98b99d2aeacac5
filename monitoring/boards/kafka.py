"""What the services see of Kafka."""

from __future__ import annotations

from grafana_foundation_sdk.models.dashboard import Dashboard

from monitoring.board import board
from monitoring.parts import IN, RATE, RED, YELLOW, Query, bars, lines, number


def made() -> Dashboard:
    """The dashboard."""
    return board(
        "assay-kafka",
        "Kafka",
        "Backlog, throughput, transactions and dead letters as the services see them; the brokers have dashboards of their own (Strimzi).",
        lists="assay_kafka_records_total",
        rows=[("Backlog", _backlog()), ("Records", _records()), ("Transactions", _transactions())],
    )


def _outcome(outcome: str) -> str:
    return f'assay_kafka_records_total{{{IN}, outcome="{outcome}"}}'


def _backlog() -> list[object]:
    return [
        number(
            "Backlog",
            "Committed records of all topics that are not processed yet.",
            Query(f"sum(assay_kafka_consumer_lag{{{IN}}})"),
            steps=[(1000, YELLOW), (100000, RED)],
        ),
        number("Processed", "Records processed a second.", Query(f"sum(rate({_outcome('processed')}[{RATE}]))"), unit="cps", decimals=1),
        number(
            "Dead letters, 1 h",
            "Records refused within the hour.",
            Query(f"sum(increase(assay_kafka_dead_letters_total{{{IN}}}[1h]))"),
            steps=[(1, YELLOW)],
            decimals=0,
        ),
        number(
            "Not sent, 1 h",
            "Records that Kafka did not take within the hour.",
            Query(f"sum(increase({_outcome('failed')}[1h]))"),
            steps=[(1, RED)],
            decimals=0,
        ),
        number(
            "Tried again, 1 h",
            "Records whose batch failed by fault of the world, or was dealt anew, and is read again.",
            Query(f"sum(increase({_outcome('retried')}[1h]))"),
            steps=[(1000, YELLOW)],
            decimals=0,
        ),
        number(
            "Quality cards",
            "Models with a quality card, as the evaluation service reads them off the compacted topic.",
            Query('max(assay_evaluation_quality_cards{namespace=~"$namespace"})'),
        ),
        number(
            "Groups scored",
            "Groups of answers that came back to the evaluation service scored, a second.",
            Query(f'sum(rate(assay_evaluation_scored_groups_total{{namespace=~"$namespace"}}[{RATE}]))'),
            unit="cps",
            decimals=1,
            width=6,
        ),
        lines(
            "Backlog by topic",
            "And by the service that reads it.",
            Query(f"sum by (topic, job) (assay_kafka_consumer_lag{{{IN}}})", "{{topic}} ({{job}})"),
            width=12,
        ),
        lines(
            "Change of the backlog",
            "Records a second by which it grows; below 0 it drains.",
            Query(f"sum by (topic) (deriv(assay_kafka_consumer_lag{{{IN}}}[5m]))", "{{topic}}"),
            unit="cps",
            width=12,
            minimum=None,
        ),
        bars(
            "Backlog by partition",
            "The fullest ones: a key that all records share shows here.",
            Query(f"topk(12, sum by (topic, partition) (assay_kafka_consumer_lag{{{IN}}}))", "{{topic}} {{partition}}"),
            width=12,
        ),
        lines(
            "Partitions read",
            "Partitions dealt to the members of each group, by topic.",
            Query(f"count by (topic, job) (assay_kafka_consumer_lag{{{IN}}})", "{{topic}} ({{job}})"),
            width=12,
        ),
    ]


def _records() -> list[object]:
    return [
        lines(
            "Processed",
            "By topic.",
            Query(f"sum by (topic) (rate({_outcome('processed')}[{RATE}]))", "{{topic}}"),
            unit="cps",
            stacked=True,
        ),
        lines(
            "Sent outside transactions",
            "By topic: jobs' events, quality cards, requests of studies.",
            Query(f"sum by (topic) (rate({_outcome('sent')}[{RATE}]))", "{{topic}}"),
            unit="cps",
            stacked=True,
        ),
        lines(
            "Refused, tried again, not sent",
            "By outcome; each refused record is a dead letter.",
            Query(
                f'sum by (outcome) (rate(assay_kafka_records_total{{{IN}, outcome=~"rejected|retried|failed"}}[{RATE}]))',
                "{{outcome}}",
            ),
            unit="cps",
        ),
    ]


def _transactions() -> list[object]:
    batch = f"assay_kafka_batch_seconds_bucket{{{IN}}}"
    return [
        lines(
            "Time of a batch",
            "From reading it to its committed transaction, by group.",
            *[
                Query(f"histogram_quantile({q}, sum by (group, le) (rate({batch}[{RATE}])))", f"{{{{group}}}} p{round(100 * q)}")
                for q in (0.5, 0.99)
            ],
            unit="s",
            width=12,
        ),
        lines(
            "Transactions",
            "Committed a second, by group.",
            Query(f"sum by (group) (rate(assay_kafka_batch_seconds_count{{{IN}}}[{RATE}]))", "{{group}}"),
            unit="ops",
            width=6,
        ),
        lines(
            "Dead letters",
            "By topic.",
            Query(f"sum by (topic) (rate(assay_kafka_dead_letters_total{{{IN}}}[{RATE}]))", "{{topic}}"),
            unit="cps",
            width=6,
        ),
    ]
