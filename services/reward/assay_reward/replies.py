"""From this service's own values to the messages of the contract."""

from __future__ import annotations

from importlib.metadata import version

from google.protobuf import duration_pb2, timestamp_pb2

from assay.common.v1 import common_pb2
from assay.reward.v1 import reward_pb2
from assay_reward.engine import Cost, Scored
from assay_reward.inputs import Scale
from assay_reward.loaded import Entry, LoadedModel, State
from assay_reward.scales import scales_of
from assay_reward.shadow import Shadow
from assay_reward.statistics import Estimate

ENGINE_VERSION = f"assay-reward {version('assay-reward')}, torch {version('torch')}, transformers {version('transformers')}"

_SCALES = {
    Scale.RAW: reward_pb2.SCORE_SCALE_RAW,
    Scale.STANDARDIZED: reward_pb2.SCORE_SCALE_STANDARDIZED,
    Scale.CALIBRATED: reward_pb2.SCORE_SCALE_CALIBRATED,
    Scale.LENGTH_CORRECTED: reward_pb2.SCORE_SCALE_LENGTH_CORRECTED,
}
_STATES = {
    State.LOADING: reward_pb2.MODEL_STATE_LOADING,
    State.WARMING: reward_pb2.MODEL_STATE_WARMING,
    State.READY: reward_pb2.MODEL_STATE_READY,
    State.DRAINING: reward_pb2.MODEL_STATE_DRAINING,
    State.FAILED: reward_pb2.MODEL_STATE_FAILED,
    State.EVICTED: reward_pb2.MODEL_STATE_EVICTED,
}


def score_message(identity: str, scored: Scored, scale: Scale, card: common_pb2.QualityCard | None) -> reward_pb2.Score:
    """One score, on a scale that `check_scale` let pass and on all others that the card supports."""
    prepared = scored.prepared
    scales = scales_of(scored.raw, prepared.response_tokens, card)
    return reward_pb2.Score(
        id=identity,
        value=scales.value(scale),
        raw=scored.raw,
        scale=_SCALES[scale],
        prompt_tokens=prepared.prompt_tokens,
        response_tokens=prepared.response_tokens,
        truncated=prepared.tokens_dropped > 0,
        tokens_dropped=prepared.tokens_dropped,
        standardized=scales.standardized,
        win_probability=scales.win_probability,
        length_corrected=scales.length_corrected,
        stddev=scored.std,
        members=[reward_pb2.MemberScore(name=member.name, raw=member.raw) for member in scored.members],
        from_cache=scored.from_cache,
    )


def provenance_message(loaded: LoadedModel, card: common_pb2.QualityCard | None) -> reward_pb2.Provenance:
    """Enough to reproduce a score of the model."""
    return reward_pb2.Provenance(
        model=loaded.name,
        revision=loaded.revision,
        weights_sha256=loaded.fingerprint.weights_sha256,
        tokenizer_sha256=loaded.fingerprint.tokenizer_sha256,
        chat_template_sha256=loaded.fingerprint.chat_template_sha256,
        fingerprint=loaded.fingerprint.fingerprint,
        dtype=loaded.model.dtype,
        engine_version=loaded.engine_version or ENGINE_VERSION,
        mean=card.mean if card else 0.0,
        std=card.std if card else 0.0,
        has_quality_card=card is not None,
        calibration_id=card.calibration.id if card else "",
    )


def usage_message(cost: Cost) -> reward_pb2.Usage:
    """What a call cost."""
    return reward_pb2.Usage(
        useful_tokens=cost.useful_tokens,
        computed_tokens=cost.computed_tokens,
        padded_tokens=cost.padded_tokens,
        queue_time=_duration(cost.queue_seconds),
        tokenize_time=_duration(cost.tokenize_seconds),
        compute_time=_duration(cost.compute_seconds),
        batch_sequences=cost.batch_sequences,
    )


def model_message(entry: Entry, card: common_pb2.QualityCard | None, *, max_candidates: int) -> reward_pb2.ModelInfo:
    """One model, with its quality card."""
    info = reward_pb2.ModelInfo(
        name=entry.name,
        revision=entry.revision,
        uri=entry.uri,
        state=_STATES[entry.state],
        max_candidates=max_candidates,
        aliases=entry.aliases,
        failure=entry.failure,
    )
    loaded = entry.loaded
    if loaded is not None:
        info.kind = loaded.model.kind
        info.architecture = loaded.model.architecture
        info.max_input_tokens = loaded.model.max_input_tokens
        info.memory_bytes = loaded.memory_bytes
        info.provenance.CopyFrom(provenance_message(loaded, card))
        info.loaded_at.CopyFrom(_timestamp(loaded.loaded_at))
    if card is not None:
        info.quality_card.CopyFrom(card)
    return info


def shadow_message(shadow: Shadow) -> reward_pb2.ShadowReport:
    """How a candidate compares so far."""
    report = shadow.report()
    return reward_pb2.ShadowReport(
        model=shadow.model,
        candidate=shadow.candidate,
        share=shadow.share,
        window=shadow.window,
        started_at=_timestamp(shadow.started_at),
        calls_seen=report.seen,
        calls_compared=report.compared,
        calls_skipped=report.skipped,
        calls_failed=report.failed,
        last_failure=report.last_failure,
        answers=report.answers,
        flip_rate=_estimate(report.flip_rate),
        rank_correlation=_estimate(report.rank_correlation),
        standardized_difference=_estimate(report.standardized_difference),
        best_agreement=_estimate(report.best_agreement),
    )


def _estimate(estimate: Estimate | None) -> common_pb2.Estimate | None:
    if estimate is None:
        return None
    return common_pb2.Estimate(value=estimate.value, low=estimate.low, high=estimate.high, n=estimate.n)


def _timestamp(seconds: float) -> timestamp_pb2.Timestamp:
    timestamp = timestamp_pb2.Timestamp()
    timestamp.FromNanoseconds(round(seconds * 1e9))
    return timestamp


def _duration(seconds: float) -> duration_pb2.Duration:
    duration = duration_pb2.Duration()
    duration.FromNanoseconds(round(max(seconds, 0.0) * 1e9))
    return duration
