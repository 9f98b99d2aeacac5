"""The forward of an encoder on packed rows, from the weights of its transformers model.

The distinct sequences of a batch are the rows of one matrix, one after the other; what a layer does row by row is done for all of them
together, and each attends to itself by calls of its own. Nothing is shared, since every token sees what comes after it. A row's products
are those of `__init__`, and a sequence's attention never depends on another's length, so a score has the same bits in any company.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
import torch
from torch.nn import functional

from assay_reward.models.forwards import Logits
from assay_reward.models.packed.disentangled import Disentangled
from assay_reward.models.packed.heads import score_head
from assay_reward.models.packed.linears import ROWS, Linear, rounded
from assay_reward.models.packed.plan import Ids
from assay_reward.models.packed.rope import rotate

_BLOCK = 128
"""Queries of a call where a layer has a window."""

Norm = Callable[[torch.Tensor], torch.Tensor]


@dataclass(frozen=True, kw_only=True)
class EncoderLayer:
    """One layer; norms that it has not are None."""

    before_attention: Norm | None
    inputs: Linear
    """Queries, keys and values in one."""
    output: Linear
    after_attention: Norm | None
    """Of the sum with what went in, as the next but one."""
    before_mlp: Norm | None
    up: Linear
    gated: bool
    """Whether the second half of what `up` gives multiplies the first."""
    down: Linear
    after_mlp: Norm | None
    window: int | None = None
    """How far from itself a token sees; None for everywhere."""
    layer_type: str | None = None
    """By which its angles differ; None where it has none."""
    relative: Disentangled | None = None
    """DeBERTa's positions, which are part of its attention."""


@dataclass(frozen=True, kw_only=True)
class Encoder:
    """What an encoder is made of."""

    layers: Sequence[EncoderLayer]
    heads: int
    activation: Callable[[torch.Tensor], torch.Tensor]
    embed: Callable[[torch.Tensor, torch.Tensor], torch.Tensor]
    """From ids and positions, each [1, rows]."""
    positions: Callable[[Ids], npt.NDArray[np.int64]]
    """Of a sequence's tokens."""
    angles: Callable[[torch.Tensor, str], torch.Tensor]
    """Of positions [1, rows], for layers of a type."""
    norm: Norm | None
    """After the last layer."""
    reads: Literal["first", "mean"]
    """What the head is given of a sequence."""
    head: Any
    """Modules from that to the labels."""


@dataclass(frozen=True, slots=True)
class _Call:
    """Queries of one sequence, and what they see."""

    queries: slice
    keys: slice
    mask: torch.Tensor | None


