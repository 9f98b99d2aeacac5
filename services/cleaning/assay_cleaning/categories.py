"""The values cleaning speaks in: categories, actions, findings, verdicts, options."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from types import MappingProxyType

from assay_data.conversations import PreferencePair


class Category(StrEnum):
    """What a recorded pair is (arXiv 2409.19024)."""

    SAME = "SAME"
    """The recorded preference is right."""
    OPPOSITE = "OPPOSITE"
    """It is the wrong way round."""
    TOXIC = "TOXIC"
    """Both answers are harmful."""
    VAGUE = "VAGUE"
    """Nobody could tell which is better, or what was asked."""
    REPETITIVE = "REPETITIVE"
    """The two answers say the same, or an answer repeats itself."""
    EMPTY = "EMPTY"
    """An answer or the question is missing."""


class Action(StrEnum):
    """What is done with a pair."""

    KEEP = "KEEP"
    """Kept as it is."""
    FLIP = "FLIP"
    """Chosen and rejected exchanged."""
    DROP = "DROP"
    """Left out of the clean set."""


DEFAULT_RULES: Mapping[Category, Action] = MappingProxyType(
    {category: Action.DROP for category in Category} | {Category.SAME: Action.KEEP, Category.OPPOSITE: Action.FLIP}
)
"""What is done with the pairs of each category unless the options say otherwise."""

DEFAULT_MIN_FLIP_CONFIDENCE = 0.5
"""Least probability that a recorded preference is wrong at which it is turned round."""


@dataclass(frozen=True, kw_only=True)
class Evidence:
    """One reason for a verdict.

    Attributes:
        detector: name of the detector that found it.
        category: what it speaks for.
        score: what it measured, in its own unit.
        threshold: value at which it speaks.
        confidence: probability that its category is right, going by this reason alone; 0..1.
        explanation: a sentence for people.
    """

    detector: str
    category: Category
    score: float
    threshold: float
    confidence: float
    explanation: str


@dataclass(frozen=True, kw_only=True)
class Options:
    """How to clean.

    Attributes:
        rules: action of each category.
        min_flip_confidence: least confidence at which an Opposite pair is turned round; 0..1.
        committee_uri: the committee that judges directions; empty: none is asked, and nothing is found Opposite.
    """

    rules: Mapping[Category, Action] = field(default_factory=lambda: DEFAULT_RULES)
    min_flip_confidence: float = DEFAULT_MIN_FLIP_CONFIDENCE
    committee_uri: str = ""


@dataclass(frozen=True, kw_only=True)
class Verdict:
    """A pair with its category.

    Attributes:
        pair: the pair as it was read.
        category: what it is.
        confidence: probability that this is right, as far as the detectors can tell; 0..1.
        evidence: reasons, strongest first.
        action: what is done with it.
        policy_id: hash of detectors, thresholds, committee and options; the same hash gives the same verdicts.
    """

    pair: PreferencePair
    category: Category
    confidence: float
    evidence: tuple[Evidence, ...]
    action: Action
    policy_id: str

    def clean_pair(self) -> PreferencePair | None:
        """The pair as it goes into the clean set; None where it is left out."""
        if self.action is Action.DROP:
            return None
        return self.pair.turned_round() if self.action is Action.FLIP else self.pair
