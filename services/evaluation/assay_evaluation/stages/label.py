"""Makes preference pairs from samples, by the scores of a judge."""

from __future__ import annotations

import random
from collections.abc import Iterator, Sequence
from typing import Any

from assay_data.conversations import PreferencePair
from assay_data.pairs import write_pairs
from assay_evaluation.samples import PromptSamples, read_samples
from assay_evaluation.scoring import score_samples
from assay_evaluation.stage_kinds import Label
from assay_evaluation.stages.context import StageContext
from assay_evaluation.statistics import Floats
from assay_kit.errors import FailedPrecondition


def run(context: StageContext, stage: Label) -> dict[str, Any]:
    """Writes pairs.jsonl."""
    samples = list(read_samples(context.artifact(stage.samples, "samples")))
    what = context.stage_of(stage.samples, "samples")
    scored = score_samples(context.work, samples, model=context.reward_model(stage.judge), what=what)
    if stage.choose == "best_and_worst":
        pairs = list(best_and_worst(samples, scored.scores))[: stage.pairs or None]
    else:
        pairs = random_pairs(samples, scored.scores, count=stage.pairs, seed=context.seed)
    if not pairs:
        raise FailedPrecondition("the judge scored all samples of each prompt alike, so no pair could be made")
    uri = context.output("pairs.jsonl")
    artifact = write_pairs(uri, pairs)
    return {
        "artifacts": {"pairs": uri},
        "figures": {"pairs": artifact.rows, "asked_for": stage.pairs, "sha256": artifact.sha256, "judge_fingerprint": scored.fingerprint},
    }


def random_pairs(samples: Sequence[PromptSamples], scores: Sequence[Floats], *, count: int, seed: int) -> list[PreferencePair]:
    """Pairs of two random samples of a prompt, no sample used twice; one of each prompt, then a second of each, and so on.

    Args:
        samples: The samples.
        scores: The judge's scores of them.
        count: Pairs wanted; 0 means as many as there can be. Fewer come out where there are not enough samples that differ.
        seed: Seed of the order of the samples.
    """
    draw = random.Random(seed)
    orders = []
    for one in samples:
        order = list(range(len(one.answers)))
        draw.shuffle(order)
        orders.append(order)
    pairs: list[PreferencePair] = []
    for turn in range(max((len(order) // 2 for order in orders), default=0)):
        for one, order, values in zip(samples, orders, scores, strict=True):
            if count and len(pairs) == count:
                return pairs
            if 2 * turn + 1 < len(order):
                first, second = order[2 * turn], order[2 * turn + 1]
                pairs.extend(_pair(one, values, first, second))
    return pairs


def best_and_worst(samples: Sequence[PromptSamples], scores: Sequence[Floats]) -> Iterator[PreferencePair]:
    """The sample with the highest score against the one with the lowest, of each prompt where the two differ."""
    for one, values in zip(samples, scores, strict=True):
        yield from _pair(one, values, int(values.argmax()), int(values.argmin()))


def _pair(one: PromptSamples, scores: Floats, first: int, second: int) -> Iterator[PreferencePair]:
    better, worse = (first, second) if scores[first] > scores[second] else (second, first)
    chosen, rejected = one.answers[better].text, one.answers[worse].text
    if scores[better] == scores[worse] or chosen.strip() == rejected.strip() or not chosen.strip() or not rejected.strip():
        return
    yield PreferencePair(
        prompt=one.prompt,
        chosen=chosen,
        rejected=rejected,
        source="samples",
        metadata={"score_chosen": f"{scores[better]:.6f}", "score_rejected": f"{scores[worse]:.6f}"},
    )
