"""Whether the reward service keeps up, and what its device does."""

from __future__ import annotations

from grafana_foundation_sdk.models.dashboard import Dashboard

from monitoring.board import board
from monitoring.parts import IN, RATE, RED, YELLOW, Query, heat, lines, number

_CALLS = f'{IN}, grpc_service="assay.reward.v1.RewardService"'


def made() -> Dashboard:
    """The dashboard."""
    return board(
        "assay-reward-serving",
        "Reward serving",
        "Throughput, latency, queue, batches, cache and memory of the reward service, and the GPU it runs on.",
        lists="assay_reward_queue_capacity",
        rows=[
            ("Throughput and latency", _throughput()),
            ("Queue", _queue()),
            ("Batches and cache", _batches()),
            ("HTTP door", _http()),
            ("GPU (metrics of the NVIDIA DCGM exporter)", _gpu()),
        ],
    )


def _quantiles(metric: str, by: str = "", *, labels: str = IN) -> list[Query]:
    sums = f"sum by ({by}, le)" if by else "sum by (le)"
    legend = f"{{{{{by}}}}} " if by else ""
    return [
        Query(f"histogram_quantile({q}, {sums} (rate({metric}_bucket{{{labels}}}[{RATE}])))", f"{legend}p{round(100 * q)}")
        for q in (0.5, 0.95, 0.99)
    ]


def _throughput() -> list[object]:
    return [
        lines(
            "Candidates scored, by model",
            "Candidates and items scored a second.",
            Query(f"sum by (model) (rate(assay_reward_candidates_total{{{IN}}}[{RATE}]))", "{{model}}"),
            unit="cps",
            stacked=True,
        ),
        lines(
            "Candidates scored, by door",
            "The same by where they came in: grpc, kafka, http, oip.",
            Query(f"sum by (door) (rate(assay_reward_candidates_total{{{IN}}}[{RATE}]))", "{{door}}"),
            unit="cps",
            stacked=True,
        ),
        lines(
            "Tokens",
            "Useful: of the inputs. Computed: by the device, shared prefixes once. Padded: besides.",
            Query(f"sum by (kind) (rate(assay_reward_tokens_total{{{IN}}}[{RATE}]))", "{{kind}}"),
            unit="cps",
        ),
        lines("Time of calls", "Of the RewardService over gRPC.", *_quantiles("grpc_server_handling_seconds", labels=_CALLS), unit="s"),
        heat(
            "Time of calls",
            "How many calls of the RewardService took how long.",
            Query(f"sum by (le) (increase(grpc_server_handling_seconds_bucket{{{_CALLS}}}[{RATE}]))", "{{le}}"),
        ),
        lines(
            "Answers by code",
            "Calls of the RewardService.",
            Query(f"sum by (grpc_code) (rate(grpc_server_handled_total{{{_CALLS}}}[{RATE}]))", "{{grpc_code}}"),
            unit="reqps",
            stacked=True,
        ),
    ]


def _queue() -> list[object]:
    return [
        number(
            "Queue in use",
            "Candidates waiting or on the device, of the most there may be.",
            Query(f"sum(assay_reward_queue_candidates{{{IN}}}) / sum(assay_reward_queue_capacity{{{IN}}})"),
            unit="percentunit",
            steps=[(0.5, YELLOW), (0.9, RED)],
            width=6,
        ),
        number(
            "Expected wait",
            "Time that all that is admitted should take, by the rates measured.",
            Query(f"max(assay_reward_queue_wait_seconds{{{IN}}})"),
            unit="s",
            steps=[(1, YELLOW), (10, RED)],
            width=6,
        ),
        number("Tokens waiting", "Tokens admitted and not yet on the device.", Query(f"sum(assay_reward_queue_tokens{{{IN}}})"), width=6),
        number(
            "Text held", "Text of the calls that are not done.", Query(f"sum(assay_reward_queue_text_bytes{{{IN}}})"), unit="bytes", width=6
        ),
        lines(
            "Candidates held",
            "Waiting or on the device, by replica.",
            Query(f"assay_reward_queue_candidates{{{IN}}}", "{{instance}}"),
            width=8,
        ),
        lines(
            "Time in the queue",
            "Of a unit of work: from its admission to the device.",
            *_quantiles("assay_reward_queue_seconds"),
            unit="s",
            width=8,
        ),
        lines(
            "Refused and dropped",
            "Candidates refused at the door (the queue is full, or the deadline could not be met) and dropped before the device.",
            Query(f"sum by (reason) (rate(assay_reward_rejected_total{{{IN}}}[{RATE}]))", "refused: {{reason}}"),
            Query(f"sum by (reason) (rate(assay_reward_dropped_total{{{IN}}}[{RATE}]))", "dropped: {{reason}}"),
            unit="cps",
            width=8,
        ),
    ]


