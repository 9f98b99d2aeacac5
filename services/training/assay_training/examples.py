"""Preference pairs as token ids, through the tokenizer's chat template: the same ids that serving feeds to the model."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from transformers import PreTrainedTokenizerBase

from assay_data.conversations import Message, PreferencePair
from assay_training.runs import TrainingError

PROMPT_SHARE = 4
"""An answer that is too long is cut so that a fourth of the length is left to the prompt."""


@dataclass(frozen=True)
class Encoded:
    """A prompt, with the mark where the answer begins, and the answer with its end mark."""

    prompt_ids: list[int]
    answer_ids: list[int]

    @property
    def ids(self) -> list[int]:
        """The whole."""
        return self.prompt_ids + self.answer_ids

    def __len__(self) -> int:
        return len(self.prompt_ids) + len(self.answer_ids)

    def fitted(self, max_length: int) -> Encoded:
        """At most `max_length` tokens: the oldest of the prompt go first, then the end of an answer that leaves no room for a prompt."""
        room = min(len(self.prompt_ids), max_length // PROMPT_SHARE)
        answer = self.answer_ids[: max_length - room]
        keep = max_length - len(answer)
        return Encoded(self.prompt_ids[max(0, len(self.prompt_ids) - keep) :], answer)

    def with_whole_answer(self, max_length: int) -> Encoded:
        """At most `max_length` tokens, by the oldest of the prompt: what serving feeds to a reward model under PROMPT_LEFT.

        Raises:
            ValueError: the answer alone is longer.
        """
        keep = max_length - len(self.answer_ids)
        if keep < 0:
            raise ValueError(f"the answer has {len(self.answer_ids)} tokens; at most {max_length} are wanted")
        return Encoded(self.prompt_ids[max(0, len(self.prompt_ids) - keep) :], self.answer_ids)


def as_turns(messages: Iterable[Message]) -> list[dict[str, str]]:
    """Messages as chat templates take them."""
    return [{"role": message.role, "content": message.content} for message in messages]


def render(tokenizer: PreTrainedTokenizerBase, conversations: Sequence[list[dict[str, str]]], *, generation: bool = False) -> list[str]:
    """The text of each conversation after the chat template."""
    return [str(tokenizer.apply_chat_template(turns, tokenize=False, add_generation_prompt=generation)) for turns in conversations]


def token_ids(tokenizer: PreTrainedTokenizerBase, texts: Sequence[str]) -> list[list[int]]:
    """The ids of each text, with no special tokens but those that the text has."""
    if not texts:
        return []
    ids: list[list[int]] = tokenizer(list(texts), add_special_tokens=False, verbose=False)["input_ids"]
    return ids


def encode(tokenizer: PreTrainedTokenizerBase, answered: Sequence[tuple[Sequence[Message], str]]) -> list[Encoded]:
    """Prompts and answers as ids, not cut.

    The whole conversation is tokenised at once, as it is when it is scored; the answer begins where it parts from the
    tokenised prompt.
    """
    prompts = [as_turns(prompt) for prompt, _ in answered]
    wholes = [turns + [{"role": "assistant", "content": answer}] for turns, (_, answer) in zip(prompts, answered, strict=True)]
    prompt_ids = token_ids(tokenizer, render(tokenizer, prompts, generation=True))
    whole_ids = token_ids(tokenizer, render(tokenizer, wholes))
    encoded = []
    for start, whole in zip(prompt_ids, whole_ids, strict=True):
        length = _common_prefix(start, whole)
        encoded.append(Encoded(whole[:length], whole[length:]))
    return encoded


def chosen_and_rejected(pairs: Iterable[PreferencePair]) -> tuple[list[tuple[Sequence[Message], str]], list[tuple[Sequence[Message], str]]]:
    """The two answers of each pair, each with the turns before it."""
    chosen: list[tuple[Sequence[Message], str]] = []
    rejected: list[tuple[Sequence[Message], str]] = []
    for pair in pairs:
        chosen.append((pair.prompt, pair.chosen))
        rejected.append((pair.context_of_rejected(), pair.rejected))
    return chosen, rejected


def require(rows: Sequence[Any], *, uri: str, what: str) -> None:
    """Raises TrainingError where there is nothing to train on."""
    if not rows:
        raise TrainingError(f"{uri}: holds no {what}; at least one is needed")


def _common_prefix(left: Sequence[int], right: Sequence[int]) -> int:
    for index, (a, b) in enumerate(zip(left, right, strict=False)):
        if a != b:
            return index
    return min(len(left), len(right))
