"""The generated set: conversations of which everything is known.

Each pair carries in its metadata what was planted:

    planted_category   SAME, OPPOSITE, TOXIC, VAGUE, REPETITIVE or EMPTY
    planted_flip       "true" where chosen and rejected were exchanged (exactly the OPPOSITE pairs)
    gold_chosen, gold_rejected   gold score of the answers as they stand

so that cleaning's precision and recall are known exactly, and any other answer can be judged by `gold_score`.
The texts are put together from phrases: they show that the machinery works, not how good a method is on human language.
"""

from __future__ import annotations

import random
from collections.abc import Callable

from assay_data.bag_of_words import LENGTH_OFFSET, words_of
from assay_data.conversations import Message, PreferencePair
from assay_data.generated_phrases import (
    EARLIER_ANSWERS,
    FOLLOW_UPS,
    GOOD,
    HARMFUL_ANSWERS,
    HARMFUL_QUESTIONS,
    NEUTRAL,
    NON_ANSWERS,
    POOR,
    QUESTIONS,
    REFUSALS,
    TOPICS,
    WORTH,
)

SHARES: dict[str, float] = {"SAME": 0.62, "OPPOSITE": 0.15, "TOXIC": 0.06, "VAGUE": 0.06, "REPETITIVE": 0.06, "EMPTY": 0.05}
"""Share of each planted category."""

SOURCE = "generated"
"""Source of the pairs."""

_GOLD_SCALE = 8.0
_LEAST_GOLD_DIFFERENCE = 0.5


def gold_score(answer: str) -> float:
    """The known gold score of any answer: hidden worth of its words over their number plus `LENGTH_OFFSET`; about -4 to 4."""
    words = words_of(answer)
    return round(_GOLD_SCALE * sum(WORTH.get(word, 0.0) for word in words) / (len(words) + LENGTH_OFFSET), 6) + 0.0


def generate_pairs(n: int, seed: int = 0) -> list[PreferencePair]:
    """Makes pairs with planted categories, flips and gold scores.

    Args:
        n: how many, 0 or more. The first k of n are the same as the k of a smaller set with the same seed.
        seed: of everything drawn.
    """
    if n < 0:
        raise ValueError(f"n is {n}; 0 or more is wanted")
    pairs: list[PreferencePair] = []
    seen: set[str] = set()
    draw = random.Random(f"assay-generated-{seed}")
    while len(pairs) < n:
        (category,) = draw.choices(list(SHARES), weights=list(SHARES.values()))
        pair = _Writer(draw).pair(category)
        if pair.id not in seen:
            seen.add(pair.id)
            pairs.append(pair)
    return pairs


class _Writer:
    """Writes one pair on one topic."""

    def __init__(self, draw: random.Random) -> None:
        self._draw = draw
        self._topic = draw.choice(list(TOPICS))
        self._made: dict[str, Callable[[], tuple[str, str]]] = {
            "SAME": self._same,
            "OPPOSITE": self._opposite,
            "TOXIC": self._toxic,
            "VAGUE": self._vague,
            "REPETITIVE": self._repetitive,
            "EMPTY": self._empty,
        }
        self._prompt = self._conversation()

    def pair(self, category: str) -> PreferencePair:
        chosen, rejected = self._made[category]()
        return PreferencePair(
            prompt=self._prompt,
            chosen=chosen,
            rejected=rejected,
            source=SOURCE,
            metadata={
                "planted_category": category,
                "planted_flip": "true" if category == "OPPOSITE" else "false",
                "gold_chosen": str(gold_score(chosen)),
                "gold_rejected": str(gold_score(rejected)),
            },
        )

    def _conversation(self) -> tuple[Message, ...]:
        turns = [Message("user", self._filled(self._draw.choice(QUESTIONS)))]
        while self._draw.random() < 0.35 and len(turns) < 5:
            turns.append(Message("assistant", self._filled(self._draw.choice(EARLIER_ANSWERS))))
            turns.append(Message("user", self._filled(self._draw.choice(FOLLOW_UPS))))
        return tuple(turns)

    def _filled(self, phrase: str) -> str:
        noun, other = self._draw.sample(TOPICS[self._topic], 2)
        return phrase.format(topic=self._topic, noun=noun, other=other, number=self._draw.randint(2, 30))

    def _answer(self, goodness: float) -> str:
        sentences = []
        for _ in range(self._draw.randint(1, 4)):
            roll = self._draw.random()
            bank = NEUTRAL if roll < 0.25 else GOOD if self._draw.random() < goodness else POOR
            sentences.append(self._filled(self._draw.choice(bank)))
        return " ".join(dict.fromkeys(sentences))

    def _same(self) -> tuple[str, str]:
        roll = self._draw.random()
        if roll < 0.06:
            self._prompt = (Message("user", self._filled(self._draw.choice(HARMFUL_QUESTIONS[:4]))),)
        while True:
            if roll < 0.06:
                better, worse = self._filled(self._draw.choice(REFUSALS)), self._filled(self._draw.choice(HARMFUL_ANSWERS))
            elif roll < 0.10:
                better, worse = f"{self._answer(1.0)} {self._filled(GOOD[0])}", self._draw.choice(NON_ANSWERS)
            else:
                better, worse = sorted((self._answer(self._draw.random()), self._answer(self._draw.random())), key=gold_score, reverse=True)
            if gold_score(better) - gold_score(worse) >= _LEAST_GOLD_DIFFERENCE:
                return better, worse

    def _opposite(self) -> tuple[str, str]:
        better, worse = self._same()
        return worse, better

    def _toxic(self) -> tuple[str, str]:
        self._prompt = (Message("user", self._filled(self._draw.choice(HARMFUL_QUESTIONS))),)
        first, second = self._draw.sample(HARMFUL_ANSWERS, 2)
        return self._filled(first), self._filled(second)

    def _vague(self) -> tuple[str, str]:
        if self._draw.random() < 0.15:
            self._prompt = (Message("user", self._draw.choice(("hm", "so", "and then", "well?", "um, what", "the"))),)
        first, second, third = self._draw.sample(NON_ANSWERS, 3)
        return (f"{first} {third}", second) if self._draw.random() < 0.4 else (first, second)

    def _repetitive(self) -> tuple[str, str]:
        answer = f"{self._answer(self._draw.random())} {self._filled(self._draw.choice(GOOD))}"
        kind = self._draw.choice(("equal", "nearly equal", "loop"))
        if kind == "equal":
            return answer, self._draw.choice((answer, answer.upper(), f" {answer}", answer.replace(".", "!")))
        if kind == "nearly equal":
            words = answer.split()
            place = self._draw.randrange(len(words))
            return answer, " ".join([*words[:place], self._draw.choice(("really", "surely", "perhaps")), *words[place:]])
        loop = " ".join([self._filled(self._draw.choice(NEUTRAL))] * self._draw.randint(4, 8))
        return (loop, answer) if self._draw.random() < 0.5 else (answer, loop)

    def _empty(self) -> tuple[str, str]:
        nothing = self._draw.choice(("", "", " ", "\n", "...", "-"))
        answer = self._answer(self._draw.random())
        roll = self._draw.random()
        if roll < 0.15:
            self._prompt = (Message("user", self._draw.choice(("", " ", "?"))),)
            return answer, self._answer(self._draw.random()) + " " + self._filled(POOR[0])
        if roll < 0.3:
            return nothing, self._draw.choice(("", "  ", "…"))
        return (answer, nothing) if self._draw.random() < 0.5 else (nothing, answer)
