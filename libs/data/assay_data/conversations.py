"""Conversations and preference pairs, the values everything else passes around."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from types import MappingProxyType
from typing import Literal, get_args

Role = Literal["system", "user", "assistant", "tool"]
"""Who said a message."""

ROLES: tuple[str, ...] = get_args(Role)
"""All roles."""


@dataclass(frozen=True)
class Message:
    """One turn of a conversation."""

    role: Role
    content: str


@dataclass(frozen=True)
class PreferencePair:
    """Two answers to one prompt, of which people preferred the first.

    Attributes:
        prompt: the turns before the chosen answer, oldest first.
        chosen: the answer the record says is better; may be empty.
        rejected: the answer the record says is worse; may be empty.
        rejected_prompt: the turns before the rejected answer where they differ from ``prompt``; else empty.
        source: where the pair comes from, for example ``hh-rlhf/harmless-base``.
        split: split of the source, for example ``test``; may be empty.
        metadata: free facts; no part of the id.
    """

    prompt: tuple[Message, ...]
    chosen: str
    rejected: str
    rejected_prompt: tuple[Message, ...] = ()
    source: str = ""
    split: str = ""
    metadata: Mapping[str, str] = field(default_factory=lambda: MappingProxyType({}), compare=False)

    @cached_property
    def id(self) -> str:
        """First 32 hexadecimal digits of SHA-256 over prompt, contexts, chosen and rejected."""
        content = [_plain(self.prompt), _plain(self.rejected_prompt), self.chosen, self.rejected]
        return _sha256(content)[:32]

    def context_of_rejected(self) -> tuple[Message, ...]:
        """The turns before the rejected answer."""
        return self.rejected_prompt or self.prompt

    def turned_round(self) -> PreferencePair:
        """The pair with chosen and rejected exchanged, and their contexts with them."""
        return PreferencePair(
            prompt=self.context_of_rejected(),
            chosen=self.rejected,
            rejected=self.chosen,
            rejected_prompt=self.prompt if self.rejected_prompt else (),
            source=self.source,
            split=self.split,
            metadata=self.metadata,
        )

    def __getstate__(self) -> dict[str, object]:
        """Plain state: a read-only mapping does not pickle."""
        return {**self.__dict__, "metadata": dict(self.metadata)}


def prompt_key(pair: PreferencePair | Sequence[Message]) -> str:
    """Hash of the prompt, 32 hexadecimal digits: the key of the topics and of the folds of a committee.

    A pair whose two contexts differ has the key of its chosen answer's context up to the first turn that differs,
    so that the pair and the pair turned round have one key.
    """
    if not isinstance(pair, PreferencePair):
        return _sha256(_plain(pair))[:32]
    if not pair.rejected_prompt:
        return _sha256(_plain(pair.prompt))[:32]
    shared = []
    for left, right in zip(pair.prompt, pair.rejected_prompt, strict=False):
        if left != right:
            break
        shared.append(left)
    return _sha256(_plain(shared))[:32]


def _plain(messages: Sequence[Message]) -> list[list[str]]:
    return [[message.role, message.content] for message in messages]


def _sha256(content: object) -> str:
    # surrogatepass: a JSON escape such as \ud83d may stand alone; it must still have a hash.
    text = json.dumps(content, ensure_ascii=False, separators=(",", ":"))
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()
