"""Label noise on purpose."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from assay_data.conversations import PreferencePair


def flipped(pairs: Sequence[PreferencePair], *, rate: float, seed: int) -> tuple[list[PreferencePair], int]:
    """Turns a share of the pairs round, for studies of label noise.

    Args:
        pairs: the pairs.
        rate: share of them, 0..1; exactly ``round(rate * len(pairs))`` are turned round.
        seed: decides which; a higher rate turns round a superset of a lower one's.

    Returns:
        The pairs in their order, and how many were turned round.
    """
    count = round(rate * len(pairs))
    chosen = set(np.random.default_rng(seed).permutation(len(pairs))[:count].tolist())
    return [pair.turned_round() if index in chosen else pair for index, pair in enumerate(pairs)], count
