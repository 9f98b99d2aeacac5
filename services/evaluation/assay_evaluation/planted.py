"""What cleaning found against what was planted, where the data says what was."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from assay_data.conversations import PreferencePair
from assay_evaluation.statistics import wilson

PLANTED = "planted_category"


def planted_truth(pairs: Sequence[PreferencePair], rows: Sequence[Mapping[str, Any]]) -> dict[str, Any] | None:
    """Precision and recall of each category with Wilson intervals.

    Args:
        pairs: The pairs, with the planted category in their metadata.
        rows: Verdicts in the same order; `category` in lower case.

    Returns:
        Figures by category that was planted or found; None where nothing was planted.
    """
    truths = [pair.metadata.get(PLANTED, "").lower() for pair in pairs]
    if not all(truths):
        return None
    found = [row["category"] for row in rows]
    figures = {}
    for category in sorted({*truths, *found}):
        hits = sum(truth == verdict == category for truth, verdict in zip(truths, found, strict=True))
        figures[category] = {
            "precision": wilson(hits, found.count(category)).as_dict(),
            "recall": wilson(hits, truths.count(category)).as_dict(),
        }
    return figures
