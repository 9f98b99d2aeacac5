"""Settings of the cleaning service."""

from __future__ import annotations

from pydantic import Field

from assay_cleaning.categories import DEFAULT_MIN_FLIP_CONFIDENCE
from assay_kit.settings import ServiceSettings


class CleaningSettings(ServiceSettings):
    """What the cleaning service can be told."""

    cleaning_min_flip_confidence: float = Field(default=DEFAULT_MIN_FLIP_CONFIDENCE, gt=0, le=1)
    """Least probability that a record is wrong at which a pair is turned round, where a request names none."""
    cleaning_calls_at_once: int = Field(default=16, ge=1)
    """LabelPairs calls at work or waiting; one more is refused with RESOURCE_EXHAUSTED."""
    cleaning_jobs_at_once: int = Field(default=1, ge=1)
    """Jobs of one kind at work; the others wait."""
    cleaning_batch: int = Field(default=64, ge=1, le=10_000)
    """Most pairs in one Kafka transaction."""
