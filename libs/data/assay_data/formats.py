"""What a row may look like, and the pair it stands for.

To add a format: write a function ``row -> PreferencePair | None`` (None: not my format) and put it into `FORMATS`.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping
from typing import Any

from assay_data.conversations import ROLES, Message, PreferencePair, Role

_MARKER = re.compile(r"\n\n(Human|Assistant):")
_HH_ROLES: dict[str, Role] = {"Human": "user", "Assistant": "assistant"}

Conversation = tuple[Message, ...]


class RowError(Exception):
    """A row that is no pair: the field at fault, and what would be right."""

    def __init__(self, field: str, message: str) -> None:
        self.field = field
        self.message = message
        super().__init__(f"{field}: {message}")


def pair_of(row: Any, *, source: str = "", split: str = "") -> PreferencePair:
    """The pair of one decoded row.

    Args:
        row: a JSON object or a Parquet row.
        source: source of the pair where the row names none.
        split: split of the pair where the row names none.

    Raises:
        RowError: names the field at fault.
    """
    if not isinstance(row, Mapping):
        raise RowError("", f"a row is a JSON object with the fields chosen and rejected, not {_kind(row)}")
    for side in ("chosen", "rejected"):
        if row.get(side) is None:
            raise RowError(
                side, f"missing; each row needs both chosen and rejected (this one has {', '.join(map(str, row)) or 'no field'})"
            )
    for read in FORMATS:
        pair = read(row)
        if pair is not None:
            return PreferencePair(
                prompt=pair.prompt,
                chosen=pair.chosen,
                rejected=pair.rejected,
                rejected_prompt=() if pair.rejected_prompt == pair.prompt else pair.rejected_prompt,
                source=_text(row, "source") or source,
                split=_text(row, "split") or split,
                metadata=_metadata(row),
            )
    raise RowError(
        "chosen",
        "a text without a prompt must be a whole transcript that begins with '\\n\\nHuman:' (HH-RLHF); else give the field prompt",
    )


def transcript(text: str, field: str = "transcript") -> Conversation:
    r"""The turns of an HH-RLHF transcript, split at the literal markers ``\n\nHuman:`` and ``\n\nAssistant:`` and nowhere else.

    The whitespace around a turn is taken off; the raw line keeps it.

    Raises:
        RowError: where the text does not begin with a marker.
    """
    pieces = _MARKER.split(text)
    if pieces[0].strip() or len(pieces) < 3:
        raise RowError(field, f"does not begin with '\\n\\nHuman:' as an HH-RLHF transcript does, but with {text[:40]!r}")
    return tuple(Message(_HH_ROLES[who], said.strip()) for who, said in zip(pieces[1::2], pieces[2::2], strict=True))


def _hh_transcripts(row: Mapping[str, Any]) -> PreferencePair | None:
    """Anthropic/hh-rlhf: chosen and rejected are whole transcripts, there is no prompt."""
    if row.get("prompt") is not None:
        return None
    chosen, rejected = row["chosen"], row["rejected"]
    if not isinstance(chosen, str) or not isinstance(rejected, str):
        return None
    if not _MARKER.match(chosen) and not _MARKER.match(rejected):
        return None
    sides = {}
    for side in ("chosen", "rejected"):
        turns = transcript(row[side], side)
        if turns[-1].role != "assistant":
            raise RowError(side, "the last turn is Human's; a transcript ends with the Assistant's answer, which may be empty")
        sides[side] = turns
    return PreferencePair(
        prompt=sides["chosen"][:-1],
        chosen=sides["chosen"][-1].content,
        rejected=sides["rejected"][-1].content,
        rejected_prompt=sides["rejected"][:-1],
    )


def _message_lists(row: Mapping[str, Any]) -> PreferencePair | None:
    """Chosen and rejected are whole conversations as lists of messages, with or without a prompt beside them (TRL, UltraFeedback)."""
    if isinstance(row["chosen"], str) and isinstance(row["rejected"], str):
        return None
    prompt = _prompt(row["prompt"], "prompt") if row.get("prompt") is not None else ()
    contexts, answers = {}, {}
    for side in ("chosen", "rejected"):
        turns = _messages(row[side], side)
        if not turns or turns[-1].role != "assistant":
            raise RowError(side, "a list of messages ends with the assistant's answer")
        contexts[side] = _context(prompt, turns[:-1], side)
        answers[side] = turns[-1].content
    return PreferencePair(
        prompt=contexts["chosen"], chosen=answers["chosen"], rejected=answers["rejected"], rejected_prompt=contexts["rejected"]
    )


def _context(prompt: Conversation, before: Conversation, side: str) -> Conversation:
    if not prompt:
        if not before:
            raise RowError("prompt", f"missing, and {side} holds the answer alone; give the prompt in a field of its own")
        return before
    if before[: len(prompt)] == prompt:
        return before
    if not before or before[0].role in ("assistant", "tool"):
        return prompt + before
    raise RowError(side, "the conversation begins otherwise than the prompt; it must repeat the prompt or go on from it")


def _prompt_and_answers(row: Mapping[str, Any]) -> PreferencePair | None:
    """The project's own format and plain ``{prompt, chosen, rejected}``: texts or lists of messages as prompt, texts as answers."""
    if row.get("prompt") is None:
        return None
    other = row.get("rejected_prompt")
    return PreferencePair(
        prompt=_prompt(row["prompt"], "prompt"),
        chosen=row["chosen"],
        rejected=row["rejected"],
        rejected_prompt=_prompt(other, "rejected_prompt") if other is not None and len(other) else (),
    )


FORMATS: tuple[Callable[[Mapping[str, Any]], PreferencePair | None], ...] = (_hh_transcripts, _message_lists, _prompt_and_answers)
"""Readers of a row, asked in this order."""


def _prompt(value: Any, field: str) -> Conversation:
    if not isinstance(value, str):
        return _messages(value, field)
    if _MARKER.match(value):
        turns = transcript(value, field)
        return turns[:-1] if turns[-1] == Message("assistant", "") else turns
    return (Message("user", value),)


def _messages(value: Any, field: str) -> Conversation:
    if not isinstance(value, list | tuple):
        raise RowError(field, f'a text or a list of {{"role", "content"}} is wanted, not {_kind(value)}')
    turns = []
    for index, item in enumerate(value):
        path = f"{field}[{index}]"
        if not isinstance(item, Mapping):
            raise RowError(path, f'a message is {{"role", "content"}}, not {_kind(item)}')
        role, content = item.get("role"), item.get("content")
        if role not in ROLES:
            raise RowError(f"{path}.role", f"{role!r} is no role; one of {', '.join(ROLES)}")
        if not isinstance(content, str):
            raise RowError(f"{path}.content", f"a text is wanted, not {_kind(content)}")
        turns.append(Message(role, content))
    return tuple(turns)


def _text(row: Mapping[str, Any], field: str) -> str:
    value = row.get(field)
    return value if isinstance(value, str) else ""


def _metadata(row: Mapping[str, Any]) -> dict[str, str]:
    value = row.get("metadata")
    if value is None:
        return {}
    if not isinstance(value, Mapping):
        raise RowError("metadata", f"an object of texts is wanted, not {_kind(value)}")
    return {str(name): fact if isinstance(fact, str) else json.dumps(fact) for name, fact in value.items() if fact is not None}


def _kind(value: Any) -> str:
    names = {dict: "an object", list: "a list", str: "a text", bool: "a boolean", int: "a number", float: "a number", type(None): "null"}
    return names.get(type(value), type(value).__name__)
