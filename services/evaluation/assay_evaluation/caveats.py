"""What every reader of a study on a tiny policy must know before the figures."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any


def caveats(gold: Mapping[str, Any] | None, data: Mapping[str, Any], flip_rates: list[float]) -> list[str]:
    """The caveats of a study, as sentences.

    Args:
        gold: The gold judge's kind and accuracy against people, where it was measured.
        data: The data's name and number of pairs.
        flip_rates: Shares of labels that were flipped before training the reward models.
    """
    sentences = []
    if gold and gold.get("kind") == "bag_of_words":
        agreement = (
            f", and it agrees with people on only {100 * gold['accuracy']:.0f} % of pairs" if gold.get("accuracy") is not None else ""
        )
        sentences.append(f"The gold judge is a bag of words: it looks at which words an answer holds, not at what it says{agreement}.")
    sentences.append(
        "The policy is tiny and its text is mostly nonsense with local grammar. What is shown is the machinery of optimisation, "
        "not the behaviour of a useful assistant."
    )
    if any(flip_rates):
        sentences.append(
            "The noise in the reward models' labels is symmetric random flips. Real mistakes of annotators are not random: "
            "they go with topic, length and the person."
        )
    sentences.append(f"One dataset ({data['name']}, {data['pairs']:,} pairs) and one seed; other data may give another picture.")
    return sentences
