"""The reward service's own metrics; those of RPCs are the kit's."""

from __future__ import annotations

from prometheus_client import Counter, Histogram

_SECONDS = (0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60)
_SCORES = (-30.0, -20.0, -10.0, -5.0, -3.0, -2.0, -1.0, -0.5, 0.0, 0.5, 1.0, 2.0, 3.0, 5.0, 10.0, 20.0, 30.0)

CANDIDATES = Counter("assay_reward_candidates", "Candidates and items scored.", ["model", "door"])
SCORE = Histogram("assay_reward_score", "Raw scores.", ["model"], buckets=_SCORES)
TRUNCATED = Counter("assay_reward_truncated", "Candidates and items of which tokens were dropped.", ["model"])
TOKENS = Counter("assay_reward_tokens", "Tokens: useful (of the inputs), computed (by the device), padded (besides).", ["model", "kind"])
QUEUE_SECONDS = Histogram("assay_reward_queue_seconds", "Time of a unit of work in the queue.", buckets=_SECONDS)
COMPUTE_SECONDS = Histogram("assay_reward_compute_seconds", "Time of a unit of work on the device.", buckets=_SECONDS)
DROPPED = Counter("assay_reward_dropped", "Candidates dropped before the device.", ["reason"])
REJECTED = Counter("assay_reward_rejected", "Candidates refused because the queue was full.")
