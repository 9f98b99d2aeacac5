"""Repetitive: the two answers say the same, or an answer repeats itself."""

from __future__ import annotations

import difflib
import itertools
from collections import Counter
from collections.abc import Sequence

from assay_cleaning.categories import Category
from assay_cleaning.detectors.base import Detector, Finding, Reading, quoted

_NEAR = 0.88
_NEGATIONS = frozenset(
    ("not", "no", "never", "none", "nothing", "cannot", "without", "yes", "don't", "can't", "won't", "isn't", "aren't", "doesn't", "didn't")
)
_MOST_MATCHES = 100_000  # of single words, beyond which pairs of neighbours are compared: the exact way takes quadratic time
_GRAM = 4
_FEWEST_WORDS_OF_A_LOOP = 12
_LOOP = 0.5


def similarity(left: Sequence[str], right: Sequence[str]) -> float:
    """Share of the words two texts have in common in order, 0..1; 0 where they differ in a negation and so in their meaning."""
    if list(left) == list(right):
        return 1.0 if left else 0.0
    counts_left, counts_right = Counter(left), Counter(right)
    total = len(left) + len(right)
    common = 2 * (counts_left & counts_right).total() / total
    if common < _NEAR or any(counts_left[word] != counts_right[word] for word in _NEGATIONS):
        return 0.0 if common >= _NEAR else common
    if sum(count * counts_right[word] for word, count in counts_left.items()) > _MOST_MATCHES:
        return 2 * (Counter(itertools.pairwise(left)) & Counter(itertools.pairwise(right))).total() / max(1, total - 2)
    matcher = difflib.SequenceMatcher(None, left, right, autojunk=False)
    return 2 * sum(block.size for block in matcher.get_matching_blocks()) / total


def repeated_share(words: Sequence[str]) -> float:
    """Share of a text's words that stand in a run of four words that was there before, 0..1; 0 for texts under 12 words."""
    if len(words) < _FEWEST_WORDS_OF_A_LOOP:
        return 0.0
    seen: set[tuple[str, ...]] = set()
    repeated = [False] * len(words)
    for start in range(len(words) - _GRAM + 1):
        gram = tuple(words[start : start + _GRAM])
        if gram in seen:
            repeated[start : start + _GRAM] = [True] * _GRAM
        seen.add(gram)
    return sum(repeated) / len(words)


def _near_duplicates(reading: Reading) -> Finding | None:
    left, right = reading.chosen.words, reading.rejected.words
    if not left or not right:
        if reading.pair.chosen.strip() and reading.pair.chosen.strip() == reading.pair.rejected.strip():
            return Finding(score=1.0, explanation="the two answers are equal")
        return None
    score = similarity(left, right)
    if score == 1.0:
        return Finding(score=score, explanation=f"the two answers have the same words: {quoted(reading.pair.chosen)}")
    return Finding(score=score, explanation=f"the two answers share {score:.0%} of their words in order: {quoted(reading.pair.chosen)}")


def _loops(reading: Reading) -> Finding | None:
    side, text = max(reading.answers, key=lambda answer: repeated_share(answer[1].words))
    score = repeated_share(text.words)
    return Finding(score=score, explanation=f"{score:.0%} of the {side} answer's words repeat what it said before: {quoted(text.text)}")


REPETITIVE = (
    Detector(
        name="near_duplicate_answers",
        category=Category.REPETITIVE,
        description=(
            "answers with the same words in the same order, case, punctuation and a few words apart; "
            "answers that differ in a negation are not the same"
        ),
        version=1,
        threshold=_NEAR,
        top=1.0,
        certainty=(0.8, 0.99),
        look=_near_duplicates,
    ),
    Detector(
        name="repeats_itself",
        category=Category.REPETITIVE,
        description="answers of at least 12 words of which a large share stands in runs of four words that were there before",
        version=1,
        threshold=_LOOP,
        top=0.8,
        certainty=(0.7, 0.98),
        look=_loops,
    ),
)
