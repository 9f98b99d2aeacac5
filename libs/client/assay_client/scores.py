"""What the reward service gives, as plain values."""

from __future__ import annotations

from dataclasses import dataclass

from assay.reward.v1 import reward_pb2
from assay_client.errors import ItemFailed


@dataclass(frozen=True, kw_only=True)
class MemberScore:
    """What one member of an ensemble gave."""

    name: str
    """Name of the member."""
    raw: float
    """Its raw score."""


@dataclass(frozen=True, kw_only=True)
class Score:
    """The score of one answer."""

    value: float
    """On the scale that was asked for; the raw score unless told otherwise."""
    raw: float
    """The head's logit."""
    standardized: float | None
    """(raw - mean) / std of the model's quality card; None without one."""
    win_probability: float | None
    """Probability that the answer is preferred to one of average reward, 0..1; None without a quality card."""
    length_corrected: float | None
    """The raw score without what length alone explains; None without a slope on the quality card."""
    stddev: float | None
    """Standard deviation (n - 1) of the members' raw scores; None unless the model is an ensemble."""
    members: tuple[MemberScore, ...]
    """The members' raw scores; empty unless the model is an ensemble."""
    prompt_tokens: int
    """Tokens of the prompt that were fed to the model."""
    response_tokens: int
    """Tokens of the answer that were fed to the model."""
    truncated: bool
    """Whether tokens were dropped."""
    tokens_dropped: int
    """How many."""
    from_cache: bool
    """Whether the service's result cache had it."""

    @classmethod
    def of(cls, score: reward_pb2.Score) -> Score:
        """From the message."""
        return cls(
            value=score.value,
            raw=score.raw,
            standardized=score.standardized if score.HasField("standardized") else None,
            win_probability=score.win_probability if score.HasField("win_probability") else None,
            length_corrected=score.length_corrected if score.HasField("length_corrected") else None,
            stddev=score.stddev if score.HasField("stddev") else None,
            members=tuple(MemberScore(name=member.name, raw=member.raw) for member in score.members),
            prompt_tokens=score.prompt_tokens,
            response_tokens=score.response_tokens,
            truncated=score.truncated,
            tokens_dropped=score.tokens_dropped,
            from_cache=score.from_cache,
        )


@dataclass(frozen=True, kw_only=True)
class Provenance:
    """Enough to reproduce a score."""

    model: str
    """Name of the model."""
    revision: str
    """Its revision."""
    weights_sha256: str
    """SHA-256 of the weights; hexadecimal."""
    tokenizer_sha256: str
    """SHA-256 of the tokenizer; hexadecimal."""
    chat_template_sha256: str
    """SHA-256 of the chat template; hexadecimal."""
    fingerprint: str
    """SHA-256 over the three: equal fingerprints, equal scores."""
    dtype: str
    """Type of the weights, for example "float32"."""
    engine_version: str
    """Version of the engine that scored."""
    mean: float
    """Mean raw score by the quality card; 0 without one."""
    std: float
    """Standard deviation of the raw score by the quality card; 0 without one."""
    has_quality_card: bool
    """Whether the model has a quality card."""
    calibration_id: str
    """Which calibration the derived scores used; empty without one."""

    @classmethod
    def of(cls, provenance: reward_pb2.Provenance) -> Provenance:
        """From the message."""
        return cls(
            model=provenance.model,
            revision=provenance.revision,
            weights_sha256=provenance.weights_sha256,
            tokenizer_sha256=provenance.tokenizer_sha256,
            chat_template_sha256=provenance.chat_template_sha256,
            fingerprint=provenance.fingerprint,
            dtype=provenance.dtype,
            engine_version=provenance.engine_version,
            mean=provenance.mean,
            std=provenance.std,
            has_quality_card=provenance.has_quality_card,
            calibration_id=provenance.calibration_id,
        )


@dataclass(frozen=True, kw_only=True)
class Usage:
    """What a call cost, summed over the requests it was cut into."""

    useful_tokens: int
    """Sum of the lengths of the sequences."""
    computed_tokens: int
    """Tokens the device computed, padding not counted."""
    padded_tokens: int
    """Padding the device computed besides."""
    queue_seconds: float
    """Time in the queue."""
    tokenize_seconds: float
    """Time of the template and the tokenizer."""
    compute_seconds: float
    """Time on the device."""
    batch_sequences: int
    """Sequences of the largest batch on the device; 0 when nothing was computed."""

    @classmethod
    def of(cls, *usages: reward_pb2.Usage) -> Usage:
        """From the messages of one call."""
        return cls(
            useful_tokens=sum(usage.useful_tokens for usage in usages),
            computed_tokens=sum(usage.computed_tokens for usage in usages),
            padded_tokens=sum(usage.padded_tokens for usage in usages),
            queue_seconds=sum(usage.queue_time.ToNanoseconds() for usage in usages) / 1e9,
            tokenize_seconds=sum(usage.tokenize_time.ToNanoseconds() for usage in usages) / 1e9,
            compute_seconds=sum(usage.compute_time.ToNanoseconds() for usage in usages) / 1e9,
            batch_sequences=max((usage.batch_sequences for usage in usages), default=0),
        )


@dataclass(frozen=True, kw_only=True)
class ScoredGroup:
    """The scores of the candidates of one conversation."""

    scores: tuple[Score, ...]
    """In the order of the candidates."""
    best_index: int
    """Index of the highest raw score; the first of equals."""
    provenance: Provenance
    """Enough to reproduce the scores."""
    usage: Usage
    """What it cost."""


@dataclass(frozen=True, kw_only=True)
class ScoredBatch:
    """The scores of unrelated conversations."""

    results: tuple[Score | ItemFailed, ...]
    """In the order of the conversations: a score, or why there is none."""
    provenance: Provenance
    """Enough to reproduce the scores."""
    usage: Usage
    """What it cost."""


@dataclass(frozen=True, kw_only=True)
class RenderedPrompt:
    """What a model would see of a conversation."""

    text: str
    """The text after the chat template."""
    token_ids: tuple[int, ...]
    """Its tokens; empty for a bag of words."""
    truncated: bool
    """Whether tokens were dropped."""
    warnings: tuple[str, ...]
    """For example: doubled BOS."""

    @classmethod
    def of(cls, rendered: reward_pb2.RenderPromptResponse) -> RenderedPrompt:
        """From the message."""
        return cls(
            text=rendered.text, token_ids=tuple(rendered.tokens.ids), truncated=rendered.truncated, warnings=tuple(rendered.warnings)
        )
