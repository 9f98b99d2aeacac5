"""What a detector is, and the pair as detectors read it."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property

from assay_cleaning.categories import Category, Evidence
from assay_data.bag_of_words import words_of
from assay_data.conversations import Message, PreferencePair

_SENTENCE_END = re.compile(r"(?<=[.!?])\s+|\n+")


@dataclass(frozen=True)
class Text:
    """A text with what detectors want of it, computed once."""

    text: str

    @cached_property
    def words(self) -> list[str]:
        """Lower-case words."""
        return words_of(self.text)

    @cached_property
    def sentences(self) -> list[str]:
        """Sentences and lines, lower case, with plain apostrophes."""
        plain = self.text.lower().replace("\u2019", "'")
        return [sentence for sentence in (piece.strip() for piece in _SENTENCE_END.split(plain)) if sentence]

    @cached_property
    def says_something(self) -> bool:
        """Whether there is a letter, a digit or a symbol such as an emoji in it."""
        return any(character.isalnum() or ord(character) > 0x2BFF for character in self.text)


@dataclass(frozen=True)
class Reading:
    """A pair as detectors read it."""

    pair: PreferencePair

    @cached_property
    def chosen(self) -> Text:
        """The chosen answer."""
        return Text(self.pair.chosen)

    @cached_property
    def rejected(self) -> Text:
        """The rejected answer."""
        return Text(self.pair.rejected)

    @property
    def answers(self) -> tuple[tuple[str, Text], tuple[str, Text]]:
        """Both answers with the names of their fields."""
        return (("chosen", self.chosen), ("rejected", self.rejected))

    @cached_property
    def questions(self) -> list[Text]:
        """What the person said, of both contexts where they differ."""
        turns: tuple[Message, ...] = (*self.pair.prompt, *self.pair.rejected_prompt)
        return [Text(turn.content) for turn in turns if turn.role == "user"]


@dataclass(frozen=True, kw_only=True)
class Finding:
    """What a detector measured.

    Attributes:
        score: in the detector's own unit; it speaks where this reaches its threshold.
        explanation: a sentence for people.
    """

    score: float
    explanation: str


@dataclass(frozen=True, kw_only=True)
class Detector:
    """A noise detector.

    Attributes:
        name: as in Evidence.
        category: what it speaks for.
        description: what it looks at, for people.
        version: raised with each change of what it does.
        threshold: score at which it speaks.
        top: highest score there is, or at which it is as sure as it gets; >= threshold.
        certainty: probability that it is right at the threshold and at `top`; in between it is interpolated. Set by hand and
            checked on the generated set; on human data it is a guess that human labels must confirm.
        look: measures a pair; None where there is nothing to measure.
    """

    name: str
    category: Category
    description: str
    version: int
    threshold: float
    top: float
    certainty: tuple[float, float]
    look: Callable[[Reading], Finding | None]

    def evidence(self, reading: Reading) -> Evidence | None:
        """What it has to say about a pair; None where it is silent."""
        finding = self.look(reading)
        if finding is None or finding.score < self.threshold:
            return None
        span = self.top - self.threshold
        share = min(1.0, (finding.score - self.threshold) / span) if span > 0 else 1.0
        low, high = self.certainty
        return Evidence(
            detector=self.name,
            category=self.category,
            score=finding.score,
            threshold=self.threshold,
            confidence=low + share * (high - low),
            explanation=finding.explanation,
        )


def quoted(text: str, limit: int = 60) -> str:
    """A text in quotes, cut where it is long."""
    shown = " ".join(text.split())
    return f"“{shown}”" if len(shown) <= limit else f"“{shown[: limit - 1]}…”"
