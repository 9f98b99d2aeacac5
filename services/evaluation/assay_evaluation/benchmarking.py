"""Benchmarks models of the reward service on pairs, and publishes their quality cards."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
from google.protobuf.timestamp_pb2 import Timestamp

from assay.common.v1 import common_pb2
from assay_data.conversations import PreferencePair, prompt_key
from assay_data.storage import artifact_of, write_jsonl
from assay_evaluation.benchmark import Comparisons, ModelScores, OnPolicyScores, run_benchmark
from assay_evaluation.cards import make_card
from assay_evaluation.samples import PromptSamples
from assay_evaluation.scoring import score_pairs, score_samples
from assay_evaluation.work import Work
from assay_kit.errors import FailedPrecondition, Unavailable
from assay_kit.topics import QUALITY_CARDS

_CARD_PATIENCE_SECONDS = 120.0
_LOOK_SECONDS = 0.25


@dataclass(frozen=True, kw_only=True)
class OnPolicy:
    """Samples of the policy that is to be trained, and the gold judge that says what they are worth.

    Attributes:
        samples: The samples.
        what: Names them within the run.
        gold: Name of the gold judge at the reward service.
    """

    samples: Sequence[PromptSamples]
    what: str
    gold: str


def benchmark_models(
    work: Work,
    pairs: Sequence[PreferencePair],
    *,
    models: Mapping[str, str],
    on_policy: OnPolicy | None,
    seed: int,
    scores_uri: str,
) -> dict[str, Any]:
    """Measures models on pairs of which the chosen answer is known to be better, and writes down each score.

    Args:
        work: What to work with.
        pairs: The comparisons.
        models: Name at the reward service, by the name to show.
        on_policy: Where the on-policy rank correlation is measured; None: nowhere.
        seed: Seed of the bootstrap.
        scores_uri: The JSONL file to write, one line a model and pair: id, prompt_id, model (the name to show), fingerprint, the raw
            scores `chosen` and `rejected`, and the lengths `chosen_tokens` and `rejected_tokens` in the model's tokens.

    Returns:
        The leaderboard as JSON; `models` carry the names to show.

    Raises:
        FailedPrecondition: There are no pairs.
        AssayClientError: The reward service has no such model; names those it has.
    """
    if not pairs:
        raise FailedPrecondition("there is no pair to measure reward models on")
    for served in models.values():
        work.patiently(partial(work.tools.remote.reward.get_model, served))
    comparisons = Comparisons(
        ids=[pair.id for pair in pairs],
        prompts=[prompt_key(pair) for pair in pairs],
        chosen_words=np.array([len(pair.chosen.split()) for pair in pairs], dtype=np.float64),
        rejected_words=np.array([len(pair.rejected.split()) for pair in pairs], dtype=np.float64),
    )
    scores = []
    for shown, served in models.items():
        scored = score_pairs(work, pairs, model=served)
        scores.append(ModelScores(name=shown, **vars(scored)))
    write_jsonl(scores_uri, _score_rows(comparisons, scores))
    on_policy_scores = {}
    if on_policy is not None:
        prompts = [one.prompt_id for one in on_policy.samples for _ in one.answers]
        gold = np.concatenate(score_samples(work, on_policy.samples, model=on_policy.gold, what=on_policy.what).scores)
        for shown, served in models.items():
            proxy = np.concatenate(score_samples(work, on_policy.samples, model=served, what=on_policy.what).scores)
            on_policy_scores[shown] = OnPolicyScores(prompts=prompts, proxy=proxy, gold=gold)
    return run_benchmark(comparisons, scores, on_policy=on_policy_scores, seed=seed).as_dict()


def _score_rows(comparisons: Comparisons, scores: Sequence[ModelScores]) -> Iterator[dict[str, Any]]:
    for model in scores:
        for index, (pair_id, prompt_id) in enumerate(zip(comparisons.ids, comparisons.prompts, strict=True)):
            yield {
                "id": pair_id,
                "prompt_id": prompt_id,
                "model": model.name,
                "fingerprint": model.fingerprint,
                "chosen": float(model.chosen[index]),
                "rejected": float(model.rejected[index]),
                "chosen_tokens": int(model.chosen_tokens[index]),
                "rejected_tokens": int(model.rejected_tokens[index]),
            }


def publish_cards(work: Work, leaderboard: Mapping[str, Any], *, models: Mapping[str, str], data_uri: str) -> None:
    """Publishes the quality card of each model, and waits until the reward service shows it.

    Args:
        work: What to work with.
        leaderboard: As `benchmark_models` gave it.
        models: Name at the reward service, by the name shown.
        data_uri: The pairs it was measured on.

    Raises:
        FailedPrecondition: There is no broker.
        Unavailable: The reward service did not take a card in time.
    """
    producer = work.tools.producer
    if producer is None:
        raise FailedPrecondition("quality cards are published through Kafka; set ASSAY_KAFKA_BOOTSTRAP")
    artifact = artifact_of(data_uri, rows=leaderboard["n"])
    data = common_pb2.Artifact(
        uri=artifact.uri, kind="preference_pairs", sha256=artifact.sha256, size_bytes=artifact.size_bytes, rows=artifact.rows
    )
    measured_at = Timestamp()
    measured_at.GetCurrentTime()
    cards = [make_card({**entry, "name": models[entry["name"]]}, data=data, measured_at=measured_at) for entry in leaderboard["models"]]
    for card in cards:
        producer.send(QUALITY_CARDS, card.fingerprint, card)
    producer.flush()
    for card in cards:
        _wait_for_card(work, card)


def _wait_for_card(work: Work, card: common_pb2.QualityCard) -> None:
    client = work.tools.remote.reward
    waited = 0.0
    while waited < _CARD_PATIENCE_SECONDS:
        shown = work.patiently(lambda: client.get_model(card.model))
        if shown.HasField("quality_card") and shown.quality_card.measured_at.ToNanoseconds() >= card.measured_at.ToNanoseconds():
            return
        work.pause(_LOOK_SECONDS)
        waited += _LOOK_SECONDS
    raise Unavailable(f"the reward service does not show the quality card of {card.model} after {_CARD_PATIENCE_SECONDS:g} s")
