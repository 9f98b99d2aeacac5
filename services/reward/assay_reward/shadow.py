"""A candidate's scores beside a model's, on the same texts: what would change if the candidate took its place.

The request path only draws a call and hands it on; where the hand is full, the call is given up. What is remembered are raw scores in
a bounded window, and counts of each call.
"""

from __future__ import annotations

import queue
import random
import threading
import time
from collections import deque
from collections.abc import Collection, Hashable, Sequence
from dataclasses import dataclass, field

import numpy as np

from assay.reward.v1 import reward_pb2
from assay_kit.errors import AssayError
from assay_reward.engine import Scored
from assay_reward.inputs import ScoreInput, ScoreOptions, TextAnswer, TokenAnswer, Tokens
from assay_reward.loaded import Entry, LoadedModel
from assay_reward.statistics import Estimate, Floats, Integers, clustered_rate, effective_size, mean, rank_correlation

WAITING_CALLS = 16
"""Calls that wait for the candidate; one more is given up."""


@dataclass(frozen=True, kw_only=True)
class Report:
    """How the candidate compares; see the message `ShadowReport` of the contract for each figure."""

    seen: int
    compared: int
    skipped: int
    failed: int
    last_failure: str
    answers: int
    flip_rate: Estimate | None
    rank_correlation: Estimate | None
    standardized_difference: Estimate | None
    best_agreement: Estimate | None


@dataclass(frozen=True, kw_only=True)
class Compared:
    """One call: both raw scores of each answer, and what its conversations give."""

    model: Floats
    candidate: Floats
    pairs: int
    flips: int
    groups: int
    agreements: int


class Shadow:
    """The comparison of a model with a candidate; safe between threads."""

    def __init__(self, *, model: reward_pb2.Provenance, candidate: reward_pb2.Provenance, share: float, window: int) -> None:
        """Takes what is compared.

        Args:
            model: the model whose traffic it is.
            candidate: the candidate.
            share: share of the calls that are drawn; above 0, at most 1.
            window: most answers remembered; the newest call stays whole.
        """
        self.model = model
        self.candidate = candidate
        self.share = share
        self.window = window
        self.started_at = time.time()
        self._lock = threading.Lock()
        self._compared: deque[Compared] = deque()
        self._answers = 0
        self._seen = self._done = self._skipped = self._failed = 0
        self._last_failure = ""

    def see(self) -> bool:
        """Counts a call of the model; whether it is drawn."""
        with self._lock:
            self._seen += 1
        return random.random() < self.share

    def skip(self) -> None:
        """Counts a call given up for want of room."""
        with self._lock:
            self._skipped += 1

    def fail(self, reason: str) -> None:
        """Counts a call that the candidate could not score."""
        with self._lock:
            self._failed += 1
            self._last_failure = reason

    def add(self, compared: Compared) -> None:
        """Takes a call that both have scored."""
        with self._lock:
            self._done += 1
            self._compared.append(compared)
            self._answers += compared.model.size
            while self._answers > self.window and len(self._compared) > 1:
                self._answers -= self._compared.popleft().model.size

    def report(self) -> Report:
        """The figures so far."""
        with self._lock:
            compared = list(self._compared)
            seen, done, skipped, failed, last_failure = self._seen, self._done, self._skipped, self._failed, self._last_failure
        model = np.concatenate([np.empty(0), *(call.model for call in compared)])
        candidate = np.concatenate([np.empty(0), *(call.candidate for call in compared)])
        calls = np.repeat(np.arange(len(compared)), [call.model.size for call in compared])
        worth = min(effective_size(scores, calls) for scores in (model, candidate)) if compared else 0.0
        pairs, flips, groups, agreements = (
            np.array([(call.pairs, call.flips, call.groups, call.agreements) for call in compared], dtype=np.float64).reshape(-1, 4).T
        )
        return Report(
            seen=seen,
            compared=done,
            skipped=skipped,
            failed=failed,
            last_failure=last_failure,
            answers=int(model.size),
            flip_rate=clustered_rate(flips, pairs),
            rank_correlation=rank_correlation(model, candidate, worth),
            standardized_difference=standardized_difference(model, candidate, calls),
            best_agreement=clustered_rate(agreements, groups),
        )


@dataclass(frozen=True, kw_only=True)
class Drawn:
    """A call that waits for the candidate."""

    shadow: Shadow
    inputs: Sequence[ScoreInput]
    raw: Sequence[float] = field(repr=False)
    options: ScoreOptions


