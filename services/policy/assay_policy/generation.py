"""What generating is: the values that go in and come out, and the one protocol that every backend speaks."""

from __future__ import annotations

import enum
import hashlib
import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from dataclasses import dataclass, field
from typing import Protocol, TypeAlias

from assay_data.conversations import Message
from assay_kit.errors import AssayError, Cancelled, DeadlineExceeded

Turns: TypeAlias = tuple[Message, ...]
"""A conversation, the last turn not the assistant's."""


class Finish(enum.Enum):
    """Why an answer ends."""

    UNKNOWN = "unknown"
    """The server does not tell."""
    STOP = "stop"
    """The model ended it, or a stop text came."""
    LENGTH = "length"
    """The most new tokens were reached."""


@dataclass(frozen=True, kw_only=True)
class Sampling:
    """How to sample."""

    max_new_tokens: int = 128
    """Most new tokens, > 0."""
    min_new_tokens: int = 0
    """Least new tokens, at most `max_new_tokens`."""
    temperature: float = 1.0
    """0 is greedy."""
    top_p: float = 1.0
    """Nucleus mass in (0, 1]."""
    seed: int = 0
    """Unsigned, 64 bits."""
    stop: tuple[str, ...] = ()
    """Texts that end an answer; they are cut off."""


@dataclass(frozen=True, kw_only=True)
class Answer:
    """One answer."""

    text: str
    """Without special tokens and without the one space that chat templates put in front."""
    token_ids: tuple[int, ...] = ()
    """Ids, the end-of-sequence token included where the model ended it; empty where the server does not tell."""
    finish: Finish = Finish.UNKNOWN
    log_prob: float | None = None
    """Sum over its tokens under the policy at temperature 1, in nats; None where the server does not tell."""
    tokens: int = 0
    """How many tokens were generated; 0 where the server does not tell."""


@dataclass(frozen=True, kw_only=True)
class Facts:
    """What is known of a loaded model."""

    fingerprint: str = ""
    """SHA-256 over weights, tokenizer and chat template; empty for a remote server."""
    served_model: str = ""
    """Name at the remote server; empty for a local model."""
    max_context_tokens: int = 0
    """Longest prompt and answer together; 0 where it is not known."""

    @property
    def identity(self) -> str:
        """Fingerprint or served name."""
        return self.fingerprint or self.served_model


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """What became of one prompt."""

    answers: tuple[Answer, ...] = ()
    error: AssayError | None = None
    prompt_tokens: int = 0
    """Tokens of the rendered prompt; 0 where the server does not tell."""


class Ticket:
    """The caller's patience: work whose caller is gone, or out of time, is dropped before it costs anything."""

    def __init__(self, deadline: float | None = None) -> None:
        """Takes the deadline on the clock of `time.monotonic`; None waits for ever."""
        self.deadline = deadline
        self._abandoned = threading.Event()

    def abandon(self) -> None:
        """The caller no longer wants it."""
        self._abandoned.set()

    def check(self) -> None:
        """Raises where the work is no longer wanted.

        Raises:
            Cancelled: the caller gave up.
            DeadlineExceeded: the caller's time is up.
        """
        if self._abandoned.is_set():
            raise Cancelled("the caller gave up")
        if self.deadline is not None and time.monotonic() >= self.deadline:
            raise DeadlineExceeded("the time of the call was up before its work was done")


@dataclass(frozen=True, kw_only=True)
class Work:
    """Answers that are wanted."""

    prompts: Sequence[Turns]
    n: int
    sampling: Sampling
    ticket: Ticket
    emit: Callable[[int, Outcome], None]
    """Called once per prompt, from a thread of the backend, as soon as the prompt's answers are there."""


@dataclass(frozen=True, kw_only=True)
class Scoring:
    """Log-probabilities that are wanted."""

    items: Sequence[tuple[Turns, Sequence[int]]]
    """Prompt and token ids of the answer."""
    ticket: Ticket = field(default_factory=Ticket)


class GenerationBackend(Protocol):
    """Where generation happens."""

    @property
    def facts(self) -> Facts:
        """What is known of the model."""

    def generate(self, work: Work) -> Future[None]:
        """Begins; the future ends when every prompt's outcome was emitted, or with the error of the whole.

        Raises:
            ResourceExhausted: the queue is full.
        """

    def log_probs(self, scoring: Scoring) -> Future[list[float]]:
        """Begins; the future holds a sum in nats per item.

        Raises:
            FailedPrecondition: the backend cannot tell.
            ResourceExhausted: the queue is full.
        """

    def close(self) -> None:
        """Frees what the model holds; nothing is in flight any more."""


def prompt_seeds(seed: int, prompts: Sequence[Turns], *, bits: int = 63) -> list[int]:
    """A seed for each prompt, from the request's seed and the prompt itself.

    So a prompt's answers hang neither on its neighbours nor on its place in the request, and requests that share a
    seed do not share their noise; the same prompt twice in one request gets two seeds.
    """
    seen: dict[str, int] = {}
    seeds = []
    for turns in prompts:
        content = "\x1e".join(f"{message.role}\x1f{message.content}" for message in turns)
        occurrence = seen.get(content, 0)
        seen[content] = occurrence + 1
        digest = hashlib.sha256(f"{seed}\x1d{occurrence}\x1d{content}".encode("utf-8", "surrogatepass")).digest()
        seeds.append(int.from_bytes(digest[:8], "big") >> (64 - bits))
    return seeds
