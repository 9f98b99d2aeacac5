"""The loads: which texts, in which requests.

Lengths in tokens are drawn from log-normal distributions and cut to a range: like those of HH-RLHF, or with a long prompt.
Texts are words of generated conversations in random order, so that no two begin alike further than their template does. Each
repetition has texts of its own: what a server remembers of the one before does not help it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from benchmarks.reward_peers.checkpoints import chat_tokenizer

from assay_data.generated import generate_pairs


@dataclass(frozen=True, kw_only=True)
class Lengths:
    """In tokens."""

    median: float
    sigma: float
    """Standard deviation of the logarithm."""
    least: int
    most: int


@dataclass(frozen=True, kw_only=True)
class Load:
    """A kind of work."""

    name: str
    candidates: int
    """Answers to each prompt, sent together."""
    prompt: Lengths
    response: Lengths
    in_flight: int
    """Requests under way at a time; enough to keep any server busy."""
    groups: dict[str, int]
    """Prompts of one repetition, by model."""


@dataclass(frozen=True, kw_only=True)
class Group:
    """A prompt and answers to it: one request."""

    prompt: str
    answers: tuple[str, ...]

    @property
    def rendered(self) -> tuple[str, ...]:
        """Whole conversations as the chat template writes them."""
        template = chat_tokenizer().apply_chat_template
        return tuple(
            str(template([{"role": "user", "content": self.prompt}, {"role": "assistant", "content": answer}], tokenize=False))
            for answer in self.answers
        )


_HH = {"prompt": Lengths(median=145, sigma=0.35, least=60, most=300), "response": Lengths(median=75, sigma=0.4, least=20, most=180)}
_LONG = {"prompt": Lengths(median=1000, sigma=0.2, least=600, most=1500), "response": Lengths(median=200, sigma=0.3, least=80, most=400)}

LOADS = {
    load.name: load
    for load in (
        Load(name="single-hh", candidates=1, **_HH, in_flight=64, groups={"5m": 128, "100m": 24}),
        Load(name="pairs-hh", candidates=2, **_HH, in_flight=32, groups={"5m": 64, "100m": 12}),
        Load(name="best-of-16-hh", candidates=16, **_HH, in_flight=8, groups={"5m": 12, "100m": 2}),
        Load(name="single-long", candidates=1, **_LONG, in_flight=32, groups={"5m": 32, "100m": 4}),
        Load(name="pairs-long", candidates=2, **_LONG, in_flight=16, groups={"5m": 16, "100m": 2}),
        Load(name="best-of-16-long", candidates=16, **_LONG, in_flight=4, groups={"5m": 4, "100m": 1}),
    )
}


def texts(load: Load, count: int, *, seed: int) -> list[Group]:
    """Groups of a load; equal arguments give equal texts."""
    draws = np.random.default_rng([seed, *load.name.encode()])
    words, sizes = _words()

    def text(lengths: Lengths) -> str:
        wanted = int(np.clip(draws.lognormal(np.log(lengths.median), lengths.sigma), lengths.least, lengths.most))
        chosen = draws.integers(len(words), size=wanted)
        enough = int(np.searchsorted(np.cumsum(sizes[chosen]), wanted)) + 1
        return "".join(words[index] for index in chosen[:enough])

    return [Group(prompt=text(load.prompt), answers=tuple(text(load.response) for _ in range(load.candidates))) for _ in range(count)]


def _words() -> tuple[list[str], np.ndarray]:
    """Words with the space before them, and the tokens of each; no token crosses a space, so that they add up."""
    words = sorted({f" {word}" for pair in generate_pairs(400, seed=1) for word in pair.chosen.split() if word.isalpha()})
    ids: Sequence[Sequence[int]] = chat_tokenizer()(words, add_special_tokens=False)["input_ids"]
    return words, np.array([len(one) for one in ids])
