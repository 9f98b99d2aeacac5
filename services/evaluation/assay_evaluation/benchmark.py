"""Measures reward models on comparisons that people or a gold judge have decided.

What the public benchmarks leave out is here from the start: ties count as half (not as losses), every rate has n and a 95 % interval,
models are compared on the same pairs with a corrected exact test, and two baselines that know nothing stand beside them: a coin, and
"the longer answer wins".
"""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt

from assay_evaluation.calibration import Calibration, Reference, calibrate, reference_of
from assay_evaluation.statistics import (
    Estimate,
    Floats,
    clustered_mean,
    decimals,
    group_indices,
    holm,
    sign_test,
    significant,
    spearman,
    wilson,
    within_group_spearman,
)

SMALLEST_SUBSET = 20


@dataclass(frozen=True, kw_only=True)
class Comparisons:
    """Decided pairs of answers.

    Attributes:
        ids: Id of each pair.
        prompts: Prompt key of each pair; pairs of one prompt are not independent.
        chosen_words: Length of the better answer in words, shape (n,).
        rejected_words: Length of the worse answer in words, shape (n,).
        subsets: Membership by name of subset, boolean, shape (n,).
    """

    ids: Sequence[str]
    prompts: Sequence[str]
    chosen_words: Floats
    rejected_words: Floats
    subsets: Mapping[str, npt.NDArray[np.bool_]] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True)
class ModelScores:
    """Raw scores of a reward model.

    Attributes:
        name: Name of the model.
        fingerprint: Its fingerprint.
        chosen: Scores of the better answers, shape (n,).
        rejected: Scores of the worse answers, shape (n,).
        chosen_tokens: Lengths of the better answers in the model's tokens, shape (n,).
        rejected_tokens: Lengths of the worse answers, shape (n,).
    """

    name: str
    fingerprint: str
    chosen: Floats
    rejected: Floats
    chosen_tokens: Floats
    rejected_tokens: Floats


@dataclass(frozen=True, kw_only=True)
class OnPolicyScores:
    """Scores of samples of the policy that is to be trained.

    Attributes:
        prompts: Prompt key of each sample.
        proxy: Raw scores of the reward model, shape (m,).
        gold: Gold scores of the same samples, shape (m,).
    """

    prompts: Sequence[str]
    proxy: Floats
    gold: Floats


@dataclass(frozen=True, kw_only=True)
class ModelBenchmark:
    """What was measured about one reward model; see QualityCard for the meaning of each figure.

    `accuracy` has the Wilson interval, which takes pairs as independent; `accuracy_clustered` draws whole prompts.
    `within_prompt_std` is the mean spread of the score among one prompt's samples over the spread among all samples: near 0, the model
    gives a policy nothing to learn from (arXiv 2503.15477).
    """

    name: str
    fingerprint: str
    accuracy: Estimate
    accuracy_clustered: Estimate
    ties: int
    length_correlation: float
    mean: float
    std: float
    calibration: Calibration
    reference: Reference
    subsets: Mapping[str, Estimate]
    on_policy_rank_correlation: Estimate | None
    within_prompt_std: float | None

    def as_dict(self) -> dict[str, Any]:
        """The figures as JSON."""
        return {
            "name": self.name,
            "fingerprint": self.fingerprint,
            "accuracy": self.accuracy.as_dict(),
            "accuracy_clustered": self.accuracy_clustered.as_dict(),
            "ties": self.ties,
            "length_correlation": decimals(self.length_correlation),
            "mean": significant(self.mean),
            "std": significant(self.std),
            "temperature": significant(self.calibration.temperature.value),
            "expected_calibration_error": decimals(self.calibration.expected_calibration_error),
            "calibration": self.calibration.as_dict(),
            "reference": self.reference.as_dict(),
            "subsets": {name: estimate.as_dict() for name, estimate in self.subsets.items()},
            "on_policy_rank_correlation": self.on_policy_rank_correlation.as_dict() if self.on_policy_rank_correlation else None,
            "within_prompt_std": None if self.within_prompt_std is None else decimals(self.within_prompt_std),
        }


@dataclass(frozen=True, kw_only=True)
class PairOfModels:
    """Two reward models on the same pairs: exact McNemar, corrected by Holm for the number of pairs of models."""

    first: str
    second: str
    first_only: int
    second_only: int
    p_value: float
    corrected_p_value: float


@dataclass(frozen=True, kw_only=True)
class Leaderboard:
    """Models by accuracy, best first, with baselines and paired tests."""

    models: Sequence[ModelBenchmark]
    longest_wins: Estimate
    coin: Estimate
    tests: Sequence[PairOfModels]
    n: int

    def as_dict(self) -> dict[str, Any]:
        """The figures as JSON."""
        return {
            "n": self.n,
            "models": [model.as_dict() for model in self.models],
            "baselines": {"longest_wins": self.longest_wins.as_dict(), "coin": self.coin.as_dict()},
            "tests": [vars(test) for test in self.tests],
        }


