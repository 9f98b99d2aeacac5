"""One forward of the device for several calls: put together without repetition, taken apart so that sums agree."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from concurrent.futures import Future
from dataclasses import dataclass, replace

from assay_reward.fair_queue import Waiting
from assay_reward.models.base import Computed, Prepared, RewardModel


@dataclass(frozen=True, kw_only=True)
class Done:
    """What a unit of work gave, and its times in seconds."""

    value: Computed
    """Of its own inputs; its tokens are its part of those of the batch."""
    queue_seconds: float
    compute_seconds: float
    """Its part of the time of the batch."""
    batch_sequences: int
    """Distinct sequences of the batch it was in."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Unit:
    """Inputs of one call that are computed in one batch."""

    items: tuple[Prepared, ...]
    """Distinct."""
    future: Future[Done]


class Batch:
    """Units of one model, ready for the device."""

    def __init__(self, model: RewardModel, waiting: Sequence[Waiting[Unit]]) -> None:
        """Puts them together: each distinct input once, those of similar length beside each other."""
        self.model = model
        self.waiting = list(waiting)
        owners = Counter(item for one in waiting for item in one.work.items)
        self.items = sorted(owners, key=lambda item: item.tokens)
        self._places = {item: place for place, item in enumerate(self.items)}
        self._owners = owners

    @property
    def cost(self) -> int:
        """Sum of what its units cost."""
        return sum(one.cost for one in self.waiting)

    @property
    def least_urgent(self) -> int:
        """Value of the lowest priority among its units."""
        return max(one.standing.priority.value for one in self.waiting)

    def compute(self) -> Computed:
        """Runs the device."""
        return self.model.score(self.items)

    def parts(self, computed: Computed, *, started: float, seconds: float) -> list[Done]:
        """What each unit gave.

        Tokens and time are parted in proportion to the tokens of a unit's inputs, an input that several units have counting for
        each in equal parts; the parts of all units sum to the whole.

        Args:
            computed: of all items.
            started: when the device began, on the clock of `time.monotonic`.
            seconds: how long it took.
        """
        weights = [sum(max(item.tokens, 1) / self._owners[item] for item in one.work.items) for one in self.waiting]
        whole = sum(weights)
        tokens = parted(computed.computed_tokens, weights)
        padding = parted(computed.padded_tokens, weights)
        return [
            Done(
                value=replace(self._of(one.work, computed), computed_tokens=tokens[index], padded_tokens=padding[index]),
                queue_seconds=started - one.since,
                compute_seconds=seconds * weights[index] / whole,
                batch_sequences=len(self.items),
            )
            for index, one in enumerate(self.waiting)
        ]

    def _of(self, unit: Unit, computed: Computed) -> Computed:
        places = [self._places[item] for item in unit.items]
        return replace(
            computed,
            raw=tuple(computed.raw[place] for place in places),
            members=tuple(computed.members[place] for place in places) if computed.members else (),
            std=tuple(computed.std[place] for place in places) if computed.std else (),
            errors=tuple(computed.errors[place] for place in places) if computed.errors else (),
        )


def parted(whole: int, weights: Sequence[float]) -> list[int]:
    """`whole` in proportion to `weights`, by the largest remainders; sums to `whole`."""
    total = sum(weights)
    exact = [whole * weight / total for weight in weights]
    parts = [int(part) for part in exact]
    by_remainder = sorted(range(len(weights)), key=lambda index: parts[index] - exact[index])
    for index in by_remainder[: whole - sum(parts)]:
        parts[index] += 1
    return parts
