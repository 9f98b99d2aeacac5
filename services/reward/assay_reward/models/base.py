"""What a reward model is to the rest of the service, whatever its family."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol, TypeAlias, runtime_checkable

from assay_data.conversations import Message
from assay_data.fingerprints import Fingerprint, fingerprint_folder
from assay_kit.errors import AssayError
from assay_reward.inputs import ScoreInput, Truncation
from assay_reward.models.memory import folder_bytes


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
    """A part of an input's score, such as what one member of an ensemble gave."""

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
    members: tuple[tuple[MemberScore, ...], ...] = ()
    """The parts that each score is made of, in order; empty for a model without parts."""
    std: tuple[float | None, ...] = ()
    """Standard deviation (n - 1) of each score's members; empty unless the members score alike and are two or more."""
    errors: tuple[AssayError | None, ...] = ()
    """Why an input has no score, its `raw` then NaN; empty where all have one."""


class ModelInMemory(Protocol):
    """What every model in memory has, wherever it computes."""

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


class RewardModel(ModelInMemory, Protocol):
    """A reward model in memory."""

    def cost(self, prepared: Sequence[Prepared]) -> int:
        """Tokens the device would go through for these in one `score`, padding not counted, what they share counted once; any thread."""

    def score(self, prepared: Sequence[Prepared]) -> Computed:
        """Scores on the device; one thread at a time. The same sequence of inputs gives the same bits."""


@runtime_checkable
class RemoteModel(ModelInMemory, Protocol):
    """A reward model that computes elsewhere: it waits for answers, and must not hold up the device meanwhile."""

    async def ask(self, prepared: Sequence[Prepared]) -> Computed:
        """Scores all of a request's inputs together, so that those of one context can be held against each other.

        Cancelling it ends what it has under way.

        Raises:
            Unavailable, ResourceExhausted: there is no answer, however often it was asked.
            FailedPrecondition: what answers refuses the question.
        """


@runtime_checkable
class HasEngine(Protocol):
    """A model that is not computed by this service's own engine."""

    @property
    def engine_version(self) -> str:
        """What computes it, with its version."""


AnyModel: TypeAlias = RewardModel | RemoteModel


@dataclass(frozen=True, kw_only=True)
class LoadOptions:
    """How a model is put on the machine."""

    device: str = "cpu"
    """Device of torch."""
    dtype: str = "float32"
    """Type of the weights."""
    max_input_tokens: int = 0
    """Limit below the model's own; 0 for none."""
    cache: Path = Path(".assay/fetched-models")
    """Folder for members fetched from other stores."""
    inside: tuple[Path, ...] = ()
    """Folders whose member this one is, outermost first."""
    judge_concurrency: int = 16
    """Most requests in flight to one judge."""
    judge_timeout_seconds: float = 60.0
    """Longest wait for one answer of a judge."""


def own_files(folder: Path, options: LoadOptions) -> Fingerprint:
    """Fingerprint of a model whose scores depend on nothing outside its folder.

    Raises:
        DataError: there are no weights.
    """
    return fingerprint_folder(folder)


def own_weights(folder: Path, options: LoadOptions) -> int:
    """Bytes in memory of a model that has no weights but those in its folder.

    Raises:
        InvalidArgument: field `uri`; a file of weights is damaged.
    """
    return folder_bytes(folder, options.dtype)


def no_weights(folder: Path, options: LoadOptions) -> int:
    """Bytes in memory of a model that computes elsewhere: none."""
    return 0


@dataclass(frozen=True, kw_only=True)
class ModelKind:
    """A family of reward models."""

    name: str
    marker: str
    """File whose presence in a folder means this family."""
    load: Callable[[Path, LoadOptions], AnyModel]
    """Reads the folder; raises InvalidArgument("uri", …) where it is not what its marker says."""
    fingerprint: Callable[[Path, LoadOptions], Fingerprint] = own_files
    """Hashes of all that the scores depend on; a family whose folder holds no weights, or not alone, has its own."""
    weight_bytes: Callable[[Path, LoadOptions], int] = own_weights
    """Bytes that its weights will take in memory, told without reading them; a family made of others sums theirs."""
