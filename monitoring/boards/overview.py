"""Is all well, and if not, where to look."""

from __future__ import annotations

from grafana_foundation_sdk.models.dashboard import Dashboard

from monitoring.board import board
from monitoring.parts import BLUE, GREEN, IN, RATE, RED, YELLOW, Query, lines, number, rows

_CALLS = f'grpc_server_handled_total{{{IN}, grpc_service=~"assay\\\\..+"}}'
_FAILED = (
    f'grpc_server_handled_total{{{IN}, grpc_service=~"assay\\\\..+", grpc_code=~"Unknown|Internal|Unavailable|DataLoss|DeadlineExceeded"}}'
)


def made() -> Dashboard:
    """The dashboard."""
    return board(
        "assay-overview",
        "Overview",
        "The five services at a glance: are they there, do calls go well, does work pile up, which alerts fire.",
        lists="assay_service_ready",
        rows=[("State", _state()), ("Calls", _calls()), ("Work", _work()), ("Processes", _processes())],
    )


def _state() -> list[object]:
    return [
        number("Ready replicas", "Replicas that take calls.", Query(f"sum(assay_service_ready{{{IN}}})"), steps=[(0, RED), (1, GREEN)]),
        number(
            "Not ready",
            "Replicas that are alive and take no calls: they start or drain.",
            Query(f"count(assay_service_ready{{{IN}}}) - sum(assay_service_ready{{{IN}}})"),
            steps=[(1, YELLOW)],
        ),
        number("Calls", "gRPC calls answered, of all services.", Query(f"sum(rate({_CALLS}[{RATE}]))"), unit="reqps", decimals=1),
        number(
            "Failing calls",
            "Share of calls that failed by fault of a service.",
            Query(f"(sum(rate({_FAILED}[{RATE}])) or vector(0)) / sum(rate({_CALLS}[{RATE}]))"),
            unit="percentunit",
            steps=[(0.001, YELLOW), (0.01, RED)],
        ),
        number(
            "Backlog",
            "Records in Kafka that are committed and not processed yet.",
            Query(f"sum(assay_kafka_consumer_lag{{{IN}}})"),
            steps=[(1000, YELLOW), (100000, RED)],
            url="/d/assay-kafka",
        ),
        number(
            "Dead letters, 1 h",
            "Records that were refused within the hour.",
            Query(f"sum(increase(assay_kafka_dead_letters_total{{{IN}}}[1h]))"),
            steps=[(1, YELLOW)],
            decimals=0,
            url="/d/assay-kafka",
        ),
        number(
            "Scores",
            "Candidates scored by all reward models.",
            Query(f"sum(rate(assay_reward_candidates_total{{{IN}}}[{RATE}]))"),
            unit="cps",
            decimals=1,
            url="/d/assay-reward-serving",
        ),
        number("Jobs at work", "Jobs that run now.", Query(f"sum(assay_jobs_running{{{IN}}})"), steps=[(0, BLUE)], url="/d/assay-training"),
        rows(
            "Alerts that fire",
            "Alerts of Assay's rules that fire now; what to do about each is in docs/monitoring.md.",
            {
                "replicas": (
                    Query(
                        "count by (alertname, severity, namespace) "
                        '(ALERTS{alertname=~"Assay.+", alertstate="firing", namespace=~"$namespace"})'
                    ),
                    "short",
                )
            },
            height=6,
        ),
    ]


def _calls() -> list[object]:
    return [
        lines(
            "Calls",
            "gRPC calls answered, by service.",
            Query(f"sum by (job) (rate({_CALLS}[{RATE}]))", "{{job}}"),
            unit="reqps",
            stacked=True,
        ),
        lines(
            "Answers that are not OK",
            "gRPC calls that ended otherwise, by code; codes such as InvalidArgument are the callers' own.",
            Query(f'sum by (grpc_code) (rate(grpc_server_handled_total{{{IN}, grpc_code!="OK"}}[{RATE}]))', "{{grpc_code}}"),
            unit="reqps",
        ),
        lines(
            "99th percentile of unary calls",
            "Time within which 99 of 100 unary calls are answered, by service.",
            Query(
                "histogram_quantile(0.99, sum by (job, le) "
                f'(rate(grpc_server_handling_seconds_bucket{{{IN}, grpc_type="unary"}}[{RATE}])))',
                "{{job}}",
            ),
            unit="s",
            log=True,
            minimum=None,
        ),
        lines(
            "Burn rate of the error budget, 1 h",
            "How many times faster than 30 days allow the budget of failing calls (0.1 %) is used; 14.4 for an hour raises an alert.",
            Query('assay:grpc_errors:ratio_rate1h{namespace=~"$namespace", job=~"$job"} / 0.001', "{{job}}: {{grpc_service}}"),
            width=12,
            steps=[(1, YELLOW), (14.4, RED)],
        ),
        lines(
            "Burn rate of the latency budget, 1 h",
            "The same of slow calls (1 %); thresholds by service are in docs/monitoring.md.",
            Query('assay:grpc_slow:ratio_rate1h{namespace=~"$namespace", job=~"$job"} / 0.01', "{{job}}: {{grpc_service}}"),
            width=12,
            steps=[(1, YELLOW), (14.4, RED)],
        ),
    ]


def _work() -> list[object]:
    return [
        lines("Backlog", "Records not processed yet, by topic.", Query(f"sum by (topic) (assay_kafka_consumer_lag{{{IN}}})", "{{topic}}")),
        lines("Jobs at work", "By kind.", Query(f"sum by (kind) (assay_jobs_running{{{IN}}})", "{{kind}}"), stacked=True),
        lines(
            "Jobs that ended",
            "By how they ended.",
            Query(f"sum by (state) (increase(assay_jobs_ended_total{{{IN}}}[{RATE}]))", "{{state}}"),
        ),
    ]


def _processes() -> list[object]:
    return [
        lines(
            "Memory",
            "Resident memory of each replica.",
            Query(f"process_resident_memory_bytes{{{IN}}}", "{{job}} {{instance}}"),
            unit="bytes",
        ),
        lines(
            "Processor",
            "Cores in use of each replica.",
            Query(f"rate(process_cpu_seconds_total{{{IN}}}[{RATE}])", "{{job}} {{instance}}"),
            unit="cores",
        ),
        lines(
            "Age",
            "Time since each replica was started; it falls where one was started again.",
            Query(f"time() - process_start_time_seconds{{{IN}}}", "{{job}} {{instance}}"),
            unit="s",
        ),
    ]
