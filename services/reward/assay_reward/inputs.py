"""What can be scored, as values of this service: free of gRPC, Kafka and any one model."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum

from assay_data.conversations import Message


class Truncation(Enum):
    """What to do with input that is longer than the model takes."""

    ERROR = "error"
    PROMPT_LEFT = "prompt_left"
    RESPONSE_RIGHT = "response_right"


class Scale(Enum):
    """Scale of a reported score."""

    RAW = "raw"
    STANDARDIZED = "standardized"
    CALIBRATED = "calibrated"
    LENGTH_CORRECTED = "length_corrected"


class Priority(Enum):
    """Order in the queue; a lower value goes first."""

    INTERACTIVE = 0
    NORMAL = 1
    BULK = 2


@dataclass(frozen=True, kw_only=True)
class ScoreInput:
    """One thing to be scored."""

    id: str
    """The caller's own, echoed; may be empty."""
    path: str
    """Path of the candidate or item in the request, for example "candidates[3]"."""
    field: str
    """Field within it that holds the answer, for example "text"."""


@dataclass(frozen=True, kw_only=True)
class TextAnswer(ScoreInput):
    """An answer as text to a conversation; goes through the chat template."""

    context: tuple[Message, ...]
    text: str


@dataclass(frozen=True, kw_only=True)
class TokenAnswer(ScoreInput):
    """An answer as token ids to a conversation as text, which the chat template renders up to where the answer begins."""

    context: tuple[Message, ...]
    ids: tuple[int, ...]


@dataclass(frozen=True, kw_only=True)
class Tokens(ScoreInput):
    """Token ids throughout; no template."""

    context_ids: tuple[int, ...]
    ids: tuple[int, ...]


@dataclass(frozen=True, kw_only=True)
class RawText(ScoreInput):
    """Text as it is; no template."""

    text: str


@dataclass(frozen=True, kw_only=True)
class ScoreOptions:
    """How to score."""

    scale: Scale = Scale.RAW
    truncation: Truncation = Truncation.ERROR
    priority: Priority = Priority.NORMAL
