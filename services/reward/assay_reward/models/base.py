"""What a reward model is to the rest of the service, whatever its family."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from assay_data.conversations import Message
from assay_kit.errors import AssayError
from assay_reward.inputs import ScoreInput, Truncation


@dataclass(frozen=True, kw_only=True)
class Prepared:
    """One input, ready for the device. Equal inputs have equal scores.

    Attributes:
        ids: token ids of the whole; empty for a model that reads text.
        text: the text a model without a tokenizer reads; else empty.
        prompt_tokens: how many of the tokens are the prompt's.
        response_tokens: how many are the response's.
        tokens_dropped: how many were cut off.
    """

    ids: tuple[int, ...] = ()
    text: str = ""
    prompt_tokens: int
    response_tokens: int
    tokens_dropped: int = 0

    @property
    def tokens(self) -> int:
        """Length of the sequence."""
        return self.prompt_tokens + self.response_tokens


@dataclass(frozen=True, kw_only=True)
class Rendered:
    """What the model would see of a conversation."""

    text: str
    ids: tuple[int, ...] = ()
    truncated: bool = False
    warnings: tuple[str, ...] = ()


@dataclass(frozen=True, kw_only=True)
class MemberScore:
    """What one member of an ensemble gave an input."""

    name: str
    raw: float


@dataclass(frozen=True, kw_only=True)
class Computed:
    """What the device did for some prepared inputs."""

    raw: tuple[float, ...]
    """The head's output for each, in order; no activation."""
    computed_tokens: int
    """Tokens the device went through, padding not counted."""
    padded_tokens: int
    """Padding besides."""


class RewardModel(Protocol):
    """A reward model in memory."""

    kind: str
    """Name of the family."""
    architecture: str
    """By the model's own configuration."""
    dtype: str
    """Type of the weights, for example "float32"."""
    max_input_tokens: int
    """Longest input in tokens; 0 where there is no limit."""

    def prepare(self, inputs: Sequence[ScoreInput], truncation: Truncation) -> list[Prepared | AssayError]:
        """Template, tokenizer and truncation, or for each input why it cannot be scored; any thread."""

    def render(self, conversation: tuple[Message, ...], truncation: Truncation) -> Rendered:
        """What the model would see; any thread.

        Raises:
            InvalidArgument: with a field below `conversation`.
            FailedPrecondition: the model has no chat template.
        """

    def score(self, prepared: Sequence[Prepared]) -> Computed:
        """Scores on the device; one thread at a time. The same sequence of inputs gives the same bits."""


@dataclass(frozen=True, kw_only=True)
class LoadOptions:
    """How a model is put on the machine."""

    device: str = "cpu"
    """Device of torch."""
    dtype: str = "float32"
    """Type of the weights."""
    max_input_tokens: int = 0
    """Limit below the model's own; 0 for none."""
    sequences_per_forward: int = 1
    """Sequences padded together; with 1 a score has the same bits in any company."""


@dataclass(frozen=True, kw_only=True)
class ModelKind:
    """A family of reward models."""

    name: str
    marker: str
    """File whose presence in a folder means this family."""
    load: Callable[[Path, LoadOptions], RewardModel]
    """Reads the folder; raises InvalidArgument("uri", …) where it is not what its marker says."""
