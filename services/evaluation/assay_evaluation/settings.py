"""Settings of the evaluation service."""

from __future__ import annotations

from pathlib import Path

from pydantic import Field

from assay_kit.settings import ServiceSettings


class EvaluationSettings(ServiceSettings):
    """What the evaluation service can be told, as ASSAY_… environment variables."""

    data_dir: Path = Path(".assay/evaluation")
    """Folder for jobs and for outputs that no folder was named for."""
    evaluation_patience_seconds: float = Field(default=300.0, ge=0)
    """How long a job waits for a service that is away before it fails."""
    evaluation_stages_at_once: int = Field(default=48, ge=2)
    """Stages of studies at work or waiting for others at the same time."""
