"""Says in words what the figures of a study show, and what they do not.

A difference is called shown only where the paired test says so at 5 %; a null result is a sentence too, with its p-value.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from assay_evaluation.statistics import Floats, MeanDifference, paired_difference, wilson

SIGNIFICANT = 0.05
PARADIGMS = {"best_of_n": "best-of-n", "dpo": "DPO", "ppo": "PPO"}
CATEGORIES = ("same", "opposite", "toxic", "vague", "repetitive", "empty")


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """What came of using one reward model in one way.

    Attributes:
        algorithm: "best_of_n", "dpo" or "ppo".
        reward_model: Name of the reward model.
        gold_per_prompt: Gold score of each held-out prompt, shape (prompts,).
        kl: KL divergence to the reference in nats.
        words: Mean length of an answer; None where it was not measured.
        curve: Points on the way, by rising amount of training: {"kl", "gold"}.
    """

    algorithm: str
    reward_model: str
    gold_per_prompt: Floats
    kl: float
    words: float | None = None
    curve: Sequence[Mapping[str, float]] = field(default_factory=tuple)


def cleaning_findings(cleaning: Mapping[str, Any]) -> list[str]:
    """What cleaning found, and whether it can be known to be right."""
    rows, actions, categories = cleaning["rows_in"], cleaning["actions"], cleaning["categories"]
    if rows == 0:
        return ["There were no pairs to clean."]
    kept = wilson(actions.get("keep", 0), rows)
    faults = {name: count for name, count in categories.items() if name != "same" and count}
    sentences = [
        f"Of {rows:,} pairs, cleaning kept {actions.get('keep', 0):,} as they were ({rate(kept.value)}, {interval(kept)}), "
        f"turned {actions.get('flip', 0):,} round and dropped {actions.get('drop', 0):,}."
    ]
    if faults:
        worst = max(faults, key=lambda name: (faults[name], name))
        sentences.append(f"The most frequent fault is {worst.capitalize()}: {faults[worst]:,} pairs.")
    planted = cleaning.get("planted")
    if planted:
        parts = [
            f"{name.capitalize()} precision {rate(truth['precision']['value'])}, recall {rate(truth['recall']['value'])}"
            for name, truth in planted.items()
        ]
        sentences.append(f"Against the planted truth: {'; '.join(parts)}.")
    else:
        sentences.append("Whether each verdict is right is not known: nobody has labelled this data with the six categories.")
    return sentences


def gold_findings(gold: Mapping[str, Any] | None) -> list[str]:
    """How far the gold judge stands for people."""
    if gold is None:
        return ["The gold judge was not measured against people, so the gold scores say nothing about people."]
    accuracy = gold["accuracy"]
    sentence = f"The gold judge agrees with people on {rate(accuracy['value'])} of {accuracy['n']:,} held-out pairs ({interval(accuracy)})"
    if accuracy["low"] <= 0.5:
        return [sentence + ": that is not better than a coin, so nothing below carries over to people."]
    return [sentence + ": everything below is measured by this judge, and carries over to people only that far."]


def reward_model_findings(leaderboard: Mapping[str, Any]) -> list[str]:
    """Which reward models differ from each other and from the baselines, and which do not."""
    sentences = []
    longest = leaderboard["baselines"]["longest_wins"]["value"]
    length_rule, length_rate = ("longer", longest) if longest >= 0.5 else ("shorter", 1 - longest)
    for model in leaderboard["models"]:
        accuracy = model["accuracy"]
        measured = f"{model['name']} is right on {rate(accuracy['value'])} of {accuracy['n']:,} comparisons ({interval(accuracy)})"
        if accuracy["low"] <= 0.5:
            sentences.append(f"{measured}: that is not shown to be better than a coin.")
        elif accuracy["low"] <= length_rate:
            sentences.append(
                f"{measured}: better than a coin, but not shown to be better than “the {length_rule} answer wins” ({rate(length_rate)})."
            )
        else:
            sentences.append(f"{measured}: better than a coin and than “the {length_rule} answer wins” ({rate(length_rate)}).")
    for test in leaderboard["tests"]:
        p_value = test["corrected_p_value"]
        if p_value < SIGNIFICANT:
            better, worse = (test["first"], test["second"])
            if test["first_only"] < test["second_only"]:
                better, worse = worse, better
            sentences.append(f"{better} is more accurate than {worse} (exact McNemar, Holm-corrected p = {probability(p_value)}).")
        else:
            sentences.append(
                f"{test['first']} and {test['second']} cannot be told apart on {leaderboard['n']:,} comparisons "
                f"(exact McNemar, Holm-corrected p = {probability(p_value)}); their order may be chance."
            )
    return sentences


def paradigm_findings(outcomes: Sequence[Outcome], accuracy: Mapping[str, float], reference_words: float | None = None) -> list[str]:
    """For each way of using a reward model: does a more accurate one give a better policy?

    Args:
        outcomes: All outcomes; prompts in the same order in each.
        accuracy: Accuracy of each reward model, 0..1.
        reference_words: Mean length of the reference's answers in words.
    """
    sentences = []
    for algorithm, spoken in PARADIGMS.items():
        chosen = sorted((o for o in outcomes if o.algorithm == algorithm), key=lambda o: (-accuracy[o.reward_model], o.reward_model))
        if not chosen:
            continue
        if len(chosen) < 2:
            sentences.append(f"{spoken} was run with one reward model only, so it says nothing about the quality of reward models.")
            continue
        best, worst = chosen[0], chosen[-1]
        difference = paired_difference(best.gold_per_prompt, worst.gold_per_prompt)
        sentences.append(_verdict(spoken, best, worst, difference))
        if len(chosen) > 2:
            golds = [float(o.gold_per_prompt.mean()) for o in chosen]
            ordered = all(a >= b for a, b in zip(golds, golds[1:], strict=False))
            listed = ", ".join(f"{o.reward_model} {gold:.2f}" for o, gold in zip(chosen, golds, strict=True))
            sentences.append(
                f"{spoken}: by falling accuracy of the reward model the gold scores are {listed}: "
                f"{'the same order' if ordered else 'not the same order'}."
            )
        if algorithm == "ppo":
            sentences.extend(_matched_kl(best, worst))
        sentences.extend(_length(spoken, chosen, reference_words))
    return sentences


def limits(outcomes: Sequence[Outcome], models: int) -> list[str]:
    """What no figure of the study can show."""
    sentences = [
        "The intervals cover the choice of held-out prompts, not the luck of training: each model was trained once, with one seed, "
        "so a repetition may order close models differently."
    ]
    if models < 4:
        sentences.append(
            f"With {models} reward models no correlation between accuracy and policy quality can be tested; "
            "what is tested is the most against the least accurate."
        )
    if any(outcome.algorithm == "ppo" for outcome in outcomes):
        sentences.append(
            "PPO is compared after the same number of rollouts and at the same KL; trained for longer with a fixed KL penalty, "
            "a policy of a noisy reward model walks further from the start and can end higher, "
            "so a final score alone would not rank reward models."
        )
    return sentences


def gold_at_kl(curve: Sequence[Mapping[str, float]], kl: float) -> float | None:
    """Gold score where a curve first crosses a KL, by linear interpolation; None where it never does."""
    points = [{"kl": 0.0, "gold": curve[0]["gold"]}, *curve] if curve and curve[0]["kl"] > 0 else list(curve)
    for before, after in zip(points, points[1:], strict=False):
        if before["kl"] <= kl <= after["kl"]:
            width = after["kl"] - before["kl"]
            share = (kl - before["kl"]) / width if width > 0 else 0.0
            return float(before["gold"] + share * (after["gold"] - before["gold"]))
    return None


def rate(value: float) -> str:
    """A rate in per cent, for people."""
    return f"{100 * value:.1f} %"


def interval(estimate: Any) -> str:
    """The 95 % interval of a rate, for people."""
    low, high = (estimate["low"], estimate["high"]) if isinstance(estimate, Mapping) else (estimate.low, estimate.high)
    return f"95 % interval {100 * low:.1f} to {100 * high:.1f} %"


def probability(p_value: float) -> str:
    """A p-value, for people."""
    return f"{p_value:.3f}" if p_value >= 0.001 else f"{p_value:.1e}"


def _verdict(spoken: str, best: Outcome, worst: Outcome, difference: MeanDifference) -> str:
    estimate = difference.estimate
    figures = (
        f"{estimate.value:+.2f} gold (95 % interval {estimate.low:+.2f} to {estimate.high:+.2f}, "
        f"n = {estimate.n} prompts, paired t test p = {probability(difference.p_value)})"
    )
    between = f"the most accurate reward model ({best.reward_model}) against the least ({worst.reward_model}) gives {figures}"
    if difference.p_value >= SIGNIFICANT:
        return f"{spoken}: {between}. That is a null result: no effect of the reward model's quality is shown."
    if estimate.value > 0:
        return f"{spoken}: {between}. In this run the better reward model gave the better policy."
    return f"{spoken}: {between}. In this run the better reward model gave the WORSE policy, against the expectation."


def _matched_kl(best: Outcome, worst: Outcome) -> list[str]:
    if not best.curve or not worst.curve:
        return []
    kl = float(np.floor(10 * min(max(p["kl"] for p in best.curve), max(p["kl"] for p in worst.curve))) / 10)
    first, second = gold_at_kl(best.curve, kl), gold_at_kl(worst.curve, kl)
    if kl <= 0 or first is None or second is None:
        return ["PPO: the two curves share no stretch of KL, so they cannot be compared at the same KL."]
    relation = "higher" if first > second else "not higher"
    return [
        f"PPO at the same distance from the start (KL {kl:.1f} nats, read off the curves by interpolation, without an interval): "
        f"gold {first:.2f} with {best.reward_model}, {second:.2f} with {worst.reward_model}: the better reward model is {relation}. "
        f"At the end the KL is {best.kl:.1f} and {worst.kl:.1f}."
    ]


def _length(spoken: str, chosen: Sequence[Outcome], reference_words: float | None) -> list[str]:
    lengths = [(o.reward_model, o.words) for o in chosen if o.words is not None]
    if reference_words is None or not lengths:
        return []
    name, words = min(lengths, key=lambda item: item[1])
    if words >= 0.75 * reference_words:
        return []
    return [
        f"{spoken} shortens answers: {words:.0f} words with {name}, {reference_words:.0f} at the start. "
        "Part of the gain may be length rather than sense."
    ]
