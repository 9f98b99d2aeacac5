"""What is measured about a policy: gold score, wins against the reference, KL to it, length and diversity."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from assay_evaluation.statistics import Estimate, Floats, MeanDifference, decimals, mean, paired_difference, sign_test, wilson


@dataclass(frozen=True, kw_only=True)
class PolicySamples:
    """Answers of a policy to the same prompts as every other policy of an evaluation.

    Attributes:
        texts: Answers, one list a prompt.
        gold: Gold scores, shape (prompts, answers).
        log_prob: Log-probability of each answer under the policy, in nats, same shape.
        reference_log_prob: The same under the reference, same shape.
    """

    texts: Sequence[Sequence[str]]
    gold: Floats
    log_prob: Floats
    reference_log_prob: Floats


@dataclass(frozen=True, kw_only=True)
class PolicyMetrics:
    """What was measured; the independent observations are prompts.

    Attributes:
        gold: Mean gold score.
        kl: Monte-Carlo estimate of KL(policy || reference) in nats an answer.
        win_rate: Share of prompts on which the gold score beats the reference's, ties counted as half. None for the reference.
        win_p_value: Exact sign test of wins against losses. None for the reference.
        gain: Gold score minus the reference's on the same prompts. None for the reference.
        words: Mean length of an answer in words.
        distinct_1: Different words over words of all answers; 0..1.
        distinct_2: Different word pairs over word pairs of all answers; 0..1.
        gold_per_prompt: Mean gold score of each prompt's answers, shape (prompts,).
    """

    gold: Estimate
    kl: Estimate
    win_rate: Estimate | None
    win_p_value: float | None
    gain: MeanDifference | None
    words: Estimate
    distinct_1: float
    distinct_2: float
    gold_per_prompt: Floats

    def as_dict(self) -> dict[str, Any]:
        """The figures as JSON."""
        figures: dict[str, Any] = {
            "n": self.gold.n,
            "gold": self.gold.as_dict(),
            "kl": self.kl.as_dict(),
            "words": self.words.as_dict(),
            "distinct_1": decimals(self.distinct_1),
            "distinct_2": decimals(self.distinct_2),
            "gold_per_prompt": [decimals(value) for value in self.gold_per_prompt],
        }
        if self.win_rate is not None and self.gain is not None and self.win_p_value is not None:
            figures["win_rate"] = self.win_rate.as_dict()
            figures["win_p_value"] = self.win_p_value
            figures["gain"] = self.gain.estimate.as_dict()
            figures["gain_p_value"] = self.gain.p_value
        return figures


def measure(policy: PolicySamples, reference: PolicySamples | None) -> PolicyMetrics:
    """Measures a policy, against the reference's answers to the same prompts where there are any."""
    gold = policy.gold.mean(axis=1)
    kl = (policy.log_prob - policy.reference_log_prob).mean(axis=1)
    words = np.array([np.mean([len(text.split()) for text in answers]) for answers in policy.texts])
    win_rate = win_p_value = gain = None
    if reference is not None:
        win_rate, win_p_value, gain = _compare(gold, reference.gold.mean(axis=1))
    texts = [text for answers in policy.texts for text in answers]
    return PolicyMetrics(
        gold=mean(gold),
        kl=mean(kl),
        win_rate=win_rate,
        win_p_value=win_p_value,
        gain=gain,
        words=mean(words),
        distinct_1=distinct(texts, 1),
        distinct_2=distinct(texts, 2),
        gold_per_prompt=gold,
    )


def against(gold: Floats, reference: Floats) -> dict[str, Any]:
    """Wins and gain of gold scores against those of the reference on the same prompts, as JSON; shape (prompts,) each."""
    win_rate, win_p_value, gain = _compare(gold, reference)
    return {
        "win_rate": win_rate.as_dict(),
        "win_p_value": win_p_value,
        "gain": gain.estimate.as_dict(),
        "gain_p_value": gain.p_value,
    }


def _compare(gold: Floats, reference: Floats) -> tuple[Estimate, float, MeanDifference]:
    test = sign_test(gold, reference)
    ties = gold.size - test.first_only - test.second_only
    return wilson(test.first_only + ties / 2, gold.size), test.p_value, paired_difference(gold, reference)


def distinct(texts: Sequence[str], n: int) -> float:
    """Different word n-grams over all word n-grams of the texts; 0 where there are none."""
    grams: set[tuple[str, ...]] = set()
    total = 0
    for text in texts:
        words = text.lower().split()
        for start in range(len(words) - n + 1):
            grams.add(tuple(words[start : start + n]))
            total += 1
    return len(grams) / total if total else 0.0
