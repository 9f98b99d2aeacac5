"""The order in which work goes: a queue without threads, clocks or knowledge of what the work is.

Priority goes first. Among callers of one priority the one goes first that has been given least (start-time fair queueing,
Goyal, Vin and Cheng 1996, by cost), so that a flood delays the one who makes it. Within a caller the order is the deadline,
then the length, so that what goes together is alike, then arrival. What has waited longer than `ageing_seconds` has a share
of every batch to itself, the oldest first, whatever its priority: nothing waits for ever.
"""

from __future__ import annotations

import math
from bisect import bisect_left, insort
from collections import OrderedDict
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Generic, TypeVar

from assay_reward.inputs import Priority

T = TypeVar("T")

NO_DEADLINE = math.inf
AGED_SHARE = 0.25
"""Part of a batch that belongs to what has waited too long."""
_DEADLINES_ALIKE_SECONDS = 0.1
_PASSED_OVER = 64
"""Most waiting items of one caller that are looked at for one that still fits."""


@dataclass(frozen=True, kw_only=True)
class Standing:
    """What decides when work goes."""

    priority: Priority = Priority.NORMAL
    caller: str = ""
    """Whose it is; callers of one priority get equal parts."""
    deadline: float = NO_DEADLINE
    """On the clock of `time.monotonic`."""


@dataclass(eq=False, kw_only=True)
class Waiting(Generic[T]):
    """Work in a queue."""

    work: T
    standing: Standing
    cost: int
    """What it takes of a batch; > 0."""
    length: int = 1
    """Of its longest part."""
    since: float
    """When it came, on the clock of `time.monotonic`."""
    order: int
    """Of its arrival; no two are equal."""
    key: tuple[float, int, int] = field(init=False)

    def __post_init__(self) -> None:
        """Settles its place among the work of its caller."""
        deadline = self.standing.deadline
        due = deadline if deadline == NO_DEADLINE else math.floor(deadline / _DEADLINES_ALIKE_SECONDS)
        self.key = (due, self.length.bit_length(), self.order)


@dataclass(eq=False)
class _Line(Generic[T]):
    """What one caller has waiting at one priority."""

    given: float
    """Cost given to it, on the scale of its lane."""
    sorted: list[tuple[tuple[float, int, int], Waiting[T]]] = field(default_factory=list)

    def put(self, waiting: Waiting[T]) -> None:
        insort(self.sorted, (waiting.key, waiting))

    def remove(self, waiting: Waiting[T]) -> None:
        del self.sorted[bisect_left(self.sorted, (waiting.key,))]

    def first_within(self, room: float) -> Waiting[T] | None:
        return next((waiting for _, waiting in self.sorted[:_PASSED_OVER] if waiting.cost <= room), None)


class _Lane(Generic[T]):
    """What waits at one priority, by caller."""

    def __init__(self) -> None:
        self.lines: dict[str, _Line[T]] = {}
        self._given = 0.0

    def put(self, waiting: Waiting[T]) -> None:
        caller = waiting.standing.caller
        line = self.lines.get(caller)
        if line is None:
            line = self.lines[caller] = _Line(self._given)
        line.put(waiting)

    def remove(self, waiting: Waiting[T]) -> None:
        line = self.lines[waiting.standing.caller]
        line.remove(waiting)
        if not line.sorted:
            del self.lines[waiting.standing.caller]

    def charge(self, waiting: Waiting[T]) -> None:
        line = self.lines[waiting.standing.caller]
        self._given = max(self._given, line.given)
        line.given += waiting.cost

    def fitting(self, room: float) -> Waiting[T] | None:
        """The next that costs at most `room`."""
        for line in sorted(self.lines.values(), key=lambda line: line.given):
            found = line.first_within(room)
            if found is not None:
                return found
        return None


class FairQueue(Generic[T]):
    """Waiting work of all priorities and callers; for one thread at a time."""

    def __init__(self, *, ageing_seconds: float) -> None:
        """Takes how long work may wait before it has a share of its own; > 0."""
        self._ageing = ageing_seconds
        self._lanes = {priority: _Lane[T]() for priority in sorted(Priority, key=lambda priority: priority.value)}
        self._by_age: OrderedDict[int, Waiting[T]] = OrderedDict()
        self.cost = 0
        """Of all that waits."""

    def __len__(self) -> int:
        """How many wait."""
        return len(self._by_age)

    def __iter__(self) -> Iterator[Waiting[T]]:
        """All that waits, the oldest first."""
        return iter(self._by_age.values())

    def put(self, waiting: Waiting[T]) -> None:
        """Adds work."""
        self._lanes[waiting.standing.priority].put(waiting)
        self._by_age[waiting.order] = waiting
        self.cost += waiting.cost

    def put_back(self, taken: list[Waiting[T]]) -> None:
        """Returns what was taken and not begun to its place."""
        for waiting in sorted(taken, key=lambda waiting: waiting.order, reverse=True):
            self.put(waiting)
            self._by_age.move_to_end(waiting.order, last=False)

    def remove(self, waiting: Waiting[T]) -> bool:
        """Takes work out; whether it was there."""
        if self._by_age.pop(waiting.order, None) is None:
            return False
        self._lanes[waiting.standing.priority].remove(waiting)
        self.cost -= waiting.cost
        return True

    def clear(self) -> None:
        """Takes everything out."""
        for waiting in list(self):
            self.remove(waiting)

    def urgency(self, now: float) -> int:
        """Value of the priority of what goes next; the highest for what has waited too long. Something must wait."""
        if self._aged(now) is not None:
            return min(priority.value for priority in Priority)
        return next(priority.value for priority, lane in self._lanes.items() if lane.lines)

    def take(self, budget: int, now: float) -> list[Waiting[T]]:
        """The next batch: what costs at most `budget` together, or one item that costs more; empty when nothing waits.

        What does not fit keeps its place, and does not stop what is behind it and fits.
        """
        batch: list[Waiting[T]] = []
        room: float = budget
        aged_room = budget * AGED_SHARE
        while (oldest := self._aged(now)) is not None and (not batch or oldest.cost <= aged_room):
            aged_room -= oldest.cost
            room -= oldest.cost
            self._take(oldest, batch)
        for lane in self._lanes.values():
            while room > 0 and (waiting := lane.fitting(room if batch else math.inf)) is not None:
                room -= waiting.cost
                self._take(waiting, batch)
        return batch

    def _take(self, waiting: Waiting[T], batch: list[Waiting[T]]) -> None:
        self._lanes[waiting.standing.priority].charge(waiting)
        self.remove(waiting)
        batch.append(waiting)

    def _aged(self, now: float) -> Waiting[T] | None:
        oldest = next(iter(self._by_age.values()), None)
        return oldest if oldest is not None and now - oldest.since >= self._ageing else None
