"""What the policy service tells Prometheus."""

from __future__ import annotations

from prometheus_client import Counter, Gauge, Histogram

TOKENS = Counter("assay_policy_tokens", "Tokens read (kind=prompt) and generated (kind=completion).", ["model", "kind"])
ANSWERS = Counter("assay_policy_answers", "Answers generated, by why they end.", ["model", "finish"])
SECONDS = Histogram(
    "assay_policy_generate_seconds",
    "Time of a request for answers, the queue included.",
    ["model"],
    buckets=(0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 120, 300, 600),
)
QUEUED = Gauge("assay_policy_queue_requests", "Requests that wait for the device or take turns on it.")
MODELS = Gauge("assay_policy_models", "Models that are loaded, by backend.", ["backend"])
