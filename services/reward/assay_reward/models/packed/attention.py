"""Attention over packed rows, call by call of a geometry."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch.nn import functional

from assay_reward.models.packed.geometry import Call

_VECTORS = 32
"""Numbers that kernels for CPUs take at once: two vectors of the widest kind."""


def attend(
    query: torch.Tensor,
    keys_values: torch.Tensor,
    calls: Sequence[Call],
    out: torch.Tensor,
    *,
    scale: float,
    cap: float | None,
) -> None:
    """Runs the calls and joins their parts.

    Args:
        query: [rows, heads, size].
        keys_values: [rows, 2 * key heads, size]: keys, then values. Heads of queries go to key heads in order.
        calls: of one geometry; the parts of a query after its first.
        out: [rows, heads, size]; what the calls do not cover is left as it is.
        scale: of the products.
        cap: of the products, softly, by tanh; None for none.
    """
    heads, size = query.shape[1:]
    key_heads = keys_values.shape[1] // 2
    each = heads // key_heads
    # [key heads, queries of one key head, rows, size], without copies.
    queries = query.view(-1, key_heads, each, size).permute(1, 2, 0, 3)
    keys, values = (
        part.transpose(0, 1)[:, None].expand(-1, each, -1, -1) for part in (keys_values[:, :key_heads], keys_values[:, key_heads:])
    )
    result = out.view(-1, key_heads, each, size).permute(1, 2, 0, 3)
    joins = any(not call.first for call in calls)
    sums = query.new_empty(key_heads, each, out.shape[0], dtype=torch.float32) if joins else None
    for call in calls:
        part, logs = _part(
            queries.narrow(2, call.query, call.fed),
            keys.narrow(2, call.key, call.keys),
            values.narrow(2, call.key, call.keys),
            call,
            scale=scale,
            cap=cap,
        )
        if call.fed != call.rows:
            part, logs = part.narrow(2, 0, call.rows), logs.narrow(2, 0, call.rows)
        target = result.narrow(2, call.query, call.rows)
        if sums is None:
            target.copy_(part)
            continue
        known = sums.narrow(2, call.query, call.rows)
        if call.first:
            target.copy_(part)
            known.copy_(logs)
        else:
            weight, joined = _joined(known, logs)
            target.lerp_(part, weight[..., None].to(part.dtype))
            known.copy_(joined)


def _joined(left: torch.Tensor, right: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """The weight of the right part of two, and the log-sum-exp of both, from theirs; each [key heads, each, rows].

    On a number of rows that vectors divide: kernels round their scalar tails otherwise than what goes through vectors.
    """
    rows = left.shape[2]
    both = left.new_zeros(2, *left.shape[:2], -(-rows // _VECTORS) * _VECTORS)
    both[0, ..., :rows] = left
    both[1, ..., :rows] = right
    weight = torch.sigmoid(both[1] - both[0])
    return weight[..., :rows], torch.logaddexp(both[0], both[1])[..., :rows]


def _part(
    query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, call: Call, *, scale: float, cap: float | None
) -> tuple[torch.Tensor, torch.Tensor]:
    """Weighted values [key heads, each, fed, size] of one call, and the log-sum-exp of their weights [key heads, each, fed]."""
    if cap is not None:
        return _capped(query, key, value, call, scale=scale, cap=cap)
    if query.device.type == "cpu":
        part, logs = torch.ops.aten._scaled_dot_product_flash_attention_for_cpu(
            query, key, value, 0.0, call.causal, attn_mask=call.mask, scale=scale
        )
        return part, logs
    mask = None if call.mask is None else call.mask.to(query.dtype)
    part = functional.scaled_dot_product_attention(query, key, value, attn_mask=mask, is_causal=call.causal, scale=scale)
    # A geometry for such devices has one part a query, so that nothing is joined.
    return part, part[..., 0].float()


def _capped(
    query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, call: Call, *, scale: float, cap: float
) -> tuple[torch.Tensor, torch.Tensor]:
    """Gemma 2's: cap * tanh(products / cap), which no fused kernel has."""
    products = torch.tanh_(torch.matmul(query, key.transpose(-1, -2)).mul_(scale / cap)).mul_(cap)
    if call.mask is not None:
        products = products + call.mask
    elif call.causal:
        hidden = torch.ones(products.shape[-2:], dtype=torch.bool, device=products.device).triu_(1)
        products = products.masked_fill(hidden, float("-inf"))
    products = products.float()
    weights = torch.softmax(products, -1).to(value.dtype)
    return torch.matmul(weights, value), torch.logsumexp(products, -1)
