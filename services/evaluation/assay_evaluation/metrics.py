"""What Prometheus is told about evaluation."""

from __future__ import annotations

from prometheus_client import Counter, Gauge, Histogram

STAGE_SECONDS = Histogram(
    "assay_evaluation_stage_seconds",
    "Wall time of a stage of a study, waiting for other stages not counted.",
    ["kind"],
    buckets=(0.5, 1, 2, 5, 10, 20, 40, 60, 120, 300, 600, 1800, 3600, 14400),
)
STAGES = Counter("assay_evaluation_stages_total", "Stages of studies that ended.", ["kind", "outcome"])
CARDS = Gauge("assay_evaluation_quality_cards", "Models with a quality card.")
SCORED = Counter("assay_evaluation_scored_groups_total", "Groups of answers that came back scored from the reward service over Kafka.")
