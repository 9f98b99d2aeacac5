"""The kinds of stage a study can have and what each may say; what they do is in `stages/`.

A field that names another stage is marked with `Ref`, which says what it wants of that stage. "split.train" means the output `train` of
the stage `split`; a name alone means the stage's only output of the kind that is wanted.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, ClassVar, Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator


@dataclass(frozen=True)
class Ref:
    """Marks a field as the name of another stage's output of this kind, for example "pairs" or "policy"."""

    wants: str


PairsRef = Annotated[str, Ref("pairs")]
PolicyRef = Annotated[str, Ref("policy")]
RewardModelRef = Annotated[str, Ref("reward_model")]
SamplesRef = Annotated[str, Ref("samples")]


class Strict(BaseModel):
    """Refuses keys it does not know."""

    model_config = ConfigDict(extra="forbid", frozen=True)


class Optimizer(Strict):
    """How to optimise; what is left out is the training service's default."""

    learning_rate: float = Field(default=0.0, ge=0)
    epochs: float = Field(default=0.0, ge=0)
    max_steps: int = Field(default=0, ge=0)
    batch_size: int = Field(default=0, ge=0)
    max_length: int = Field(default=0, ge=0)
    checkpoint_steps: int = Field(default=0, ge=0)


class Scratch(Strict):
    """A causal LM made from nothing."""

    vocab_size: int = Field(default=2048, ge=300)
    hidden_size: int = Field(default=96, ge=8)
    layers: int = Field(default=3, ge=1)
    heads: int = Field(default=4, ge=1)
    max_context_tokens: int = Field(default=256, ge=32)


class Gate(Strict):
    """What is asked of the reward model before a policy is optimised against it.

    Attributes:
        benchmark: Benchmark that publishes the reward model's quality card.
        min_accuracy_low: Least lower bound of the accuracy's 95 % interval; 0 means better than a coin.
        override_reason: Train although the gate fails, for this reason, which is recorded.
    """

    benchmark: Annotated[str, Ref("benchmark")]
    min_accuracy_low: float = Field(default=0.0, ge=0, le=1)
    override_reason: str = ""


class Clean(Strict):
    """Sends the study's data through the cleaning service."""

    outputs: ClassVar[dict[str, str]] = {"kept": "pairs", "flipped": "pairs", "labelled": "labelled"}
    default: ClassVar[str] = "labelled"
    kind: Literal["clean"]
    committee: bool = True
    min_flip_confidence: float = Field(default=0.0, ge=0, le=1)


class Split(Strict):
    """Holds out whole prompts, chosen by the hash of the prompt and the seed.

    Pairs stay as people labelled them; those that cleaning dropped are left out.
    """

    outputs: ClassVar[dict[str, str]] = {"train": "pairs", "held_out": "pairs"}
    default: ClassVar[str] = "train"
    kind: Literal["split"]
    labelled: Annotated[str, Ref("labelled")]
    held_out_prompts: int = Field(ge=1)
    prompt: Literal["whole", "last_turn"] = "whole"


class Sft(Strict):
    """Supervised fine-tuning."""

    outputs: ClassVar[dict[str, str]] = {"model": "policy"}
    default: ClassVar[str] = "model"
    kind: Literal["sft"]
    data: PairsRef
    scratch: Scratch | None = None
    model_uri: str = ""
    include_rejected: bool = False
    optimizer: Optimizer = Optimizer()
    threads: int = Field(default=1, ge=1)

    @model_validator(mode="after")
    def _one_base(self) -> Sft:
        if (self.scratch is None) == (not self.model_uri):
            raise ValueError("give either scratch or model_uri")
        return self


class RewardModel(Strict):
    """A Bradley-Terry reward model."""

    outputs: ClassVar[dict[str, str]] = {"model": "reward_model"}
    default: ClassVar[str] = "model"
    kind: Literal["reward_model"]
    model: Literal["sequence_classifier", "bag_of_words"] = "sequence_classifier"
    base: PolicyRef | None = None
    model_uri: str = ""
    data: PairsRef
    label_flip_rate: float = Field(default=0.0, ge=0, le=1)
    optimizer: Optimizer = Optimizer()
    threads: int = Field(default=1, ge=1)

    @model_validator(mode="after")
    def _one_base(self) -> RewardModel:
        bases = (self.base is not None) + bool(self.model_uri)
        if self.model == "bag_of_words" and bases:
            raise ValueError("a bag of words starts from nothing: leave base and model_uri out")
        if self.model == "sequence_classifier" and bases != 1:
            raise ValueError("a sequence classifier starts from a causal LM: give either base or model_uri")
        return self


class Sample(Strict):
    """Samples answers of a policy."""

    outputs: ClassVar[dict[str, str]] = {"samples": "samples"}
    default: ClassVar[str] = "samples"
    kind: Literal["sample"]
    policy: PolicyRef
    prompts: PairsRef
    limit: int = Field(default=0, ge=0)
    n: int = Field(default=8, ge=1, le=256)
    max_new_tokens: int = Field(default=48, ge=1)
    min_new_tokens: int = Field(default=0, ge=0)
    temperature: float = Field(default=1.0, ge=0)
    chunk_prompts: int = Field(default=32, ge=1, le=1024)


