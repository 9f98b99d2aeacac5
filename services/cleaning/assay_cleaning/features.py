"""What the members of the committee look at: each view turns an answer into counted features."""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass

from assay_data.bag_of_words import LENGTH_OFFSET, words_of

_PUNCTUATION = re.compile(r"[?!,:;\"“”()*]|\n")


def unigrams(text: str) -> Counter[str]:
    """Its words."""
    return Counter(words_of(text))


def bigrams(text: str) -> Counter[str]:
    """Its words and its pairs of neighbouring words, with the edges of the text as words."""
    words = ["^", *words_of(text), "$"]
    counts = Counter(words[1:-1])
    counts.update(f"{left} {right}" for left, right in zip(words, words[1:], strict=False))
    return counts


def shape(text: str) -> Counter[str]:
    """How it opens, how long it is, its punctuation, and which words it uses at all."""
    words = words_of(text)
    counts = Counter({f"has {word}": 1 for word in words})
    counts.update(f"opens {' '.join(words[:length])}" for length in (1, 2, 3) if len(words) >= length)
    counts[f"length {min(int(2 * math.log2(len(words) + 1)), 16)}"] = 2
    for mark, number in Counter(_PUNCTUATION.findall(text)).items():
        counts[f"mark {mark!r}"] = min(number, 4)
    return counts


@dataclass(frozen=True, kw_only=True)
class View:
    """A member's way of looking.

    Attributes:
        name: of the member.
        features: answer -> counted features.
        offset: added to a vector's norm before the vector is divided by it.
        l2: strength of the pull of its weights to zero.
        min_count: answers a feature must be in.
    """

    name: str
    features: Callable[[str], Counter[str]]
    offset: float
    l2: float
    min_count: int


VIEWS: tuple[View, ...] = (
    View(name="words", features=unigrams, offset=LENGTH_OFFSET, l2=2.0, min_count=4),
    View(name="phrases", features=bigrams, offset=0.0, l2=1.0, min_count=4),
    View(name="shape", features=shape, offset=2.0, l2=4.0, min_count=6),
)
"""The members. Changing one changes the format of the committee's file: raise `assay_cleaning.committee.FORMAT`."""
