"""Scores inputs with one model: prepares them, queues fixed units of work, gathers what comes out.

How inputs are put together depends on the request alone, never on what else is in flight; the same request gives the same
bits. Inputs of a request that are equal after the tokenizer are computed once.
"""

from __future__ import annotations

import math
import time
from collections.abc import Iterable, Mapping, Sequence
from concurrent.futures import Future
from dataclasses import dataclass
from functools import partial
from typing import Protocol

import grpc

from assay_kit.errors import AssayError, DeadlineExceeded
from assay_reward.inputs import ScoreInput, ScoreOptions
from assay_reward.models.base import Computed, MemberScore, Prepared, RewardModel
from assay_reward.scheduler import NO_DEADLINE, Done, Ticket

UNIT_CANDIDATES = 64
"""Most candidates of one unit of work: what a call of higher priority may have to wait for."""


class ScoreNotFinite(AssayError):
    """The model gave NaN or infinity."""

    code = grpc.StatusCode.INTERNAL


@dataclass(frozen=True, kw_only=True)
class Scored:
    """One input's score."""

    raw: float
    prepared: Prepared
    std: float | None = None
    """Standard deviation (n - 1) of the members' raw scores; None unless an ensemble of two or more gave it."""
    members: tuple[MemberScore, ...] = ()
    """In the ensemble's order; empty unless an ensemble gave it."""
    from_cache: bool = False


@dataclass(frozen=True, kw_only=True)
class Cost:
    """What a call cost."""

    useful_tokens: int
    computed_tokens: int
    padded_tokens: int
    queue_seconds: float
    tokenize_seconds: float
    compute_seconds: float
    batch_sequences: int
    """Sequences of the largest unit of work that computed any of its scores; 0 when nothing was computed."""


class ScoreCache(Protocol):
    """What is known of a model's scores already."""

    def find(self, inputs: Sequence[Prepared]) -> dict[Prepared, Scored]:
        """What was computed before of these; any thread."""

    def keep(self, computed: Iterable[Scored]) -> None:
        """Remembers what was computed; any thread."""


class Work:
    """A call's inputs on their way through the device."""

    def __init__(
        self,
        prepared: Sequence[Prepared | AssayError],
        units: Sequence[tuple[list[Prepared], Future[Done[Computed]]]],
        tokenize_seconds: float,
        *,
        known: Mapping[Prepared, Scored] | None = None,
        cache: ScoreCache | None = None,
    ) -> None:
        self._prepared = prepared
        self._units = units
        self._tokenize_seconds = tokenize_seconds
        self._known = known or {}
        self._cache = cache

    @property
    def futures(self) -> list[Future[Done[Computed]]]:
        """To wait on; all done means `results` answers."""
        return [future for _, future in self._units]

    def cancel(self) -> None:
        """Drops what has not reached the device."""
        for future in self.futures:
            future.cancel()

    def results(self) -> tuple[list[Scored | AssayError], Cost]:
        """Score or error of each input, in order; waits where the device is not done.

        Raises:
            DeadlineExceeded: the deadline passed in the queue.
        """
        done = [(unit, future.result()) for unit, future in self._units]
        outcomes: dict[Prepared, Scored | AssayError] = {
            item: _outcome(item, index, result.value) for unit, result in done for index, item in enumerate(unit)
        }
        if self._cache is not None:
            self._cache.keep(outcome for outcome in outcomes.values() if isinstance(outcome, Scored))
        outcomes |= self._known
        scored = [item if isinstance(item, AssayError) else outcomes[item] for item in self._prepared]
        cost = Cost(
            useful_tokens=sum(item.tokens for item in self._prepared if isinstance(item, Prepared)),
            computed_tokens=sum(result.value.computed_tokens for _, result in done),
            padded_tokens=sum(result.value.padded_tokens for _, result in done),
            queue_seconds=min((result.queue_seconds for _, result in done), default=0.0),
            tokenize_seconds=self._tokenize_seconds,
            compute_seconds=sum(result.compute_seconds for _, result in done),
            batch_sequences=max((len(unit) for unit, _ in done), default=0),
        )
        return scored, cost


def begin(
    model: RewardModel,
    inputs: Sequence[ScoreInput],
    options: ScoreOptions,
    ticket: Ticket,
    deadline: float = NO_DEADLINE,
    cache: ScoreCache | None = None,
) -> Work:
    """Prepares the inputs here and now, and queues them.

    Args:
        model: scores them.
        inputs: in request order.
        options: truncation and priority are heeded; the scale is the reply's affair.
        ticket: room for all of them; closed on return.
        deadline: on the clock of `time.monotonic`.
        cache: the model's; None where nothing is kept.

    Raises:
        DeadlineExceeded: it is past already.
    """
    try:
        started = time.monotonic()
        if deadline <= started:
            raise DeadlineExceeded("the deadline passed before the call was begun")
        prepared = model.prepare(inputs, options.truncation)
        distinct = list(dict.fromkeys(item for item in prepared if isinstance(item, Prepared)))
        known = cache.find(distinct) if cache is not None else {}
        missing = [item for item in distinct if item not in known]
        units = [missing[at : at + UNIT_CANDIDATES] for at in range(0, len(missing), UNIT_CANDIDATES)]
        tokenize_seconds = time.monotonic() - started
        queued = [
            (unit, ticket.submit(partial(model.score, unit), cost=len(unit), priority=options.priority, deadline=deadline))
            for unit in units
        ]
        return Work(prepared, queued, tokenize_seconds, known=known, cache=cache)
    finally:
        ticket.close()


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