class Label(Strict):
    """Makes preference pairs from samples, by the scores of a judge.

    `choose: random` pairs random samples of a prompt, `pairs` in all; `choose: best_and_worst` takes the two ends of each prompt.
    """

    outputs: ClassVar[dict[str, str]] = {"pairs": "pairs"}
    default: ClassVar[str] = "pairs"
    kind: Literal["label"]
    samples: SamplesRef
    judge: RewardModelRef
    choose: Literal["random", "best_and_worst"] = "random"
    pairs: int = Field(default=0, ge=0)


class Benchmark(Strict):
    """Measures reward models on comparisons and publishes their quality cards."""

    outputs: ClassVar[dict[str, str]] = {"leaderboard": "benchmark"}
    default: ClassVar[str] = "leaderboard"
    kind: Literal["benchmark"]
    reward_models: list[RewardModelRef] = Field(min_length=1, max_length=64)
    comparisons: PairsRef
    samples: SamplesRef | None = None
    gold: RewardModelRef | None = None
    publish_cards: bool = True

    @model_validator(mode="after")
    def _both_or_none(self) -> Benchmark:
        if (self.samples is None) != (self.gold is None):
            raise ValueError("the on-policy correlation needs both samples and gold")
        return self


class BestOfN(Strict):
    """Lets reward models choose among samples, and asks gold what the chosen are worth."""

    outputs: ClassVar[dict[str, str]] = {"curves": "best_of_n"}
    default: ClassVar[str] = "curves"
    kind: Literal["best_of_n"]
    samples: SamplesRef
    reward_models: list[RewardModelRef] = Field(min_length=1, max_length=64)
    gold: RewardModelRef


class Dpo(Strict):
    """Direct preference optimisation on pairs that a reward model or people have labelled."""

    outputs: ClassVar[dict[str, str]] = {"model": "policy"}
    default: ClassVar[str] = "model"
    kind: Literal["dpo"]
    policy: PolicyRef
    data: PairsRef
    reward_model: RewardModelRef | None = None
    gate: Gate | None = None
    beta: float = Field(default=0.1, gt=0)
    optimizer: Optimizer = Optimizer()
    threads: int = Field(default=1, ge=1)

    @model_validator(mode="after")
    def _gate_with_model(self) -> Dpo:
        if (self.gate is None) != (self.reward_model is None):
            raise ValueError("where a reward model wrote the labels, give reward_model and gate; else neither")
        return self


class Ppo(Strict):
    """Proximal policy optimisation against a reward model."""

    outputs: ClassVar[dict[str, str]] = {"model": "policy"}
    default: ClassVar[str] = "model"
    kind: Literal["ppo"]
    policy: PolicyRef
    prompts: PairsRef
    reward_model: RewardModelRef
    gate: Gate
    beta: float = Field(default=0.05, gt=0)
    rollout_size: int = Field(default=64, ge=4, multiple_of=4)
    rollouts: int = Field(default=10, ge=1)
    epochs_per_rollout: int = Field(default=2, ge=1)
    max_new_tokens: int = Field(default=48, ge=1)
    snapshot_rollouts: int = Field(default=0, ge=0)
    optimizer: Optimizer = Optimizer()
    threads: int = Field(default=1, ge=1)


class EvaluatePolicies(Strict):
    """Judges policies by gold on held-out prompts; PPO's snapshots too."""

    outputs: ClassVar[dict[str, str]] = {"metrics": "evaluation"}
    default: ClassVar[str] = "metrics"
    kind: Literal["evaluate_policies"]
    policies: list[PolicyRef] = Field(min_length=1, max_length=64)
    reference: PolicyRef
    gold: RewardModelRef
    prompts: PairsRef
    limit: int = Field(default=0, ge=0)
    samples_per_prompt: int = Field(default=1, ge=1, le=64)
    max_new_tokens: int = Field(default=48, ge=1)
    min_new_tokens: int = Field(default=0, ge=0)
    snapshots: bool = True
    chunk_prompts: int = Field(default=64, ge=1, le=1024)


class Report(Strict):
    """Writes report.html and report.json."""

    outputs: ClassVar[dict[str, str]] = {"report": "report"}
    default: ClassVar[str] = "report"
    kind: Literal["report"]
    cleaning: Annotated[str, Ref("labelled")]
    gold: RewardModelRef
    gold_benchmark: Annotated[str, Ref("benchmark")] | None = None
    benchmark: Annotated[str, Ref("benchmark")]
    best_of_n: Annotated[str, Ref("best_of_n")]
    evaluation: Annotated[str, Ref("evaluation")]


Stage = Annotated[
    Clean | Split | Sft | RewardModel | Sample | Label | Benchmark | BestOfN | Dpo | Ppo | EvaluatePolicies | Report,
    Field(discriminator="kind"),
]
