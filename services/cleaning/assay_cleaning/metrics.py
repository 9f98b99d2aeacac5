"""What the cleaning service counts."""

from __future__ import annotations

from prometheus_client import Counter

from assay_cleaning.categories import Verdict

PAIRS = Counter(
    "assay_cleaning_pairs_total", "Pairs labelled, by category, by what is done with them, and by door.", ["category", "action", "door"]
)


def count(verdict: Verdict, door: str) -> None:
    """Counts a verdict given at a door: grpc, kafka or job."""
    PAIRS.labels(verdict.category.lower(), verdict.action.lower(), door).inc()
