"""The lengths by which attention for GPUs knows who sees whom, held against the calls of the other geometries; the kernel needs a GPU."""

import random

import numpy as np
import pytest
import torch

from assay_reward.models.packed.attention import attend
from assay_reward.models.packed.geometry import SPARE_ROWS, Grid, Masks, Whole
from assay_reward.models.packed.plan import Ids, plan_of
from assay_reward.models.packed.varlen import Lengths, Varlen, kernel_fits, kernel_works

HEADS, KEY_HEADS, SIZE = 4, 2, 8


def ids(count: int, seed: int) -> Ids:
    chosen = random.Random(seed)
    return np.array([chosen.randrange(400) for _ in range(count)], dtype=np.int32)


PROMPT = ids(90, 1)
SHARING = [
    np.concatenate([PROMPT, ids(40, 2)]),
    np.concatenate([PROMPT, ids(1, 3)]),
    np.concatenate([PROMPT[:50], ids(30, 4)]),
    ids(70, 5),
    ids(600, 6),
]
APART = [ids(3, 7), ids(1, 8), ids(40, 9)]


def by_lengths(query: torch.Tensor, keys_values: torch.Tensor, lengths: Lengths) -> torch.Tensor:
    """What the kernel's documentation says of lengths: entry by entry, the last query in line with the last key."""
    key, value = keys_values[:, :KEY_HEADS], keys_values[:, KEY_HEADS:]
    out = torch.zeros_like(query[: lengths.rows])
    for entry in range(len(lengths.queries) - 1):
        asking = slice(*lengths.queries[entry : entry + 2].tolist())
        seen = slice(*lengths.keys[entry : entry + 2].tolist())
        rows, keys = asking.stop - asking.start, seen.stop - seen.start
        assert rows <= lengths.most_queries and keys <= lengths.most_keys
        ahead = torch.arange(keys)[None] - (torch.arange(rows)[:, None] + keys - rows)
        hidden = ahead > 0
        if lengths.window is not None:
            hidden |= ahead <= -lengths.window
        for head in range(HEADS):
            products = query[asking, head] @ key[seen, head // (HEADS // KEY_HEADS)].T * SIZE**-0.5
            weights = products.masked_fill(hidden, float("-inf")).softmax(-1)
            out[asking, head] = weights @ value[seen, head // (HEADS // KEY_HEADS)]
    return out


@pytest.mark.parametrize("sequences", [SHARING, APART])
@pytest.mark.parametrize("window", [None, 24])
@pytest.mark.parametrize("read", ["all", "last", "tails"])
def test_lengths_say_what_calls_say(sequences: list[Ids], window: int | None, read: str) -> None:
    torch.manual_seed(0)
    plan = plan_of(sequences)
    runs = plan.whole
    if read != "all":
        runs, _ = plan.tails([len(one) - 1 if read == "last" else len(one) // 2 for one in sequences])
    rows = sum(run.end - run.start for run in runs)
    query = torch.randn(rows + SPARE_ROWS, HEADS, SIZE)
    packed = torch.randn(plan.tokens + SPARE_ROWS, 2 * KEY_HEADS, SIZE)

    def buffer(geometry: Grid | Whole | Varlen) -> torch.Tensor:
        return packed if geometry.index is None else packed[torch.from_numpy(geometry.index)]

    together = Varlen(plan, "cpu")
    found = by_lengths(query, buffer(together), together.calls(runs, window))
    for geometry in (Grid(plan, Masks("cpu")), Whole(plan, Masks("cpu"))):
        wanted = torch.zeros(rows, HEADS, SIZE)
        attend(query, buffer(geometry), geometry.calls(runs, window), wanted, scale=SIZE**-0.5, cap=None)
        assert found.shape == wanted.shape
        torch.testing.assert_close(found, wanted, rtol=1e-4, atol=1e-5)


def test_a_device_without_the_kernel_does_without_it(caplog: pytest.LogCaptureFixture) -> None:
    cpu = torch.device("cpu")
    assert not kernel_fits(cpu, torch.bfloat16, HEADS, KEY_HEADS, SIZE, None)
    assert not kernel_works(cpu, torch.bfloat16, HEADS, KEY_HEADS, SIZE)
    assert "segment by segment" in caplog.text
