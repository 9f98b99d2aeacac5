"""What is counted about Kafka."""

from __future__ import annotations

from collections.abc import Iterable

from prometheus_client import Counter, Gauge, Histogram

RECORDS = Counter(
    "assay_kafka_records",
    "Records of a topic by what became of them: processed, rejected, retried, sent, failed (not sent), unreadable (by a follower).",
    ["topic", "outcome"],
)
DEAD_LETTERS_SENT = Counter("assay_kafka_dead_letters", "Records of a topic that were put to the dead letters.", ["topic"])
BATCH_SECONDS = Histogram(
    "assay_kafka_batch_seconds",
    "Time from reading a batch to its committed transaction.",
    ["group"],
    buckets=(0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 120, 300),
)
LAG = Gauge("assay_kafka_consumer_lag", "Committed records of an assigned partition that are not processed yet.", ["topic", "partition"])


def count_from_zero(topics: Iterable[str]) -> None:
    """Shows what may become of a reader's records before any has: else the first one would be no increase to Prometheus."""
    for topic in topics:
        DEAD_LETTERS_SENT.labels(topic)
        for outcome in ("processed", "rejected", "retried"):
            RECORDS.labels(topic, outcome)
