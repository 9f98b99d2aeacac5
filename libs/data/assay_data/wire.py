"""Conversations and pairs to and from their protobuf messages."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import overload

from assay.common.v1 import common_pb2
from assay_data.conversations import Message, PreferencePair, Role

_TO_PROTO: dict[Role, common_pb2.Role.ValueType] = {
    "system": common_pb2.ROLE_SYSTEM,
    "user": common_pb2.ROLE_USER,
    "assistant": common_pb2.ROLE_ASSISTANT,
    "tool": common_pb2.ROLE_TOOL,
}
_FROM_PROTO: dict[int, Role] = {number: role for role, number in _TO_PROTO.items()}


@overload
def to_proto(value: PreferencePair) -> common_pb2.PreferencePair: ...
@overload
def to_proto(value: Message) -> common_pb2.Message: ...
def to_proto(value: PreferencePair | Message) -> common_pb2.PreferencePair | common_pb2.Message:
    """The protobuf message of a pair (its id set) or of a turn.

    Raises:
        UnicodeEncodeError: where a text holds a lone surrogate, which UTF-8 cannot carry.
    """
    if isinstance(value, Message):
        return common_pb2.Message(role=_TO_PROTO[value.role], content=value.content)
    return common_pb2.PreferencePair(
        id=value.id,
        prompt=messages_to_proto(value.prompt),
        chosen=value.chosen,
        rejected=value.rejected,
        rejected_prompt=messages_to_proto(value.rejected_prompt),
        source=value.source,
        split=value.split,
        metadata=dict(value.metadata),
    )


@overload
def from_proto(value: common_pb2.PreferencePair) -> PreferencePair: ...
@overload
def from_proto(value: common_pb2.Message) -> Message: ...
def from_proto(value: common_pb2.PreferencePair | common_pb2.Message) -> PreferencePair | Message:
    """The pair or the turn of a protobuf message; the id is computed anew from the content.

    Raises:
        ValueError: where a role is not set or not known; the text begins with the field's path.
    """
    if isinstance(value, common_pb2.Message):
        return _message(value, "role")
    prompt = messages_from_proto(value.prompt, "prompt")
    rejected_prompt = messages_from_proto(value.rejected_prompt, "rejected_prompt")
    return PreferencePair(
        prompt=prompt,
        chosen=value.chosen,
        rejected=value.rejected,
        rejected_prompt=() if rejected_prompt == prompt else rejected_prompt,
        source=value.source,
        split=value.split,
        metadata=dict(value.metadata),
    )


def messages_to_proto(messages: Sequence[Message]) -> list[common_pb2.Message]:
    """The protobuf messages of a conversation."""
    return [common_pb2.Message(role=_TO_PROTO[message.role], content=message.content) for message in messages]


def messages_from_proto(messages: Iterable[common_pb2.Message], field: str = "messages") -> tuple[Message, ...]:
    """The conversation of protobuf messages.

    Raises:
        ValueError: where a role is not set or not known, for example ``prompt[2].role: …``.
    """
    return tuple(_message(message, f"{field}[{index}].role") for index, message in enumerate(messages))


def _message(message: common_pb2.Message, path: str) -> Message:
    role = _FROM_PROTO.get(message.role)
    if role is None:
        raise ValueError(f"{path}: {message.role} is no role; one of {', '.join(f'ROLE_{name.upper()}' for name in _TO_PROTO)}")
    return Message(role, message.content)
