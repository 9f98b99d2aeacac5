"""Samples answers from the policy service in fixed chunks, each with a seed of its own, so that a run can be repeated and resumed."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial

from assay.policy.v1 import policy_pb2
from assay_evaluation.samples import Answer, Prompt, PromptSamples, from_row, to_row
from assay_evaluation.work import Work
from assay_kit.errors import FailedPrecondition

_LOG_PROB_ITEMS = 1024


@dataclass(frozen=True, kw_only=True)
class Sampling:
    """How answers are sampled.

    Attributes:
        n: Answers to each prompt.
        max_new_tokens: Most tokens of an answer.
        min_new_tokens: Least tokens of an answer.
        temperature: 0 means greedy.
        seed: Each chunk's seed is derived from it, the label and the chunk's number.
        chunk_prompts: Prompts of a chunk; part of what makes a run repeatable.
    """

    n: int
    max_new_tokens: int
    min_new_tokens: int
    temperature: float
    seed: int
    chunk_prompts: int


def generate(
    work: Work,
    prompts: Sequence[Prompt],
    *,
    policy: str,
    options: Sampling,
    label: str,
) -> list[PromptSamples]:
    """Samples n answers to each prompt.

    Args:
        work: What to work with; each chunk is kept in its memo.
        prompts: The prompts.
        policy: Name of the policy at the policy service.
        options: How to sample.
        label: Names these samples within the work.

    Raises:
        FailedPrecondition: The policy service could not answer a prompt.
    """
    samples: list[PromptSamples] = []
    for number, start in enumerate(range(0, len(prompts), options.chunk_prompts)):
        chunk = prompts[start : start + options.chunk_prompts]
        sampling = policy_pb2.SamplingOptions(
            max_new_tokens=options.max_new_tokens,
            min_new_tokens=options.min_new_tokens,
            temperature=options.temperature,
            seed=chunk_seed(options.seed, label, number),
        )
        rows = work.once(f"{label}-{number:05d}", partial(_generated, work, policy, chunk, options.n, sampling))
        samples.extend(from_row(row) for row in rows)
        work.reporter.progress(work.name, len(samples), len(prompts), unit="prompts", message=label)
    return samples


def log_probs(work: Work, samples: Sequence[PromptSamples], *, policy: str, label: str) -> list[list[float]]:
    """Log-probability of every sample under a policy, in nats; one list a prompt.

    Raises:
        FailedPrecondition: The samples carry no token ids (a remote server does not tell them).
    """
    flat = [(one.prompt, answer.tokens) for one in samples for answer in one.answers]
    if any(not tokens for _, tokens in flat):
        raise FailedPrecondition("the samples carry no token ids, so their log-probabilities cannot be computed")

    def compute() -> list[float]:
        values: list[float] = []
        for start in range(0, len(flat), _LOG_PROB_ITEMS):
            items = flat[start : start + _LOG_PROB_ITEMS]
            values.extend(work.patiently(partial(work.tools.remote.policy.compute_log_probs, items, model=policy)))
        return values

    values = iter(work.once(f"{label}-log-probs", compute))
    return [[next(values) for _ in one.answers] for one in samples]


def chunk_seed(seed: int, label: str, number: int) -> int:
    """Seed of a chunk, below 2^31; different for each label and number."""
    return int.from_bytes(hashlib.sha256(f"{seed}/{label}/{number}".encode()).digest()[:4]) >> 1


def _generated(work: Work, policy: str, chunk: Sequence[Prompt], n: int, sampling: policy_pb2.SamplingOptions) -> list[dict[str, object]]:
    prompts, ids = [prompt.messages for prompt in chunk], [prompt.id for prompt in chunk]
    client = work.tools.remote.policy
    response = work.patiently(lambda: client.generate(prompts, model=policy, n=n, sampling=sampling, ids=ids))
    rows = []
    for prompt, generation in zip(chunk, response.generations, strict=True):
        if generation.HasField("error"):
            raise FailedPrecondition(f"the policy service could not answer prompt {prompt.id}: {generation.error.message}")
        answers = tuple(
            Answer(
                text=completion.text,
                tokens=tuple(completion.tokens.ids),
                log_prob=completion.log_prob if completion.HasField("log_prob") else None,
            )
            for completion in generation.completions
        )
        rows.append(to_row(PromptSamples(prompt_id=prompt.id, prompt=prompt.messages, answers=answers)))
    return rows
