"""What travels: records read, outputs to write, and how they are told apart from what is broken."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from google.protobuf.message import DecodeError, Message
from opentelemetry import context as otel_context
from opentelemetry import propagate

from assay_kit.errors import InvalidArgument
from assay_kit.topics import Topic

TYPE_HEADER = "assay-message-type"
"""Full protobuf name of the value."""
PRODUCER_HEADER = "assay-producer"
"""Who wrote the record."""
_OVERHEAD_BYTES = 128  # of a batch with one record: 61 bytes of header, lengths and deltas
_TRACE_HEADERS = frozenset({"traceparent", "tracestate"})


@dataclass(frozen=True)
class Record:
    """A record that was read and parsed."""

    topic: str
    partition: int
    offset: int
    key: bytes
    message: Any
    """The value as the topic's protobuf class; None for a deletion in a compacted topic."""
    headers: dict[str, str]


@dataclass(frozen=True)
class Output:
    """A record to write."""

    topic: Topic
    key: str
    message: Message
    headers: Mapping[str, str] = field(default_factory=dict)
    """Headers beside trace context, message type and producer, which are added."""


class Rejected(Exception):
    """A message is bad in itself: trying again would not help. It goes to the dead letters with this reason."""

    def __init__(self, reason: str) -> None:
        super().__init__(reason)
        self.reason = reason


class MessageTooLarge(InvalidArgument):
    """A record is larger than its topic takes."""

    def __init__(self, topic: Topic, size: int) -> None:
        super().__init__(
            "message",
            f"{size} bytes with key and headers, topic {topic.name} takes at most {topic.max_message_bytes}; "
            "send large things as an artifact, by URI",
        )
        self.topic = topic
        self.size = size
        self.limit = topic.max_message_bytes


@dataclass(frozen=True)
class Encoded:
    """A record as bytes, checked against the size its topic takes."""

    topic: str
    key: bytes | None
    value: bytes | None
    headers: list[tuple[str, bytes]]


def encode(
    topic: Topic,
    key: str | bytes,
    message: Message | None,
    *,
    producer: str,
    headers: Mapping[str, str] | None = None,
    context: otel_context.Context | None = None,
) -> Encoded:
    """The record as bytes, with the trace context of `context` (by default the current one) in its headers.

    Raises:
        TypeError: the message is not of the topic's class.
        MessageTooLarge: the record is larger than the topic takes.
    """
    if message is not None and not isinstance(message, topic.message):
        given = message.DESCRIPTOR.full_name if isinstance(message, Message) else type(message).__name__
        raise TypeError(f"topic {topic.name} takes {topic.message.DESCRIPTOR.full_name}, not {given}")
    texts = dict(headers or {})
    if "traceparent" not in texts:
        propagate.inject(texts, context=context)
    texts[TYPE_HEADER] = topic.message.DESCRIPTOR.full_name
    texts[PRODUCER_HEADER] = producer
    raw = [(name, text.encode()) for name, text in texts.items()]
    key_bytes = key.encode() if isinstance(key, str) else key
    value = None if message is None else message.SerializeToString()
    size = _OVERHEAD_BYTES + len(key_bytes) + len(value or b"") + sum(len(name.encode()) + len(text) + 4 for name, text in raw)
    if size > topic.max_message_bytes:
        raise MessageTooLarge(topic, size)
    return Encoded(topic=topic.name, key=key_bytes or None, value=value, headers=raw)


def header_texts(headers: Sequence[tuple[str, bytes | None]]) -> dict[str, str]:
    """Headers as text: UTF-8, or Latin-1 where they are not; of equal names the last."""
    return {name: _text(value or b"") for name, value in headers}


def parse(topic: Topic, raw: Any) -> Record:
    """A kafka-python record as a `Record`.

    Raises:
        Rejected: the value is no message of the topic's class.
    """
    headers = header_texts(raw.headers or [])
    expected = topic.message.DESCRIPTOR.full_name
    declared = headers.get(TYPE_HEADER, expected)
    if declared != expected:
        raise Rejected(f"header {TYPE_HEADER} says {declared}; topic {topic.name} takes {expected}")
    message: Message | None = None
    if raw.value is None:
        if not topic.compacted:
            raise Rejected(f"no value; topic {topic.name} takes {expected}")
    else:
        message = topic.message()
        try:
            message.ParseFromString(raw.value)
        except DecodeError as error:
            raise Rejected(f"the value ({len(raw.value)} bytes) is no {expected}: {error}") from error
    return Record(topic=raw.topic, partition=raw.partition, offset=raw.offset, key=raw.key or b"", message=message, headers=headers)


def trace_context(headers: Mapping[str, str]) -> otel_context.Context:
    """The trace context that a record carries; an empty one where it carries none."""
    return propagate.extract({name: text for name, text in headers.items() if name in _TRACE_HEADERS}, context=otel_context.Context())


def _text(value: bytes) -> str:
    try:
        return value.decode()
    except UnicodeDecodeError:
        return value.decode("latin-1")
