"""Which rows attend to which, as a list of calls to an attention kernel.

On a CPU the calls lie on a grid of positions: the keys in chunks of `CHUNK`, the queries in blocks of `BLOCK`. The query at position p
attends to the keys of its own chunk, from the chunk's beginning to the end of the query's block with those after p masked, in one
call, and to each earlier chunk whole in one more; the parts are joined by their log-sum-exp. So what is added to what, and in which
order, follows from a token's position alone, whatever segments its sequence was cut into and whatever is computed beside it: with a
kernel whose rows do not depend on how many there are, a score has the same bits alone, in any batch and with any part shared.

For that the keys of a chunk must lie together. A segment that starts inside a chunk gets its own copy of the chunk's beginning: less
than `CHUNK` rows of keys and values, which is little beside its tokens' way through the layers.

Elsewhere a segment is one call with all keys before it, in whatever order the kernel takes.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch

from assay_reward.models.packed.plan import Plan, Run

CHUNK = 512
"""Keys of a chunk; that of PyTorch's kernel for CPUs, and a multiple of `BLOCK`."""
BLOCK = 64
"""Queries of a block."""
ROWS_AT_ONCE = 4
"""Multiple of rows given to a kernel: matrix products of fewer rows are summed in another order."""
SPARE_ROWS = BLOCK
"""Rows beyond the last that calls may touch; finite, and masked or ignored."""


@dataclass(frozen=True, slots=True)
class Call:
    """One call of an attention kernel, in rows of the query and key buffers."""

    query: int
    rows: int
    """Queries whose result is wanted."""
    fed: int
    """Queries given to the kernel; those beyond `rows` are ignored."""
    key: int
    keys: int
    mask: torch.Tensor | None
    """[fed, keys], 0 or -inf; None where all are seen."""
    causal: bool
    """Square, the i-th query seeing the first i keys; without a mask."""
    first: bool
    """The first part of its queries; later ones are joined to it."""


class Masks:
    """Masks by what they depend on: how far queries are from keys."""

    def __init__(self, device: str) -> None:
        self._device = device
        self._known: dict[tuple[int, int, int], torch.Tensor] = {}

    def seen(self, *, offset: int, rows: int, keys: int, window: int | None) -> torch.Tensor:
        """[rows, keys]: 0 where the key, counted from the first, is at or before the query, counted from `offset`, and in its window."""
        query = torch.arange(offset, offset + rows, device=self._device)[:, None]
        key = torch.arange(keys, device=self._device)
        hidden = key > query
        if window is not None:
            hidden |= key <= query - window
        return torch.zeros(rows, keys, device=self._device).masked_fill_(hidden, float("-inf"))

    def of_block(self, *, offset: int, keys: int, window: int | None) -> torch.Tensor:
        """The mask of a block of queries; kept, since there are few: a multiple of BLOCK less than chunk and window apart."""
        name = (offset, keys, window or 0)
        if name not in self._known:
            self._known[name] = self.seen(offset=offset, rows=BLOCK + ROWS_AT_ONCE, keys=keys, window=window)
        return self._known[name]


class Grid:
    """The calls of one batch on a grid of positions."""

    def __init__(self, plan: Plan, masks: Masks) -> None:
        self._plan = plan
        self._masks = masks
        self._starts = [segment.start // CHUNK * CHUNK for segment in plan.segments]
        self._rows, index = buffer_of(plan, self._starts)
        self.index = index
        """Packed row of each row of the key buffer; None where they are the same."""

    def calls(self, runs: Sequence[Run], window: int | None) -> list[Call]:
        """All queries of the runs."""
        calls: list[Call] = []
        for run in runs:
            calls += self._calls(run.segment, run.row, run.start, run.end, window)
        return calls

    def _calls(self, number: int, row: int, start: int, end: int, window: int | None) -> Iterator[Call]:
        """Of the queries at positions start..end of a segment, the first of them in the row given."""
        first = start
        while first < end:
            block = first // BLOCK * BLOCK
            last = min(end, block + BLOCK)
            own = block // CHUNK * CHUNK
            lowest = 0 if window is None else max(0, block - window + 1) // BLOCK * BLOCK
            low = max(own, lowest)
            yield self._call(number, row + first - start, block, first, last, low, block + BLOCK, window, first_part=True)
            for chunk in range(0, own if window is not None else 0, CHUNK):
                low, high = max(chunk, lowest), chunk + CHUNK
                # Queries so far on that they see nothing of the chunk would have no weights to sum.
                seeing = min(last, high - 1 + (window or 0))
                if low < high and first < seeing:
                    yield self._call(number, row + first - start, block, first, seeing, low, high, window, first_part=False)
            first = last
        for chunk in range(0, (end - 1) // CHUNK * CHUNK if window is None else 0, CHUNK):
            first = max(start, chunk + CHUNK)
            yield self._call(number, row + first - start, 0, first, end, chunk, chunk + CHUNK, None, first_part=False)

    def _call(
        self, number: int, query: int, block: int, first: int, last: int, low: int, high: int, window: int | None, *, first_part: bool
    ) -> Call:
        rows = last - first
        fed = -(-rows // ROWS_AT_ONCE) * ROWS_AT_ONCE
        mask = None
        if first_part or (window is not None and low <= block + BLOCK - 1 - window):
            mask = self._masks.of_block(offset=block - low, keys=high - low, window=window)[first - block : first - block + fed]
        while low < self._starts[number]:
            number = self._plan.segments[number].parent
        return Call(query, rows, fed, self._rows[number] + low - self._starts[number], high - low, mask, False, first_part)


class Whole:
    """The calls of one batch, each run with all keys before it at once."""

    def __init__(self, plan: Plan, masks: Masks) -> None:
        self._masks = masks
        self._rows, index = buffer_of(plan, [0] * len(plan.segments))
        self.index = index
        """As of a `Grid`."""

    def calls(self, runs: Sequence[Run], window: int | None) -> list[Call]:
        """All queries of the runs."""
        calls = []
        for run in runs:
            rows = run.end - run.start
            low = 0 if window is None else max(0, run.start - window + 1)
            causal = not run.start and (window is None or rows <= window)
            # A single query sees all keys that are left here.
            plain = causal or rows == 1
            seen = None if plain else self._masks.seen(offset=run.start - low, rows=rows, keys=run.end - low, window=window)
            calls.append(Call(run.row, rows, rows, self._rows[run.segment] + low, run.end - low, seen, causal, True))
        return calls


def buffer_of(plan: Plan, starts: Sequence[int]) -> tuple[list[int], npt.NDArray[np.int64] | None]:
    """A key buffer in which each segment follows what comes before it, from a position on.

    Args:
        plan: of the batch.
        starts: that position for each segment, at or before its own start.

    Returns:
        Row of that position in the buffer for each segment, and the packed row of each row of the buffer; None where they are the same.
    """
    segments = plan.segments
    if not plan.shares:
        # Without parents every segment starts at position 0.
        return [segment.row for segment in segments], None
    rows = []
    parts: list[npt.NDArray[np.int64]] = []
    total = 0
    for segment, start in zip(segments, starts, strict=True):
        rows.append(total)
        pieces = [np.arange(segment.row, segment.row + segment.end - segment.start)]
        wanted, above = segment.start, segment.parent
        while wanted > start:
            other = segments[above]
            low = max(other.start, start)
            pieces.append(np.arange(other.row + low - other.start, other.row + wanted - other.start))
            wanted, above = low, other.parent
        parts += reversed(pieces)
        total += segment.end - start
    return rows, np.concatenate([*parts, np.zeros(SPARE_ROWS, dtype=np.int64)])
