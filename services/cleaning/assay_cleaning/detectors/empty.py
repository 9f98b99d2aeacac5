"""Empty: an answer or the question is missing."""

from __future__ import annotations

from assay_cleaning.categories import Category
from assay_cleaning.detectors.base import Detector, Finding, Reading


def _empty_answer(reading: Reading) -> Finding | None:
    missing = [side for side, text in reading.answers if not text.says_something]
    if not missing:
        return None
    which = "both answers hold" if len(missing) == 2 else f"the {missing[0]} answer holds"
    return Finding(score=float(len(missing)), explanation=f"{which} no letter and no digit")


def _empty_question(reading: Reading) -> Finding | None:
    for prompt in filter(None, (reading.pair.prompt, reading.pair.rejected_prompt)):
        last = next((turn for turn in reversed(prompt) if turn.role == "user"), None)
        if last is not None and not any(character.isalnum() for character in last.content):
            return Finding(score=1.0, explanation="the person's last turn holds no letter and no digit")
    if not reading.questions:
        return Finding(score=1.0, explanation="no turn of the conversation is the person's")
    return None


EMPTY = (
    Detector(
        name="empty_answer",
        category=Category.EMPTY,
        description="answers without a letter, a digit or a symbol; the score is how many of the two",
        version=1,
        threshold=1.0,
        top=2.0,
        certainty=(0.99, 0.999),
        look=_empty_answer,
    ),
    Detector(
        name="empty_question",
        category=Category.EMPTY,
        description="conversations in which nothing was asked: no turn of the person's, or a last one without a letter or digit",
        version=1,
        threshold=1.0,
        top=1.0,
        certainty=(0.99, 0.99),
        look=_empty_question,
    ),
)
