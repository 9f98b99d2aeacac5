"""Scores inputs with one model: prepares them part by part, queues units of work, gathers what comes out.

A call's texts are tokenised a part at a time, and the next part waits while much of the call is in the queue: of a call of any
size only a window is in memory as tokens. Inputs of a part that are equal after the tokenizer are computed once, and so are those
of a batch.
"""

from __future__ import annotations

import math
import threading
import time
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import CancelledError, Future
from dataclasses import dataclass, replace
from typing import Protocol

import grpc

from assay_kit.errors import AssayError, DeadlineExceeded
from assay_reward.batches import Done
from assay_reward.fair_queue import Standing
from assay_reward.inputs import ScoreInput, Truncation
from assay_reward.metrics import DROPPED
from assay_reward.models.base import Computed, MemberScore, ModelInMemory, Prepared, RewardModel
from assay_reward.parts import cost_of, parts, text_bytes, units, whole_bytes
from assay_reward.scheduler import Ticket
from assay_reward.tokenizing import Tokenizing


class ScoreNotFinite(AssayError):
    """The model gave NaN or infinity."""

    code = grpc.StatusCode.INTERNAL


@dataclass(frozen=True, kw_only=True)
class Scored:
    """One input's score."""

    raw: float
    prepared: Prepared
    """Without its ids and text once it is in a result."""
    std: float | None = None
    """Standard deviation (n - 1) of the members' raw scores; None unless an ensemble of two or more gave it."""
    members: tuple[MemberScore, ...] = ()
    """In the ensemble's order; empty unless an ensemble gave it."""
    from_cache: bool = False


@dataclass(frozen=True, kw_only=True)
class Cost:
    """What a call cost. Where a batch held several calls, each has its part, and the parts sum to what the device did."""

    useful_tokens: int
    computed_tokens: int
    padded_tokens: int
    queue_seconds: float
    """Until the first of its units began."""
    tokenize_seconds: float
    compute_seconds: float
    batch_sequences: int
    """Sequences of the largest batch that computed any of its scores; 0 when nothing was computed."""


class ScoreCache(Protocol):
    """What is known of a model's scores already."""

    def find(self, inputs: Sequence[Prepared]) -> dict[Prepared, Scored]:
        """What was computed before of these; any thread."""

    def keep(self, computed: Iterable[Scored]) -> None:
        """Remembers what was computed; any thread."""


Queued = Sequence[tuple[Sequence[Prepared], Future[Done]]]
"""Distinct inputs, and what is to come of them."""


@dataclass(frozen=True, kw_only=True)
class Route:
    """How a call's inputs go: where they are prepared, how they are queued, and how much at a time."""

    tokenizing: Tokenizing
    queue: Callable[[Sequence[Prepared]], Queued]
    """Queues distinct inputs; in the thread that prepared them."""
    close: Callable[[], None]
    """Gives back the call's room when nothing more of it will be queued; again does nothing."""
    tokenized: Callable[[int, Sequence[Prepared]], None] = lambda size, distinct: None
    """Hears bytes of text and what became of them."""
    whole: bool = False
    """Whether all inputs must be queued together."""
    window_tokens: float = math.inf
    """Tokens in the queue above which the next part waits."""


