"""Scores pairs and samples with models of the reward service; what several stages need is scored once."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from assay_data.conversations import PreferencePair, prompt_key
from assay_data.storage import join_uri
from assay_evaluation.bulk_scoring import Group, Scored
from assay_evaluation.samples import PromptSamples
from assay_evaluation.statistics import Floats
from assay_evaluation.work import Work


@dataclass(frozen=True, kw_only=True)
class PairScores:
    """Scores of both answers of each pair, shape (pairs,) each; lengths in the model's tokens."""

    chosen: Floats
    rejected: Floats
    chosen_tokens: Floats
    rejected_tokens: Floats
    fingerprint: str


@dataclass(frozen=True, kw_only=True)
class SampleScores:
    """Scores of each prompt's samples, and the fingerprint of the model that gave them."""

    scores: Sequence[Floats]
    fingerprint: str


def score_pairs(work: Work, pairs: Sequence[PreferencePair], *, model: str) -> PairScores:
    """Scores both answers of each pair; where the two have different contexts, each in its own."""
    groups: list[Group] = []
    for pair in pairs:
        key = prompt_key(pair)
        if pair.rejected_prompt:
            groups.append(Group(prompt_id=key, prompt=pair.prompt, answers=(pair.chosen,)))
            groups.append(Group(prompt_id=key, prompt=pair.rejected_prompt, answers=(pair.rejected,)))
        else:
            groups.append(Group(prompt_id=key, prompt=pair.prompt, answers=(pair.chosen, pair.rejected)))
    scored = _score(work, groups, model=model, what="pairs", folder=work.memo)
    scores = np.concatenate([group.scores for group in scored.groups]).reshape(-1, 2)
    tokens = np.concatenate([group.tokens for group in scored.groups]).reshape(-1, 2)
    return PairScores(
        chosen=scores[:, 0],
        rejected=scores[:, 1],
        chosen_tokens=tokens[:, 0],
        rejected_tokens=tokens[:, 1],
        fingerprint=scored.fingerprint,
    )


def score_samples(work: Work, samples: Sequence[PromptSamples], *, model: str, what: str) -> SampleScores:
    """Scores samples; stages that ask for the same `what` and model share the work.

    Args:
        work: What to work with.
        samples: The samples.
        model: Name of the model at the reward service.
        what: Names the samples within the run, for example the stage that made them.
    """
    groups = [Group(prompt_id=one.prompt_id, prompt=one.prompt, answers=tuple(answer.text for answer in one.answers)) for one in samples]
    with work.tools.lock(f"{work.run_id}/{what}/{model}"):
        scored = _score(work, groups, model=model, what=what, folder=work.shared)
    return SampleScores(scores=[group.scores for group in scored.groups], fingerprint=scored.fingerprint)


def _score(work: Work, groups: Sequence[Group], *, model: str, what: str, folder: str) -> Scored:
    prefix = f"{work.run_id}/{what}/{model}" if folder == work.shared else f"{work.run_id}/{work.name}/{what}/{model}"
    return work.tools.scorer.score(
        groups,
        model=model,
        request_prefix=prefix,
        memo_uri=join_uri(folder, "scores", what, model),
        progress=work.counter("prompts", f"{what} by {model.rpartition('.')[2]}"),
    )