class Shadows:
    """The shadows there are, by model, and the calls that wait for them."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._shadows: dict[str, Shadow] = {}
        self._waiting: queue.Queue[Drawn | None] = queue.Queue(maxsize=WAITING_CALLS)

    def put(self, name: str, shadow: Shadow | None) -> Shadow | None:
        """Gives a model a shadow, or none; returns the one it had."""
        with self._lock:
            before = self._shadows.pop(name, None)
            if shadow is not None:
                self._shadows[name] = shadow
        return before

    def of(self, loaded: LoadedModel) -> Shadow | None:
        """The shadow of a model; one that was set for other weights under the name is none of its."""
        with self._lock:
            shadow = self._shadows.get(loaded.name)
        return shadow if shadow is not None and _is(shadow.model, loaded) else None

    def all(self) -> list[Shadow]:
        """All, by name of the model."""
        with self._lock:
            return [self._shadows[name] for name in sorted(self._shadows)]

    def keep(self, entries: Collection[Entry]) -> None:
        """Ends the shadows of models that are not among these."""
        there = {entry.name: entry.loaded for entry in entries if entry.loaded is not None}
        with self._lock:
            self._shadows = {
                name: shadow
                for name, shadow in self._shadows.items()
                if (loaded := there.get(name)) is not None and _is(shadow.model, loaded)
            }

    def offer(
        self, loaded: LoadedModel, inputs: Sequence[ScoreInput], results: Sequence[Scored | AssayError], options: ScoreOptions
    ) -> None:
        """Hands on a call that the model has scored, where it is drawn and there is room; returns at once."""
        if not self._shadows or (shadow := self.of(loaded)) is None or not shadow.see():
            return
        both = [(item, result.raw) for item, result in zip(inputs, results, strict=True) if isinstance(result, Scored)]
        if not both:
            return
        taken, raw = zip(*both, strict=True)
        try:
            self._waiting.put_nowait(Drawn(shadow=shadow, inputs=taken, raw=raw, options=options))
        except queue.Full:
            shadow.skip()

    def next(self) -> Drawn | None:
        """The next call that waits; None after `end`."""
        return self._waiting.get()

    def end(self) -> None:
        """Gives up what waits, and lets whoever waits on `next` go."""
        while True:
            try:
                self._waiting.put_nowait(None)
                return
            except queue.Full:
                drawn = self._waiting.get()
                if drawn is not None:
                    drawn.shadow.skip()


def compare(inputs: Sequence[ScoreInput], model: Floats, candidate: Floats) -> Compared:
    """Both scores of the answers of one call, shape (n,) each; answers to one conversation are held against each other."""
    members: dict[Hashable, list[int]] = {}
    for index, item in enumerate(inputs):
        members.setdefault(_conversation(item, index), []).append(index)
    pairs = flips = agreements = 0
    groups = [np.array(indices) for indices in members.values() if len(indices) > 1]
    for indices in groups:
        first, second = model[indices], candidate[indices]
        agreements += int(np.argmax(first) == np.argmax(second))
        for at in range(len(indices) - 1):
            ours, theirs = np.sign(first[at + 1 :] - first[at]), np.sign(second[at + 1 :] - second[at])
            decided = (ours != 0) & (theirs != 0)
            pairs += int(decided.sum())
            flips += int((decided & (ours != theirs)).sum())
    return Compared(model=model, candidate=candidate, pairs=pairs, flips=flips, groups=len(groups), agreements=agreements)


def standardized_difference(first: Floats, second: Floats, calls: Integers) -> Estimate | None:
    """Mean absolute difference of two scores of the same answers, each standardised over them; None where one is constant."""
    if first.size < 2 or np.ptp(first) == 0 or np.ptp(second) == 0:
        return None
    differences = np.abs((first - first.mean()) / first.std() - (second - second.mean()) / second.std())
    return mean(differences, effective_size(differences, calls))


def _conversation(item: ScoreInput, index: int) -> Hashable:
    if isinstance(item, TextAnswer | TokenAnswer):
        return item.context
    if isinstance(item, Tokens) and item.context_ids:
        return item.context_ids
    return index


def _is(provenance: reward_pb2.Provenance, loaded: LoadedModel) -> bool:
    return provenance.revision == loaded.revision and provenance.fingerprint == loaded.fingerprint.fingerprint
