"""Vague: nobody could tell which answer is better, or what was asked.

A pair is vague where both answers are non-answers ("I'm not sure", "What do you mean?"), where nothing intelligible was asked in
the whole conversation, or where the two answers were given to different conversations. One non-answer beside a real answer is not
vague: that preference can be judged. Nor is a refusal a non-answer: in harmlessness data it often is the right answer.
"""

from __future__ import annotations

import re

from assay_cleaning.categories import Category
from assay_cleaning.detectors.base import Detector, Finding, Reading, Text, quoted
from assay_data.bag_of_words import words_of

_STOCK = re.compile(
    r"\b(?:"
    r"(?:i'm|i am|we're) (?:\w+ )?(?:not|un) ?(?:\w+ )?(?:sure|certain)(?: (?:what|how|why|if) .*)?"
    r"|i (?:really |honestly |just )?(?:don't|do not|wouldn't) (?:really |quite )?(?:know|understand|get)(?: .*)?"
    r"|i (?:have|'ve) no (?:idea|opinion|clue)(?: .*)?"
    r"|(?:i (?:really |just )?)?(?:couldn't|can't|cannot) (?:really )?(?:say|tell)"
    r"|(?:well,? )?(?:it|that) (?:all |really )?(?:depends|varies)(?: on .{0,30})?"
    r"|(?:it's |it is |that's |that is )?hard to (?:say|tell)"
    r"|what (?:do|did|would) you mean(?: .*)?"
    r"|(?:can|could|would) you (?:please )?(?:clarify|explain|rephrase|repeat|elaborate|be more specific|say (?:that|it) again)(?: .*)?"
    r"|(?:(?:i'm )?sorry|excuse me|pardon)[,\s]*(?:what(?: was that| is that)?)?\s*(?=\?)"
    r"|(?:that's|that is|it's|what) an? (?:\w+ )?(?:good|great|interesting|hard|difficult|tough) (?:question|one)"
    r"|who (?:can|could) (?:tell|say|know)s?|who knows"
    r"|(?:that's|that is) (?:interesting|a thought)"
    r")"
)
_FILLERS = frozenset(
    words_of("""
    a about again ah aha alright am an and any are as at be been but by can could did do does er for from go ha haha heh hello hey hi hm hmm
    how huh i i'd i'll i'm if in is it it's just let's like maybe me mm my of oh ok okay on one or perhaps please possibly probably quite
    really right so some something sorry sort sure than that that's the them then there these they thing things think this those to too um
    us very was way we well were what what's when where which who why will with would yeah you you're your
    """)
)
_ENOUGH = 4
_NON_ANSWER = 0.75


def content_words(text: str) -> list[str]:
    """Words that are no filler."""
    return [word for word in words_of(text) if word not in _FILLERS]


def vagueness(text: Text) -> float:
    """How little an answer says, 0..1: 1 where nothing is left beside stock phrases and fillers, 0 where four content words are."""
    if not text.words:
        return 0.0
    stock = False
    left: list[str] = []
    for sentence in text.sentences:
        rest, found = _STOCK.subn(" ", sentence)
        stock = stock or found > 0
        left += content_words(rest)
    if left and not stock:
        return 0.0
    return 1.0 - min(len(left), _ENOUGH) / _ENOUGH


def _non_answers(reading: Reading) -> Finding | None:
    score = min(vagueness(reading.chosen), vagueness(reading.rejected))
    return Finding(
        score=score, explanation=f"neither answer says anything: {quoted(reading.pair.chosen)} and {quoted(reading.pair.rejected)}"
    )


def _unclear_question(reading: Reading) -> Finding | None:
    if not reading.questions:
        return None
    if any(content_words(question.text) or any(ord(letter) > 0x7F for letter in question.text) for question in reading.questions):
        return None
    said = " / ".join(quoted(question.text, 30) for question in reading.questions)
    return Finding(score=1.0, explanation=f"all the person said is {said}")


def _different_contexts(reading: Reading) -> Finding | None:
    pair = reading.pair
    if not pair.rejected_prompt:
        return None
    turns = max(len(pair.prompt), len(pair.rejected_prompt))
    same = sum(left == right for left, right in zip(pair.prompt, pair.rejected_prompt, strict=False))
    return Finding(
        score=1 - same / turns, explanation=f"the answers belong to different conversations: {turns - same} of {turns} turns differ"
    )


VAGUE = (
    Detector(
        name="non_answers",
        category=Category.VAGUE,
        description="pairs of answers that hold little beside stock phrases such as “I'm not sure” or “What do you mean?”",
        version=1,
        threshold=_NON_ANSWER,
        top=1.0,
        certainty=(0.7, 0.9),
        look=_non_answers,
    ),
    Detector(
        name="unclear_question",
        category=Category.VAGUE,
        description="conversations in which the person said nothing but fillers",
        version=1,
        threshold=1.0,
        top=1.0,
        certainty=(0.85, 0.85),
        look=_unclear_question,
    ),
    Detector(
        name="different_contexts",
        category=Category.VAGUE,
        description="pairs whose answers were given to different conversations; the score is the share of turns that differ",
        version=1,
        threshold=0.01,
        top=1.0,
        certainty=(0.7, 0.95),
        look=_different_contexts,
    ),
)