class PackedEncoder:
    """An encoder as a way of computing a classifier, on a CPU."""

    def __init__(self, encoder: Encoder) -> None:
        """Takes its parts."""
        self._encoder = encoder
        self._head = score_head(encoder.head)

    def cost(self, sequences: Sequence[tuple[int, ...]]) -> int:
        """Sum of the lengths of the distinct ones."""
        return sum(len(ids) for ids in set(sequences))

    def logits(self, sequences: Sequence[tuple[int, ...]]) -> Logits:
        """All in one batch."""
        if not sequences:
            return Logits(rows=[], computed_tokens=0)
        places = {ids: place for place, ids in enumerate(dict.fromkeys(sequences))}
        found = self._logits([np.array(ids, dtype=np.int32) for ids in places])
        return Logits(rows=[found[places[ids]] for ids in sequences], computed_tokens=sum(map(len, places)))

    def _logits(self, distinct: Sequence[Ids]) -> list[list[float]]:
        encoder = self._encoder
        ends = np.cumsum([len(ids) for ids in distinct])
        spans = [slice(int(end) - len(ids), int(end)) for ids, end in zip(distinct, ends, strict=True)]
        rows = rounded(int(ends[-1]))
        ids, positions = np.zeros((2, 1, rows), dtype=np.int64)
        for span, one in zip(spans, distinct, strict=True):
            ids[0, span] = one
            positions[0, span] = encoder.positions(one)
        where = torch.from_numpy(positions)
        firsts = np.zeros(rounded(len(spans)), dtype=np.int64)
        firsts[: len(spans)] = [span.start for span in spans]
        calls = {window: _calls(spans, window) for window in {layer.window for layer in encoder.layers}}
        with torch.inference_mode():
            angles = {name: encoder.angles(where, name) for name in {layer.layer_type for layer in encoder.layers} if name is not None}
            hidden = encoder.embed(torch.from_numpy(ids), where)[0]
            for index, layer in enumerate(encoder.layers):
                attended = self._attended(layer, hidden, calls[layer.window], angles.get(layer.layer_type or ""))
                if encoder.reads == "first" and index == len(encoder.layers) - 1:
                    # Nothing reads what the last layer makes of the others.
                    hidden, attended = hidden[firsts], attended[firsts]
                self._rest(layer, hidden, attended)
            hidden = hidden if encoder.norm is None else encoder.norm(hidden)
            if encoder.reads == "mean":
                means = hidden.new_zeros(len(firsts), hidden.shape[1])
                for place, span in enumerate(spans):
                    means[place] = hidden[span].mean(0)
                hidden = means
            return [[float(value) for value in row] for row in self._head(hidden)[: len(spans)].double().tolist()]

    def _attended(self, layer: EncoderLayer, hidden: torch.Tensor, calls: Sequence[_Call], angles: torch.Tensor | None) -> torch.Tensor:
        """What each row's attention gives: [rows, width]."""
        heads = self._encoder.heads
        packed = hidden.new_empty(len(hidden), 3 * heads, hidden.shape[1] // heads)
        for start in range(0, len(hidden), ROWS):
            rows = hidden[start : start + ROWS]
            made = layer.inputs(rows if layer.before_attention is None else layer.before_attention(rows)).view(len(rows), *packed.shape[1:])
            if angles is not None:
                rotate(made[:, : 2 * heads], angles[start : start + ROWS])
            packed[start : start + ROWS] = made
        # [1, heads, rows, size], without copies.
        query, key, value = (part.transpose(0, 1)[None] for part in packed.tensor_split(3, 1))
        attended = torch.zeros_like(packed[:, :heads])
        positions = None if layer.relative is None else layer.relative.of(max(call.keys.stop - call.keys.start for call in calls))
        for call in calls:
            asking, seen = query[:, :, call.queries], key[:, :, call.keys]
            mask = call.mask if positions is None else positions.bias(asking[0], seen[0])
            scale = None if positions is None else positions.scale
            made = functional.scaled_dot_product_attention(asking, seen, value[:, :, call.keys], attn_mask=mask, scale=scale)
            attended[call.queries] = made[0].transpose(0, 1)
        return attended.flatten(1)

    def _rest(self, layer: EncoderLayer, hidden: torch.Tensor, attended: torch.Tensor) -> None:
        """Output projection, MLP, both residuals and the norms around them, in place."""
        for start in range(0, len(hidden), ROWS):
            rows = hidden[start : start + ROWS]
            rows += layer.output(attended[start : start + ROWS])
            if layer.after_attention is not None:
                rows.copy_(layer.after_attention(rows))
            made = layer.up(rows if layer.before_mlp is None else layer.before_mlp(rows))
            if layer.gated:
                made, gate = made.chunk(2, -1)
                made = self._encoder.activation(made) * gate
            else:
                made = self._encoder.activation(made)
            rows += layer.down(made)
            if layer.after_mlp is not None:
                rows.copy_(layer.after_mlp(rows))


def layer_norm(module: Any) -> Norm:
    """A norm from its module."""
    bias = None if module.bias is None else module.bias.detach()
    return partial(
        functional.layer_norm, normalized_shape=tuple(module.normalized_shape), weight=module.weight.detach(), bias=bias, eps=module.eps
    )


def _calls(spans: Sequence[slice], window: int | None) -> list[_Call]:
    """A sequence at once, or where its layer has a window a block of queries with what they can see."""
    calls = []
    masks: dict[tuple[int, int, int], torch.Tensor] = {}
    for span in spans:
        length = span.stop - span.start
        if window is None or length <= window + 1:
            calls.append(_Call(span, span, None))
            continue
        for first in range(0, length, _BLOCK):
            last = min(first + _BLOCK, length)
            low, high = max(0, first - window), min(length, last + window)
            name = (first - low, last - first, high - low)
            if name not in masks:
                apart = torch.arange(first - low, last - low)[:, None] - torch.arange(high - low)
                masks[name] = apart.abs() <= window
            calls.append(_Call(slice(span.start + first, span.start + last), slice(span.start + low, span.start + high), masks[name]))
    return calls
