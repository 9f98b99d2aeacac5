"""Which tokens of a batch are computed: what sequences begin with alike goes through the model once.

Sequences are compared by their token ids alone, so it does not matter which request they came with. Sorted, those that share a
beginning stand side by side; the trie of their shared beginnings is cut into segments, each a run of tokens that follows its
parent's. A segment is shared only where that spares `LEAST_SHARED` tokens or more, and every sequence keeps its last token to itself.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TypeAlias

import numpy as np
import numpy.typing as npt

Ids: TypeAlias = npt.NDArray[np.int32]

LEAST_SHARED = 16
"""Fewest tokens a segment must be long to be shared; below that its bookkeeping costs more than it spares."""


@dataclass(frozen=True, slots=True)
class Segment:
    """A run of tokens that is computed once."""

    start: int
    """Position of its first token in every sequence it is of."""
    end: int
    """Position after its last."""
    row: int
    """Row of its first token among the packed tokens."""
    parent: int
    """Index of the segment it follows; -1 at the beginning of a sequence."""


@dataclass(frozen=True, slots=True)
class Run:
    """Positions of a segment up to its last, that are queried."""

    segment: int
    """Index of the segment."""
    start: int
    """The first position."""
    end: int
    """After the last, as the segment's."""
    row: int
    """Row of the first among the rows of all runs that go together."""


@dataclass(frozen=True, slots=True)
class Plan:
    """The packed tokens of a batch of distinct sequences."""

    segments: tuple[Segment, ...]
    """In the order of their rows; a parent comes before its children."""
    owners: tuple[int, ...]
    """For each segment, a sequence that it is of."""
    leaves: tuple[int, ...]
    """For each sequence, the segment that holds its last token."""
    tokens: int
    """Rows in all."""

    @property
    def shares(self) -> bool:
        """Whether any segment follows another."""
        return len(self.segments) > len(self.leaves)

    @property
    def whole(self) -> list[Run]:
        """All positions."""
        return [Run(number, segment.start, segment.end, segment.row) for number, segment in enumerate(self.segments)]

    def tails(self, firsts: Sequence[int]) -> tuple[list[Run], list[npt.NDArray[np.int64]]]:
        """What sequences need from a position on, once where they share it.

        Args:
            firsts: that position, for each sequence; within it.

        Returns:
            The runs, and for each sequence the rows of its positions from that one to its last.
        """
        starts = [segment.end for segment in self.segments]
        paths: list[list[int]] = []
        for leaf, first in zip(self.leaves, firsts, strict=True):
            path = []
            number = leaf
            while number >= 0 and self.segments[number].end > first:
                starts[number] = min(starts[number], max(first, self.segments[number].start))
                path.append(number)
                number = self.segments[number].parent
            paths.append(path[::-1])
        runs: dict[int, Run] = {}
        row = 0
        for number, (segment, start) in enumerate(zip(self.segments, starts, strict=True)):
            if start < segment.end:
                runs[number] = Run(number, start, segment.end, row)
                row += segment.end - start
        rows = []
        for path, first in zip(paths, firsts, strict=True):
            pieces = [(runs[number], max(first, self.segments[number].start)) for number in path]
            rows.append(np.concatenate([np.arange(run.row + start - run.start, run.row + run.end - run.start) for run, start in pieces]))
        return list(runs.values()), rows


def plan_of(sequences: Sequence[Ids]) -> Plan:
    """Plans a batch.

    Args:
        sequences: distinct, none empty.
    """
    keys = [ids.astype(">i4").tobytes() for ids in sequences]
    order = sorted(range(len(sequences)), key=keys.__getitem__)
    alike = [_shared(sequences[left], sequences[right]) for left, right in zip(order, order[1:], strict=False)]
    segments: list[Segment] = []
    owners: list[int] = []
    leaves = [0] * len(sequences)
    row = 0

    def add(start: int, end: int, parent: int, owner: int) -> int:
        nonlocal row
        segments.append(Segment(start, end, row, parent))
        owners.append(owner)
        row += end - start
        return len(segments) - 1

    # Runs [low, high) of the sorted sequences that all follow `parent` from position `start` on; no recursion, tries can be deep.
    waiting = [(0, len(order), 0, -1)]
    while waiting:
        low, high, start, parent = waiting.pop()
        children = []
        while low < high:
            end = low + 1
            while end < high and alike[end - 1] - start >= LEAST_SHARED:
                end += 1
            if end == low + 1:
                leaves[order[low]] = add(start, len(sequences[order[low]]), parent, order[low])
            else:
                border = min(alike[low : end - 1])
                children.append((low, end, border, add(start, border, parent, order[low])))
            low = end
        waiting.extend(reversed(children))
    return Plan(tuple(segments), tuple(owners), tuple(leaves), row)


def _shared(left: Ids, right: Ids) -> int:
    """Number of tokens two sequences begin with alike, their last tokens left to themselves."""
    longest = min(len(left), len(right)) - 1
    different = np.flatnonzero(left[:longest] != right[:longest])
    return int(different[0]) if len(different) else longest
