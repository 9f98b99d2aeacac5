"""Settings of the training service."""

from __future__ import annotations

from pydantic import Field

from assay_kit.settings import ServiceSettings


class TrainingSettings(ServiceSettings):
    """What the training service can be told, besides what every service can."""

    training_concurrency: int = Field(default=2, ge=1, le=64)
    """Runs at once; further jobs wait."""
    training_restarts: int = Field(default=3, ge=0, le=100)
    """How often a run whose process was killed is started again from its newest checkpoint."""
    training_reward_patience_seconds: float = Field(default=120.0, gt=0)
    """How long a PPO run waits for a reward service that is away, for each batch of rewards."""
