"""Linear layers for inference: PyTorch's own, or with weights laid out for oneDNN beforehand, whichever is faster here."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, TypeAlias

import torch
from torch.nn import functional

Linear: TypeAlias = Callable[[torch.Tensor], torch.Tensor]
"""[rows, in] -> [rows, out]."""

ROWS = 256
"""Rows of a block, by which layers go through a batch on a CPU: what it makes on the way stays in the cache."""
ROW_MULTIPLE = 16
"""Rows of a matrix are a multiple of this; see the package."""
_WORTH = 0.9
"""Part of the plain time that prepacked weights must stay below: they take a second layout, and what is faster should not hang on noise."""
_ROUNDS = (5, 40)
_SECONDS = 0.05
"""Of each layer: between so many rounds, as many as fit."""


@dataclass(frozen=True, kw_only=True)
class Weights:
    """Of one linear layer."""

    weight: torch.Tensor
    """[out, in]"""
    bias: torch.Tensor | None = None


def rounded(rows: int) -> int:
    """So many rows with their filling."""
    return -(-rows // ROW_MULTIPLE) * ROW_MULTIPLE


def fused(*parts: Any) -> Weights:
    """Linear modules of one input as one."""
    return joined([Weights(weight=part.weight.detach(), bias=None if part.bias is None else part.bias.detach()) for part in parts])


def joined(parts: Sequence[Weights]) -> Weights:
    """Layers of one input as one."""
    if len(parts) == 1:
        return parts[0]
    biases = [part.weight.new_zeros(len(part.weight)) if part.bias is None else part.bias for part in parts]
    some = any(part.bias is not None for part in parts)
    return Weights(weight=torch.cat([part.weight for part in parts]), bias=torch.cat(biases) if some else None)


def plain(weights: Weights) -> Linear:
    """With PyTorch's own matrix product."""
    return partial(functional.linear, weight=weights.weight, bias=weights.bias)


def prepacked(weights: Weights) -> Linear:
    """With oneDNN's, whose layout the weights are put into once."""
    packed = torch.ops.mkldnn._reorder_linear_weight(weights.weight, ROWS)
    return partial(_prepacked, packed=packed, bias=weights.bias)


def _prepacked(rows: torch.Tensor, *, packed: torch.Tensor, bias: torch.Tensor | None) -> torch.Tensor:
    product: torch.Tensor = torch.ops.mkldnn._linear_pointwise(rows, packed, bias, "none", [], "")
    return product


def faster(samples: Sequence[Weights]) -> Callable[[Weights], Linear]:
    """Times both on a block of rows with one layer's weights; the prepacked must win clearly.

    Returns:
        `plain` or `prepacked`.
    """
    first = samples[0].weight
    if not _packs(first):
        return plain
    spent = {plain: 0.0, prepacked: 0.0}
    for weights in samples:
        rows = torch.randn(ROWS, weights.weight.shape[1]).to(first.dtype)
        ways = {make: make(weights) for make in spent}
        best = dict.fromkeys(spent, float("inf"))
        least, most = _ROUNDS
        began = time.thread_time()
        for turn in range(most):
            if turn >= least and time.thread_time() - began > _SECONDS:
                break
            for make, linear in ways.items():
                # Of this thread alone, so that other work of the machine does not decide.
                started = time.thread_time()
                linear(rows)
                best[make] = min(best[make], time.thread_time() - started)
        for make, seconds in best.items():
            spent[make] += seconds
    return prepacked if spent[prepacked] < _WORTH * spent[plain] else plain


def _packs(weight: torch.Tensor) -> bool:
    """Whether oneDNN has a layout for weights of this type on this processor."""
    if weight.device.type != "cpu" or not torch.backends.mkldnn.is_available():  # type: ignore[no-untyped-call]
        return False
    if weight.dtype == torch.bfloat16:
        return bool(torch.ops.mkldnn._is_mkldnn_bf16_supported())
    return weight.dtype == torch.float32