def outcomes(chosen: Floats, rejected: Floats) -> Floats:
    """1 where the better answer has the higher score, 0.5 for a tie, 0 otherwise; shape (n,)."""
    return np.asarray((chosen > rejected) + 0.5 * (chosen == rejected), dtype=np.float64)


def run_benchmark(
    comparisons: Comparisons, scores: Sequence[ModelScores], *, on_policy: Mapping[str, OnPolicyScores] | None = None, seed: int = 0
) -> Leaderboard:
    """Measures every model on the comparisons.

    Args:
        comparisons: The decided pairs; at least one.
        scores: Scores of each model on them, in their order.
        on_policy: Scores of policy samples by name of model.
        seed: Seed of the clustered bootstrap.

    Raises:
        ValueError: If there are no pairs, or a model has not one finite score for each answer.
    """
    n = len(comparisons.ids)
    if n == 0:
        raise ValueError("a benchmark needs at least one comparison")
    for model in scores:
        if model.chosen.shape != (n,) or model.rejected.shape != (n,):
            raise ValueError(f"{model.name} has {model.chosen.size} and {model.rejected.size} scores for {n} comparisons")
        if not (np.isfinite(model.chosen).all() and np.isfinite(model.rejected).all()):
            raise ValueError(f"{model.name} has scores that are not finite")
    measured = [_measure(comparisons, model, (on_policy or {}).get(model.name), seed) for model in scores]
    tests = []
    for first, second in itertools.combinations(scores, 2):
        test = sign_test(outcomes(first.chosen, first.rejected), outcomes(second.chosen, second.rejected))
        tests.append((first.name, second.name, test))
    corrected = holm([test.p_value for _, _, test in tests])
    longest = outcomes(comparisons.chosen_words, comparisons.rejected_words)
    return Leaderboard(
        models=sorted(measured, key=lambda model: (-model.accuracy.value, model.name)),
        longest_wins=wilson(float(longest.sum()), n),
        coin=wilson(n / 2, n),
        tests=[
            PairOfModels(first=a, second=b, first_only=t.first_only, second_only=t.second_only, p_value=t.p_value, corrected_p_value=p)
            for (a, b, t), p in zip(tests, corrected, strict=True)
        ],
        n=n,
    )


def _measure(comparisons: Comparisons, model: ModelScores, on_policy: OnPolicyScores | None, seed: int) -> ModelBenchmark:
    won = outcomes(model.chosen, model.rejected)
    margins = model.chosen - model.rejected
    everything = np.concatenate([model.chosen, model.rejected])
    length = spearman(everything, np.concatenate([model.chosen_tokens, model.rejected_tokens]))
    std = float(everything.std(ddof=1))
    return ModelBenchmark(
        name=model.name,
        fingerprint=model.fingerprint,
        accuracy=wilson(float(won.sum()), won.size),
        accuracy_clustered=clustered_mean(won, comparisons.prompts, seed=seed),
        ties=int((margins == 0).sum()),
        length_correlation=length.value if length else 0.0,
        mean=float(everything.mean()),
        std=std if std > 0 else 1.0,
        calibration=calibrate(margins, comparisons.prompts, seed=seed),
        reference=reference_of(model.chosen, model.rejected, model.chosen_tokens, model.rejected_tokens, comparisons.prompts),
        subsets={
            name: wilson(float(won[member].sum()), int(member.sum()))
            for name, member in _subsets(comparisons).items()
            if member.sum() >= SMALLEST_SUBSET
        },
        on_policy_rank_correlation=within_group_spearman(on_policy.proxy, on_policy.gold, on_policy.prompts) if on_policy else None,
        within_prompt_std=_within_prompt_std(on_policy) if on_policy else None,
    )


def _subsets(comparisons: Comparisons) -> dict[str, npt.NDArray[np.bool_]]:
    chosen, rejected = comparisons.chosen_words, comparisons.rejected_words
    by_length = {
        "chosen_longer": chosen > rejected,
        "chosen_shorter": chosen < rejected,
        "similar_length": np.abs(chosen - rejected) <= 0.1 * np.maximum(chosen, rejected),
    }
    return by_length | dict(comparisons.subsets)


def _within_prompt_std(on_policy: OnPolicyScores) -> float:
    total = float(on_policy.proxy.std())
    if total == 0:
        return 0.0
    return float(np.mean([on_policy.proxy[members].std() for members in group_indices(on_policy.prompts)]) / total)
