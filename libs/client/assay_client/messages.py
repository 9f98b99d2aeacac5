"""What callers give, as protobuf; what services give, as plain Python."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from google.protobuf import json_format, struct_pb2

from assay.common.v1 import common_pb2
from assay_data.conversations import Message, PreferencePair
from assay_data.wire import messages_to_proto, to_proto

Turn = Message | Mapping[str, str]
"""A turn: assay_data's Message, or {"role": …, "content": …}."""


def turns(messages: Sequence[Turn]) -> list[Message]:
    """Turns as Message.

    Raises:
        ValueError: a turn has no known role, or no content; says which.
    """
    answer: list[Message] = []
    for index, one in enumerate(messages):
        if isinstance(one, Message):
            answer.append(one)
            continue
        if one.get("role") not in ("system", "user", "assistant", "tool") or not isinstance(one.get("content"), str):
            raise ValueError(
                f"messages[{index}] must be {{'role': 'system' | 'user' | 'assistant' | 'tool', 'content': text}}, not {dict(one)!r}"
            )
        answer.append(Message(role=one["role"], content=one["content"]))  # type: ignore[arg-type]
    return answer


def conversation(messages: Sequence[Turn]) -> common_pb2.Conversation:
    """A conversation as protobuf."""
    return common_pb2.Conversation(messages=messages_to_proto(turns(messages)))


def pair(value: PreferencePair | common_pb2.PreferencePair) -> common_pb2.PreferencePair:
    """A pair as protobuf."""
    return to_proto(value) if isinstance(value, PreferencePair) else value


def selector(model: str) -> common_pb2.ModelSelector:
    """A model by its name, or `name@revision`."""
    name, _, revision = model.partition("@")
    return common_pb2.ModelSelector(name=name, revision=revision)


def plain(struct: struct_pb2.Struct) -> dict[str, Any]:
    """A Struct as JSON, with integers where its doubles are whole."""
    answer: dict[str, Any] = _whole(json_format.MessageToDict(struct))
    return answer


def _whole(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _whole(one) for key, one in value.items()}
    if isinstance(value, list):
        return [_whole(one) for one in value]
    return int(value) if isinstance(value, float) and value.is_integer() else value


def text_of(completion: str | Sequence[Turn]) -> str:
    """The text of an answer that is text, or one turn.

    Raises:
        ValueError: it is several turns.
    """
    if isinstance(completion, str):
        return completion
    if len(completion) != 1:
        raise ValueError(f"a completion is one turn of the assistant, not {len(completion)} turns")
    turn = completion[0]
    return turn.content if isinstance(turn, Message) else turn["content"]
