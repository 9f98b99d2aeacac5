"""The order in which examples are seen: decided by the seed alone, so that a resumed run goes on exactly where it was."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence

import numpy as np
from torch.utils.data import Sampler

MEGABATCH = 16
"""Batches whose examples are sorted by length together: little padding, still shuffled."""


def steps_of(examples: int, *, batch_size: int, epochs: float, max_steps: int) -> int:
    """Optimiser steps of a run: `max_steps`, or as many as `epochs` passes need."""
    return max_steps or max(1, math.ceil(examples * epochs / batch_size))


def planned_order(lengths: Sequence[int], *, batch_size: int, steps: int, seed: int) -> list[int]:
    """The examples of all steps, `batch_size` after `batch_size`; examples of one batch are of like length.

    Each pass over the data is shuffled anew, and what is left of a pass that does not fill a batch goes first in the next.

    Args:
        lengths: tokens of each example; not empty.
        batch_size: examples a step.
        steps: steps of the whole run.
        seed: decides the order.

    Returns:
        Indices into `lengths`, exactly ``steps * batch_size`` of them.
    """
    size = np.asarray(lengths)
    rng = np.random.default_rng(seed)
    order: list[int] = []
    rest = np.empty(0, dtype=np.int64)
    while len(order) < steps * batch_size:
        shuffled = np.concatenate([rest, rng.permutation(len(size))])
        whole = len(shuffled) // batch_size * batch_size
        rest = shuffled[whole:]
        batches: list[np.ndarray] = []
        for start in range(0, whole, batch_size * MEGABATCH):
            block = shuffled[start : min(whole, start + batch_size * MEGABATCH)]
            block = block[np.argsort(-size[block], kind="stable")]
            batches.extend(block.reshape(-1, batch_size))
        for index in rng.permutation(len(batches)):
            order.extend(int(i) for i in batches[index])
    return order[: steps * batch_size]


class PlannedSampler(Sampler[int]):
    """Gives a planned order to a data loader."""

    def __init__(self, order: Sequence[int]) -> None:
        self._order = order

    def __iter__(self) -> Iterator[int]:
        return iter(self._order)

    def __len__(self) -> int:
        return len(self._order)
