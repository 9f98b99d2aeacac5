"""Judges policies of the policy service by a gold reward model, on the same prompts, against a reference."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from assay_evaluation.generating import Sampling, generate, log_probs
from assay_evaluation.newest import show_policies
from assay_evaluation.policy_metrics import PolicySamples, measure
from assay_evaluation.samples import Prompt, PromptSamples, texts_of
from assay_evaluation.scoring import score_samples
from assay_evaluation.work import Work
from assay_kit.errors import FailedPrecondition


@dataclass(frozen=True, kw_only=True)
class Judged:
    """A policy's answers and what gold says of them."""

    samples: Sequence[PromptSamples]
    measured: PolicySamples


def judge(work: Work, prompts: Sequence[Prompt], *, shown: str, served: str, reference: str, gold: str, sampling: Sampling) -> Judged:
    """Samples answers of one policy, and asks gold and the reference about them.

    Args:
        work: What to work with.
        prompts: The prompts.
        shown: Name of the policy to show; part of the seeds.
        served: Its name at the policy service.
        reference: Name of the reference at the policy service.
        gold: Name of the gold judge at the reward service.
        sampling: How to sample; at temperature 1, so that log-probabilities are those of the samples.

    Raises:
        FailedPrecondition: The policy service does not tell log-probabilities.
    """
    samples = generate(
        work,
        prompts,
        policy=served,
        options=sampling,
        label=shown,
    )
    own = [[answer.log_prob for answer in one.answers] for one in samples]
    if any(value is None for values in own for value in values):
        raise FailedPrecondition(f"policy {served} tells no log-probabilities, so its KL cannot be measured")
    anchor = own if served == reference else log_probs(work, samples, policy=reference, label=shown)
    scores = score_samples(work, samples, model=gold, what=f"{work.name}-{shown}").scores
    measured = PolicySamples(
        texts=texts_of(samples),
        gold=np.stack(scores),
        log_prob=np.array(own, dtype=np.float64),
        reference_log_prob=np.array(anchor, dtype=np.float64),
    )
    return Judged(samples=samples, measured=measured)


def evaluate_policies(
    work: Work, prompts: Sequence[Prompt], *, policies: Mapping[str, str], reference: str, gold: str, sampling: Sampling
) -> tuple[dict[str, Any], dict[str, Judged]]:
    """Measures every policy, each against the reference on the same prompts.

    Args:
        work: What to work with.
        prompts: The prompts; at least two.
        policies: Name at the policy service by the name to show; holds the reference.
        reference: The reference's name to show.
        gold: Name of the gold judge at the reward service.
        sampling: How to sample.

    Returns:
        The figures by name to show, and what they were made from.

    Raises:
        FailedPrecondition: There are fewer than two prompts.
    """
    if len(prompts) < 2:
        raise FailedPrecondition(f"policies are judged on two prompts or more, got {len(prompts)}")
    judged = {
        shown: judge(work, prompts, shown=shown, served=served, reference=policies[reference], gold=gold, sampling=sampling)
        for shown, served in policies.items()
    }
    figures = {
        shown: measure(one.measured, None if shown == reference else judged[reference].measured).as_dict() for shown, one in judged.items()
    }
    show_policies(figures)
    return figures, judged
