"""Settings of the policy service."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from pydantic import Field, SecretStr

from assay_kit.settings import ServiceSettings


class PolicySettings(ServiceSettings):
    """What the policy service can be told beyond what every service can."""

    data_dir: Path = Path(".assay/policy")
    """Folder for the list of loaded models and endpoint.json."""
    policy_preload: dict[str, str] = Field(default_factory=dict)
    """Models to load at start, name to URI, as a JSON object; one that is loaded already stays as it is."""
    policy_device: str = "cpu"
    """torch device of the transformers backend, for example "cpu" or "cuda:0"."""
    policy_dtype: Literal["auto", "float32", "bfloat16", "float16"] = "auto"
    """Type of the weights; auto is float32 on a CPU and the checkpoint's own type elsewhere."""
    policy_chunk_answers: int = Field(default=256, ge=1, le=65536)
    """Answers that the device works on at once. Answers may differ in rounding under another value: keep it the same to repeat a run."""
    policy_queue_requests: int = Field(default=256, ge=1)
    """Requests that may wait for the device; one more is RESOURCE_EXHAUSTED."""
    policy_max_answers: int = Field(default=65536, ge=1)
    """Most answers (prompts times n) of one request."""
    policy_max_new_tokens: int = Field(default=4096, ge=1)
    """Most new tokens a request may ask for."""
    policy_remote_concurrency: int = Field(default=32, ge=1, le=4096)
    """Calls in flight to each generation server."""
    policy_remote_timeout_seconds: float = Field(default=300.0, gt=0)
    """Longest wait for one answer of a generation server."""
    policy_openai_api_key: SecretStr = SecretStr("none")
    """Key sent to OpenAI-compatible servers; most of them ask for none."""
    policy_tgi_token: SecretStr = SecretStr("")
    """Bearer token sent to TGI servers; empty sends none."""
