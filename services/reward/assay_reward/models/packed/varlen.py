"""Attention of a whole batch in one kernel, for CUDA: PyTorch's flash attention over segments of different lengths.

Each segment is an entry: its queried positions, which are its last, against all keys before them and their own. The kernel lines up the
last query with the last key, so the lengths alone say who sees whom, and no mask is made. Not measured: it was written where no GPU is,
and tested there by its lengths alone. On a GPU a model uses it where a small batch comes out as by the calls of `Whole`, and its scores
are held to those of its own forward at load.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch.nn.attention.varlen import varlen_attn

from assay_reward.models.packed.attention import attend
from assay_reward.models.packed.geometry import Masks, Whole, buffer_of
from assay_reward.models.packed.plan import Plan, Run, plan_of

_log = logging.getLogger(__name__)

_WIDEST_HEAD = 256
_ALIKE = 0.1
"""By how much two ways of attention may differ in narrow types, on values of about 1."""
_LEAST_QUERIES = 2
"""Told to the kernel at least: of at most one query an entry it would expect exactly one, and an entry may have none."""


@dataclass(frozen=True, kw_only=True)
class Lengths:
    """Who sees whom in one batch."""

    queries: torch.Tensor
    """[entries + 1], int32: where the queries of each entry begin, and where the last end."""
    keys: torch.Tensor
    """[entries + 1], int32: likewise its keys."""
    rows: int
    """Queries in all."""
    most_queries: int
    most_keys: int
    window: int | None


class Varlen:
    """The lengths of one batch."""

    def __init__(self, plan: Plan, device: str) -> None:
        self._plan = plan
        self._device = device
        _, self.index = buffer_of(plan, [0] * len(plan.segments))
        self._keys = np.cumsum([0, *(segment.end for segment in plan.segments)])

    def calls(self, runs: Sequence[Run], window: int | None) -> Lengths:
        """All queries of the runs, which are in the order of their segments; a segment without any is an entry of no queries."""
        counts = np.zeros(len(self._plan.segments), dtype=np.int64)
        for run in runs:
            counts[run.segment] = run.end - run.start
        queries = np.cumsum([0, *counts])
        return Lengths(
            queries=torch.from_numpy(queries.astype(np.int32)).to(self._device),
            keys=torch.from_numpy(self._keys.astype(np.int32)).to(self._device),
            rows=int(queries[-1]),
            most_queries=max(_LEAST_QUERIES, int(counts.max())),
            most_keys=max(segment.end for segment in self._plan.segments),
            window=window,
        )


def kernel_fits(device: torch.device, dtype: torch.dtype, heads: int, key_heads: int, head_size: int, cap: float | None) -> bool:
    """Whether the kernel can compute a model: an NVIDIA GPU of compute capability 8 or newer, narrow types, no cap on the products."""
    if device.type != "cuda" or torch.version.hip is not None or not torch.backends.cuda.is_flash_attention_available():
        return False
    narrow = dtype in (torch.float16, torch.bfloat16)
    if not narrow or cap is not None or head_size % 8 or head_size > _WIDEST_HEAD or torch.cuda.get_device_capability(device) < (8, 0):
        return False
    return kernel_works(device, dtype, heads, key_heads, head_size)


def kernel_works(device: torch.device, dtype: torch.dtype, heads: int, key_heads: int, head_size: int) -> bool:
    """Whether the kernel gives, for a small batch with a shared beginning, what a call for each segment gives; says so where not."""
    plan = plan_of([np.arange(40, dtype=np.int32), np.concatenate([np.arange(20), np.arange(50, 70)]).astype(np.int32)])
    runs, _ = plan.tails([30, 39])
    geometries = Whole(plan, Masks(str(device))), Varlen(plan, str(device))
    with torch.inference_mode():
        made = torch.randn(3, 128, heads, head_size, device=device).to(dtype)
        query, keys_values = made[0], made[1:, :, :key_heads].transpose(0, 1).flatten(1, 2)
        wanted, found = torch.zeros_like(query), torch.zeros_like(query)
        attend(query, keys_values, geometries[0].calls(runs, None), wanted, scale=1.0, cap=None)
        try:
            attend_together(query, keys_values, geometries[1].calls(runs, None), found, scale=1.0)
            alike = bool(((found - wanted).abs() <= _ALIKE).all())
        except RuntimeError as error:
            _log.warning("attention goes segment by segment, slowly: the kernel for whole batches fails on %s: %s", device, error)
            return False
    if not alike:
        _log.warning("attention goes segment by segment, slowly: the kernel for whole batches gives something else on %s", device)
    return alike


def attend_together(query: torch.Tensor, keys_values: torch.Tensor, lengths: Lengths, out: torch.Tensor, *, scale: float) -> None:
    """Runs the kernel.

    Args:
        query: [rows, heads, size].
        keys_values: [rows, 2 * key heads, size]: keys, then values.
        lengths: of the batch.
        out: [rows, heads, size]; what is no query is left as it is.
        scale: of the products.
    """
    key, value = keys_values.tensor_split(2, 1)
    before = -1 if lengths.window is None else lengths.window - 1
    made = varlen_attn(
        query[: lengths.rows],
        key,
        value,
        lengths.queries,
        lengths.keys,
        lengths.most_queries,
        lengths.most_keys,
        scale=scale,
        window_size=(before, 0),
        enable_gqa=query.shape[1] != key.shape[1],
    )
    assert isinstance(made, torch.Tensor)
    out[: lengths.rows] = made
