"""Samples of a policy in a file: one line a prompt, with token ids and log-probabilities."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from assay_data.conversations import Message, PreferencePair, prompt_key
from assay_data.pairs import read_pairs
from assay_data.storage import read_jsonl


@dataclass(frozen=True, kw_only=True)
class Answer:
    """One sample.

    Attributes:
        text: The text.
        tokens: Token ids in the policy's vocabulary, with EOS where the answer ended by itself.
        log_prob: Sum of the tokens' log-probabilities under the policy at temperature 1, in nats; None where not told.
    """

    text: str
    tokens: tuple[int, ...]
    log_prob: float | None


@dataclass(frozen=True, kw_only=True)
class PromptSamples:
    """The samples of one prompt."""

    prompt_id: str
    prompt: tuple[Message, ...]
    answers: tuple[Answer, ...]


@dataclass(frozen=True, kw_only=True)
class Prompt:
    """A prompt with its key."""

    id: str
    messages: tuple[Message, ...]


def prompts_of(pairs: Iterable[PreferencePair], limit: int = 0) -> list[Prompt]:
    """The different prompts of pairs, in the order they first stand, at most `limit` of them (0: all)."""
    prompts: dict[str, Prompt] = {}
    for pair in pairs:
        key = prompt_key(pair)
        if key not in prompts:
            prompts[key] = Prompt(id=key, messages=pair.prompt)
            if len(prompts) == limit:
                break
    return list(prompts.values())


def read_prompts(uri: str, limit: int = 0) -> list[Prompt]:
    """The different prompts of a file of pairs."""
    return prompts_of(read_pairs(uri), limit)


def to_row(samples: PromptSamples) -> dict[str, Any]:
    """The samples of a prompt as JSON."""
    return {
        "prompt_id": samples.prompt_id,
        "prompt": [{"role": message.role, "content": message.content} for message in samples.prompt],
        "answers": [{"text": a.text, "tokens": list(a.tokens), "log_prob": a.log_prob} for a in samples.answers],
    }


def from_row(row: dict[str, Any]) -> PromptSamples:
    """The samples of a prompt from JSON."""
    return PromptSamples(
        prompt_id=row["prompt_id"],
        prompt=tuple(Message(turn["role"], turn["content"]) for turn in row["prompt"]),
        answers=tuple(Answer(text=a["text"], tokens=tuple(a["tokens"]), log_prob=a["log_prob"]) for a in row["answers"]),
    )


def read_samples(uri: str) -> Iterator[PromptSamples]:
    """The samples of a file, in its order."""
    return (from_row(row) for row in read_jsonl(uri))


def texts_of(samples: Sequence[PromptSamples]) -> list[list[str]]:
    """The texts alone."""
    return [[answer.text for answer in one.answers] for one in samples]