def _batches() -> list[object]:
    return [
        lines("Time of a batch", "On the device.", *_quantiles("assay_reward_compute_seconds"), unit="s", width=6),
        lines("Tokens of a batch", "By what its units cost.", *_quantiles("assay_reward_batch_tokens"), width=6),
        lines("Sequences of a batch", "Distinct ones.", *_quantiles("assay_reward_batch_sequences"), width=6),
        lines(
            "Tokens not computed",
            "Share of the inputs' tokens that the device need not compute, by shared prefixes, equal inputs and the cache.",
            Query(
                f'1 - sum(rate(assay_reward_tokens_total{{{IN}, kind="computed"}}[{RATE}])) / '
                f'sum(rate(assay_reward_tokens_total{{{IN}, kind="useful"}}[{RATE}]))',
                "not computed",
            ),
            unit="percentunit",
            width=6,
            minimum=None,
        ),
        lines(
            "Result cache",
            "Inputs looked up, by whether the score was there.",
            Query(f"sum by (outcome) (rate(assay_reward_cache_lookups_total{{{IN}}}[{RATE}]))", "{{outcome}}"),
            unit="cps",
        ),
        lines("Room in use of the cache", "By replica.", Query(f"assay_reward_cache_bytes{{{IN}}}", "{{instance}}"), unit="bytes"),
        lines(
            "Memory of models",
            "What each model's weights take.",
            Query(f"max by (model, revision) (assay_reward_model_memory_bytes{{{IN}}})", "{{model}}"),
            unit="bytes",
            stacked=True,
        ),
    ]


def _http() -> list[object]:
    return [
        lines(
            "HTTP requests",
            "By path and status.",
            Query(f"sum by (path, status) (rate(assay_reward_http_requests_total{{{IN}}}[{RATE}]))", "{{path}} {{status}}"),
            unit="reqps",
            width=12,
        ),
        lines("Time of HTTP requests", "By path.", *_quantiles("assay_reward_http_seconds", "path"), unit="s", width=12),
    ]


def _gpu() -> list[object]:
    node = "max by (Hostname, gpu, modelName)"
    return [
        lines(
            "GPU in use and queue",
            "How busy the GPU of each pod is (1 is all the time), and the share of its queue that is in use: an idle "
            "GPU under a growing queue raises an alert.",
            Query('assay:gpu_utilization:ratio{namespace=~"$namespace"}', "{{pod}}, GPU"),
            Query(f"max by (pod) (assay_reward_queue_candidates{{{IN}}} / assay_reward_queue_capacity{{{IN}}})", "{{pod}}, queue"),
            unit="percentunit",
            maximum=1,
        ),
        lines(
            "GPU memory",
            "In use of each GPU of the nodes.",
            Query(f"{node} (DCGM_FI_DEV_FB_USED) * 1024 * 1024", "{{Hostname}} {{gpu}} ({{modelName}})"),
            unit="bytes",
        ),
        lines(
            "GPU power",
            "Drawn by each GPU of the nodes.",
            Query(f"{node} (DCGM_FI_DEV_POWER_USAGE)", "{{Hostname}} {{gpu}} ({{modelName}})"),
            unit="watt",
        ),
    ]
