"""Settings of the reward service."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from assay_kit.settings import ServiceSettings


class RewardSettings(ServiceSettings):
    """What the reward service can be told, besides what every service can."""

    reward_preload: dict[str, str] = Field(default_factory=dict)
    """Models to load at start, name to URI, as a JSON object; one that is remembered already stays as it is."""
    reward_queue_candidates: int = Field(default=8192, ge=1)
    """Most candidates waiting or on the device; a call beyond that is RESOURCE_EXHAUSTED at once."""
    reward_queue_tokens: int = Field(default=4 * 1024 * 1024, ge=1)
    """Most tokens of calls that are not done, of a large call only what is tokenised at a time; about 40 bytes each."""
    reward_queue_mib: int = Field(default=256, ge=1)
    """Most text of calls that are not done, in MiB."""
    reward_batch_tokens: int = Field(default=0, ge=0)
    """Most tokens of one batch of the device, which may be of several calls; 0: 4096 on a CPU, 16384 on a GPU."""
    reward_max_candidates: int = Field(default=256, ge=1, le=4096)
    """Most candidates of one group."""
    reward_max_input_tokens: int = Field(default=0, ge=0)
    """Longest input in tokens, where the model itself takes more; 0 leaves it to the model."""
    reward_max_text_bytes: int = Field(default=1024 * 1024, ge=1)
    """Largest text of one candidate or item with its conversation, in bytes of UTF-8."""
    reward_device: Literal["auto", "cpu", "cuda"] = "auto"
    """Device of sequence classifiers; auto takes a GPU where there is one."""
    reward_dtype: Literal["float32", "bfloat16", "float16"] = "float32"
    """Type of the weights on the device."""
    reward_memory_mib: int = Field(default=0, ge=0)
    """Memory that all models may take together, in MiB; 0 sets no limit. Loading one that does not fit is RESOURCE_EXHAUSTED."""
    reward_evict: bool = False
    """Whether the least recently used models without an alias and without calls in flight leave memory for one that does not fit."""
    reward_stream_batches: int = Field(default=16, ge=1)
    """Batches of one ScoreStream that are worked on at a time."""
    reward_drift_scores: int = Field(default=10_000, ge=100, le=1_000_000)
    """Newest scores of each model that are held against its quality card; about 100 bytes each."""
    reward_cache_mib: int = Field(default=0, ge=0)
    """Room for scores computed before, in MiB; 0 keeps none. About 3,000 scores fit into one."""
    reward_http_host: str = "127.0.0.1"
    """Address the HTTP door listens on."""
    reward_http_port: int | None = Field(default=None, ge=0, le=65535)
    """Port of the HTTP door; 0 takes a free one, and without a port there is no such door."""
    reward_http_timeout_seconds: float = Field(default=180.0, gt=0)
    """Longest time of an HTTP request; a caller may ask for less."""
    reward_judge_concurrency: int = Field(default=16, ge=1, le=1024)
    """Most requests in flight to one generative judge."""
    reward_judge_timeout_seconds: float = Field(default=60.0, gt=0)
    """Longest wait for one answer of a generative judge."""
