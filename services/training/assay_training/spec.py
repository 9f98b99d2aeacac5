"""What is asked for (the request as JSON, also the job's spec) and what one run of the child process is given."""

from __future__ import annotations

from collections.abc import Mapping
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any, Self

from pydantic import BaseModel, ConfigDict, Field, model_validator

Rate = Annotated[float, Field(ge=0.0, le=1.0)]
Count = Annotated[int, Field(ge=0)]
_Named: Any = Field(default="", min_length=1, validate_default=True)
"""A name that must be there; protobuf's JSON leaves out what is empty."""


class _Model(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)


class ScratchModel(_Model):
    """A causal LM made from nothing."""

    vocab_size: int = Field(ge=300, le=65_536)
    """Size of the byte-level BPE; the 256 bytes and the special tokens are part of it."""
    hidden_size: int = Field(ge=8, le=4_096)
    layers: int = Field(ge=1, le=64)
    heads: int = Field(ge=1, le=64)
    max_context_tokens: int = Field(ge=16, le=131_072)

    @model_validator(mode="after")
    def _heads_divide_width(self) -> Self:
        if self.hidden_size % (2 * self.heads):
            raise ValueError(f"hidden_size {self.hidden_size} must be a multiple of twice heads ({2 * self.heads})")
        return self


class OptimizerOptions(_Model):
    """How to optimise; 0 stands for the algorithm's default."""

    learning_rate: float = Field(default=0.0, ge=0.0, le=10.0)
    epochs: float = Field(default=0.0, ge=0.0, le=1_000.0)
    max_steps: Count = 0
    batch_size: Count = 0
    max_length: Count = 0
    checkpoint_steps: Count = 0

    def with_defaults(self, defaults: OptimizerOptions) -> OptimizerOptions:
        """The options with the defaults in the place of zeros."""
        asked = {name: value for name, value in self.model_dump().items() if value}
        return defaults.model_copy(update=asked)


class Gate(_Model):
    """What is asked of the reward model before anything is optimised against it."""

    reward_model: str = _Named
    min_accuracy_low: Rate = 0.0
    """0 means 0.5."""
    override_reason: str = ""


class SftSpec(_Model):
    """Supervised fine-tuning."""

    model_uri: str = ""
    scratch: ScratchModel | None = None
    data_uri: str = _Named
    include_rejected: bool = False

    @model_validator(mode="after")
    def _one_base(self) -> Self:
        if bool(self.model_uri) == (self.scratch is not None):
            raise ValueError("set either model_uri or scratch, and only one of them")
        return self


class RewardModelKind(StrEnum):
    """What a reward model is made of; the values are the names in the contract."""

    UNSPECIFIED = "REWARD_MODEL_KIND_UNSPECIFIED"
    SEQUENCE_CLASSIFIER = "REWARD_MODEL_KIND_SEQUENCE_CLASSIFIER"
    BAG_OF_WORDS = "REWARD_MODEL_KIND_BAG_OF_WORDS"


class RewardModelSpec(_Model):
    """A Bradley-Terry reward model."""

    kind: RewardModelKind = RewardModelKind.UNSPECIFIED
    model_uri: str = ""
    data_uri: str = _Named
    label_flip_rate: Rate = 0.0

    @model_validator(mode="after")
    def _base_fits_kind(self) -> Self:
        if self.kind != RewardModelKind.BAG_OF_WORDS and not self.model_uri:
            raise ValueError("model_uri: a sequence classifier needs the folder or hub id of a causal LM to start from")
        return self


class DpoSpec(_Model):
    """Direct preference optimisation."""

    model_uri: str = _Named
    data_uri: str = _Named
    beta: float = Field(default=0.0, ge=0.0, le=100.0)
    gate: Gate | None = None


class PpoSpec(_Model):
    """Proximal policy optimisation against a model of the reward service."""

    model_uri: str = _Named
    data_uri: str = _Named
    gate: Gate
    beta: float = Field(default=0.0, ge=0.0, le=100.0)
    rollout_size: Count = 0
    rollouts: Count = 0
    epochs_per_rollout: Count = 0
    max_new_tokens: Count = 0
    snapshot_rollouts: Count = 0

    @model_validator(mode="after")
    def _rollout_divides(self) -> Self:
        if self.rollout_size % 4:
            raise ValueError(f"rollout_size {self.rollout_size} must be a multiple of 4, the answers a prompt")
        return self


AlgorithmSpec = SftSpec | RewardModelSpec | DpoSpec | PpoSpec


class TrainingRequest(_Model):
    """CreateTrainingJobRequest as JSON; exactly one of the four specs is set."""

    job_id: str = ""
    sft: SftSpec | None = None
    reward_model: RewardModelSpec | None = None
    dpo: DpoSpec | None = None
    ppo: PpoSpec | None = None
    optimizer: OptimizerOptions = OptimizerOptions()
    output_uri: str = _Named
    seed: int = Field(default=0, ge=0, lt=2**32)
    """NumPy takes seeds below 2^32."""
    threads: int = Field(default=0, ge=0, le=256)
    limit: Count = 0

    @model_validator(mode="after")
    def _one_spec(self) -> Self:
        chosen = [name for name in ("sft", "reward_model", "dpo", "ppo") if getattr(self, name) is not None]
        if len(chosen) != 1:
            raise ValueError(f"spec: set exactly one of sft, reward_model, dpo and ppo; got {', '.join(chosen) or 'none'}")
        return self

    @property
    def algorithm(self) -> str:
        """Name of the spec that is set: "sft", "reward_model", "dpo" or "ppo"."""
        return next(name for name in ("sft", "reward_model", "dpo", "ppo") if getattr(self, name) is not None)

    @property
    def spec(self) -> AlgorithmSpec:
        """The spec that is set."""
        spec: AlgorithmSpec = getattr(self, self.algorithm)
        return spec

    @property
    def gate(self) -> Gate | None:
        """The gate, where the algorithm has one."""
        return getattr(self.spec, "gate", None)

    @property
    def base_uri(self) -> str:
        """Folder or hub id of the model that training starts from; empty for a model made from nothing."""
        return getattr(self.spec, "model_uri", "")


class RunSpec(_Model):
    """All that `python -m assay_training.run` needs; written by the job as <work_dir>/spec.json."""

    request: TrainingRequest
    work_dir: Path
    """Checkpoints, snapshots and the log of the run; removed when the job is over."""
    reward_target: str = ""
    """host:port of the reward service; only PPO asks it."""
    tls_dir: Path | None = None
    """Folder with the certificate to show it, as `assay_client.channels.Security.from_folder` reads it; None: plaintext."""
    reward_fingerprint: str = ""
    """Of the reward model that the gate looked at; scores of another one end the run."""
    reward_patience_s: float = Field(default=120.0, gt=0.0)
    """How long one batch of rewards may wait for a reward service that is away, in seconds."""
    reward_mean: float = 0.0
    """Mean raw score by the quality card; rewards are (raw - mean) / std."""
    reward_std: float = Field(default=1.0, gt=0.0)
    """Standard deviation of the raw score by the quality card; 1 without a card."""
    gate_verdict: Mapping[str, Any] | None = None
    """assay.training.v1.GateVerdict as JSON; None where no gate was asked for."""