class Work:
    """A call's inputs on their way through tokenizer and device."""

    def __init__(
        self,
        model: ModelInMemory,
        inputs: Sequence[ScoreInput],
        truncation: Truncation,
        standing: Standing,
        route: Route,
        cache: ScoreCache | None = None,
    ) -> None:
        """Takes what is to be done; `begin` begins.

        Args:
            model: scores them.
            inputs: in request order.
            truncation: what to do with what is too long.
            standing: decides when it goes.
            route: where it goes.
            cache: the model's; None where nothing is kept.
        """
        self._model = model
        self._truncation = truncation
        self._standing = standing
        self._route = route
        self._cache = cache
        self._parts = [range(len(inputs))] if route.whole else parts(inputs)
        self._inputs = inputs
        self._lock = threading.Lock()
        self._next_part = 0
        self._preparing = False
        self._queued: dict[Future[Done], int] = {}
        self._scored: list[Scored | AssayError | None] = [None] * len(inputs)
        self._ended = False
        self._tokenize_seconds = 0.0
        self._useful = 0
        self._done: list[Done] = []
        self.done: Future[None] = Future()
        """Done when `results` answers at once."""
        self.done.add_done_callback(lambda _: self._end())

    def begin(self) -> Work:
        """Sends the first part on its way; returns at once."""
        self._go_on()
        return self

    def cancel(self) -> None:
        """Drops what has not reached the device."""
        self.done.cancel()

    def results(self) -> tuple[list[Scored | AssayError], Cost]:
        """Score or error of each input, in order; waits where the device is not done.

        Raises:
            DeadlineExceeded: the deadline passed before the device.
            CancelledError: the work was cancelled.
        """
        self.done.result()
        scored = [outcome for outcome in self._scored if outcome is not None]
        cost = Cost(
            useful_tokens=self._useful,
            computed_tokens=sum(done.value.computed_tokens for done in self._done),
            padded_tokens=sum(done.value.padded_tokens for done in self._done),
            queue_seconds=min((done.queue_seconds for done in self._done), default=0.0),
            tokenize_seconds=self._tokenize_seconds,
            compute_seconds=sum(done.compute_seconds for done in self._done),
            batch_sequences=max((done.batch_sequences for done in self._done), default=0),
        )
        return scored, cost

    def _go_on(self) -> None:
        """Sends the next part, or ends when there is none left and nothing under way."""
        with self._lock:
            if self._ended or self._preparing:
                return
            over = self._next_part == len(self._parts)
            if over and self._queued:
                return
            if not over:
                if sum(self._queued.values()) > self._route.window_tokens:
                    return
                part = self._parts[self._next_part]
                self._next_part += 1
                self._preparing = True
        if over:
            self._finish(None)
            return
        inputs = [self._inputs[index] for index in part]
        preparing = self._route.tokenizing.run(
            lambda: self._prepare(part, inputs), standing=self._standing, cost=sum(whole_bytes(item) for item in inputs)
        )
        preparing.add_done_callback(self._prepared)

    def _prepared(self, preparing: Future[None]) -> None:
        with self._lock:
            self._preparing = False
        error = preparing.exception()
        if error is not None:
            self._finish(error)
        else:
            self._go_on()

    def _prepare(self, part: range, inputs: Sequence[ScoreInput]) -> None:
        """Template and tokenizer for a part, which is then queued; in a tokenizing thread."""
        if self._ended:
            DROPPED.labels("cancelled").inc(len(inputs))
            return
        started = time.monotonic()
        if self._standing.deadline <= started:
            DROPPED.labels("deadline").inc(len(inputs))
            raise DeadlineExceeded("the deadline passed before the call was tokenised")
        prepared = self._model.prepare(inputs, self._truncation)
        places: dict[Prepared, list[int]] = {}
        for index, item in zip(part, prepared, strict=True):
            if isinstance(item, AssayError):
                self._scored[index] = item
            else:
                places.setdefault(item, []).append(index)
                self._useful += item.tokens
        known = self._cache.find(list(places)) if self._cache is not None else {}
        for item, scored in known.items():
            self._settle(scored, places[item])
        missing = [item for item in places if item not in known]
        self._tokenize_seconds += time.monotonic() - started
        if not missing or self._ended:
            return
        self._route.tokenized(text_bytes(inputs), missing)
        for unit, future in self._route.queue(missing):
            with self._lock:
                self._queued[future] = sum(item.tokens for item in unit)
            future.add_done_callback(lambda future, unit=unit: self._unit_done(future, unit, places))  # type: ignore[misc]
        if self._ended:
            self._end()

    def _unit_done(self, future: Future[Done], unit: Sequence[Prepared], places: dict[Prepared, list[int]]) -> None:
        error = CancelledError() if future.cancelled() else future.exception()
        if error is None:
            done = future.result()
            outcomes = [_outcome(item, index, done.value) for index, item in enumerate(unit)]
            if self._cache is not None:
                self._cache.keep(outcome for outcome in outcomes if isinstance(outcome, Scored))
            for item, outcome in zip(unit, outcomes, strict=True):
                self._settle(outcome, places[item])
            self._done.append(replace(done, value=replace(done.value, raw=(), members=(), std=(), errors=())))
        with self._lock:
            del self._queued[future]
        if error is not None:
            self._finish(error)
        else:
            self._go_on()

    def _settle(self, outcome: Scored | AssayError, places: Sequence[int]) -> None:
        if isinstance(outcome, Scored):
            outcome = replace(outcome, prepared=_counts(outcome.prepared))
        for place in places:
            self._scored[place] = outcome

    def _finish(self, error: BaseException | None) -> None:
        with self._lock:
            if self._ended:
                return
            self._ended = True
        if not self.done.set_running_or_notify_cancel():
            return
        if error is None:
            self.done.set_result(None)
        else:
            self.done.set_exception(error)

    def _end(self) -> None:
        """Drops what is left, and gives the room back."""
        with self._lock:
            self._ended = True
            left = list(self._queued)
        for future in left:
            future.cancel()
        self._route.close()


def device_route(model: RewardModel, ticket: Ticket, tokenizing: Tokenizing, *, batch_tokens: int, window_tokens: int) -> Route:
    """The way through the device of this machine, with the room that the ticket gives."""

    def queue(missing: Sequence[Prepared]) -> Queued:
        return [(unit, ticket.submit(tuple(unit), cost=cost_of(model, unit))) for unit in units(model, missing, batch_tokens)]

    def tokenized(size: int, distinct: Sequence[Prepared]) -> None:
        ticket.tokenized(size, cost_of(model, distinct))

    return Route(tokenizing=tokenizing, queue=queue, close=ticket.close, tokenized=tokenized, window_tokens=window_tokens)


def _counts(prepared: Prepared) -> Prepared:
    """What a reply says of an input; its ids and text can go."""
    return Prepared(prompt_tokens=prepared.prompt_tokens, response_tokens=prepared.response_tokens, tokens_dropped=prepared.tokens_dropped)


def _outcome(prepared: Prepared, index: int, computed: Computed) -> Scored | AssayError:
    error = computed.errors[index] if computed.errors else None
    if error is not None:
        return error
    raw = computed.raw[index]
    if not math.isfinite(raw):
        return ScoreNotFinite(f"the model's score is {raw}")
    return Scored(
        raw=raw,
        prepared=prepared,
        std=computed.std[index] if computed.std else None,
        members=computed.members[index] if computed.members else (),
    )
