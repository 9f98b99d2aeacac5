"""The forward of a decoder on packed rows, from the weights of its transformers model."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, TypeAlias

import numpy as np
import torch
from torch.nn import functional
from transformers.activations import ACT2FN

from assay_reward.models.packed.attention import attend
from assay_reward.models.packed.families import Family, window_of
from assay_reward.models.packed.geometry import SPARE_ROWS, Call, Grid, Masks, Whole
from assay_reward.models.packed.linears import ROWS, Linear, faster, fused, joined, rounded
from assay_reward.models.packed.plan import Ids, Plan, Run
from assay_reward.models.packed.rope import complex_angles, paired, rotate, side_by_side
from assay_reward.models.packed.varlen import Lengths, Varlen, attend_together, kernel_fits

_ROWS_ELSEWHERE = 8192
"""Rows of a block on other devices than a CPU: what an MLP makes on the way is bounded by it."""

Norm: TypeAlias = Callable[[torch.Tensor], torch.Tensor]


@dataclass(frozen=True, kw_only=True)
class Layer:
    """One layer."""

    before_attention: Norm
    inputs: Linear
    """Queries, keys and values in one; in the last layer keys and values alone."""
    last_queries: Linear | None
    """Queries of the last layer."""
    query_norm: Norm | None
    key_norm: Norm | None
    output: Linear
    after_attention: Norm | None
    before_mlp: Norm
    gate_and_up: Linear
    down: Linear
    after_mlp: Norm | None
    window: int | None
    layer_type: str | None
    """By which its angles differ; None where all layers have the same."""
    scale: float


class PackedDecoder:
    """A decoder's layers in memory."""

    def __init__(self, model: Any, family: Family) -> None:
        """Takes the weights out of a model of transformers with this decoder and a head, of no use afterwards: its layers are gone."""
        config = model.config.get_text_config()
        body, layers = model.model, model.model.layers
        attention = layers[0].self_attn
        self._size = int(attention.head_dim)
        self._heads = attention.q_proj.out_features // self._size
        self._key_heads = attention.k_proj.out_features // self._size
        self._embed = body.embed_tokens
        self._device: str = str(self._embed.weight.device)
        self._on_cpu = self._embed.weight.device.type == "cpu"
        self._block = ROWS if self._on_cpu else _ROWS_ELSEWHERE
        self._rotary = body.rotary_emb
        self._angles: dict[str | None, torch.Tensor] = {}
        self._activation = ACT2FN[getattr(config, "hidden_activation", None) or config.hidden_act]
        self._cap: float | None = config.attn_logit_softcapping if family.caps_attention else None
        self._masks = Masks(self._device)
        self._together = kernel_fits(
            self._embed.weight.device, self._embed.weight.dtype, self._heads, self._key_heads, self._size, self._cap
        )
        mlp = layers[0].mlp
        shapes = (
            (attention.q_proj, attention.k_proj, attention.v_proj),
            (attention.o_proj,),
            (mlp.gate_proj, mlp.up_proj),
            (mlp.down_proj,),
        )
        self.linear = faster([fused(*parts) for parts in shapes])
        """Makes the layers' products."""
        self.layers: list[Layer] = []
        for index in range(len(layers)):
            last = index == len(layers) - 1
            layer_type = config.layer_types[index] if family.rope_by_layer_type else None
            self.layers.append(self._layer(layers[index], family, window_of(config, family, index), layer_type, last=last))
            # One layer at a time, so that a model needs little more memory than it has while it is loaded.
            layers[index] = None
        self._norm = _norm(body.norm, family)

    def hidden(self, plan: Plan, sequences: Sequence[Ids], runs: Sequence[Run]) -> torch.Tensor:
        """What a head reads at the positions of the runs: [rows, width], on the device; the last rows are filling.

        Args:
            plan: of the sequences.
            sequences: distinct; ids within the vocabulary.
            runs: whose rows follow each other from 0 on.
        """
        rows = rounded(plan.tokens)
        ids = np.zeros(rows, dtype=np.int64)
        positions = np.zeros(rows, dtype=np.int64)
        for segment, owner in zip(plan.segments, plan.owners, strict=True):
            place = slice(segment.row, segment.row + segment.end - segment.start)
            ids[place] = sequences[owner][segment.start : segment.end]
            positions[place] = np.arange(segment.start, segment.end)
        geometry = self._geometry(plan)
        copies = None if geometry.index is None else self._moved(geometry.index)
        where = self._moved(positions)
        last_layer = self.layers[-1]
        calls = {window: geometry.calls(plan.whole, window) for window in {layer.window for layer in self.layers[:-1]}}
        with torch.inference_mode():
            angles = {name: self._angles_of(name, int(positions.max()))[where] for name in {layer.layer_type for layer in self.layers}}
            hidden = self._embed(self._moved(ids))
            packed = hidden.new_empty(rows + SPARE_ROWS, self._heads + 2 * self._key_heads, self._size)
            attended = hidden.new_empty(rows, self._heads, self._size)
            packed[rows:].zero_()
            attended[plan.tokens :].zero_()
            for layer in self.layers[:-1]:
                self._project(layer, hidden, packed, angles[layer.layer_type], self._heads)
                self._attend(layer, packed[:, : self._heads], packed[:, self._heads :], copies, calls[layer.window], attended)
                self._rest(layer, hidden, attended)
            keys_values = packed[:, self._heads :]
            self._project(last_layer, hidden, keys_values, angles[last_layer.layer_type], 0)
            read = np.zeros(rounded(sum(run.end - run.start for run in runs)), dtype=np.int64)
            for run in runs:
                first = plan.segments[run.segment].row + run.start - plan.segments[run.segment].start
                read[run.row : run.row + run.end - run.start] = np.arange(first, first + run.end - run.start)
            places = self._moved(read)
            last_calls = geometry.calls(runs, last_layer.window)
            return self._last(hidden[places], keys_values, copies, last_calls, angles[last_layer.layer_type][places])

    def _geometry(self, plan: Plan) -> Grid | Whole | Varlen:
        if self._on_cpu:
            return Grid(plan, self._masks)
        return Varlen(plan, self._device) if self._together else Whole(plan, self._masks)

    def _last(
        self,
        read: torch.Tensor,
        keys_values: torch.Tensor,
        copies: torch.Tensor | None,
        calls: Sequence[Call] | Lengths,
        angles: torch.Tensor,
    ) -> torch.Tensor:
        """The last layer and the norm after it, of the rows that are read alone."""
        layer = self.layers[-1]
        assert layer.last_queries is not None
        queries = read.new_zeros(len(read) + SPARE_ROWS, self._heads, self._size)
        for start in range(0, len(read), self._block):
            rows = slice(start, start + self._block)
            made = layer.last_queries(layer.before_attention(read[rows])).view(-1, self._heads, self._size)
            if layer.query_norm is not None:
                made = layer.query_norm(made)
            rotate(made, angles[rows])
            queries[start : start + len(made)] = made
        attended = read.new_zeros(len(read), self._heads, self._size)
        self._attend(layer, queries, keys_values, copies, calls, attended)
        self._rest(layer, read, attended)
        return self._norm(read)

    def _project(self, layer: Layer, hidden: torch.Tensor, packed: torch.Tensor, angles: torch.Tensor, heads: int) -> None:
        """Rotated queries (`heads` of them, or none), rotated keys, and values of all rows."""
        rotated = heads + self._key_heads
        for start in range(0, len(hidden), self._block):
            rows = slice(start, start + self._block)
            made = layer.inputs(layer.before_attention(hidden[rows])).view(len(hidden[rows]), -1, self._size)
            if heads and layer.query_norm is not None:
                made[:, :heads] = layer.query_norm(made[:, :heads])
            if layer.key_norm is not None:
                made[:, heads:rotated] = layer.key_norm(made[:, heads:rotated])
            rotate(made[:, :rotated], angles[rows])
            packed[start : start + len(made)] = made

    def _attend(
        self,
        layer: Layer,
        queries: torch.Tensor,
        keys_values: torch.Tensor,
        copies: torch.Tensor | None,
        calls: Sequence[Call] | Lengths,
        attended: torch.Tensor,
    ) -> None:
        if copies is not None:
            keys_values = keys_values.index_select(0, copies)
        if isinstance(calls, Lengths):
            attend_together(queries, keys_values, calls, attended, scale=layer.scale)
        else:
            attend(queries, keys_values, calls, attended, scale=layer.scale, cap=self._cap)

    def _rest(self, layer: Layer, hidden: torch.Tensor, attended: torch.Tensor) -> None:
        """Output projection, MLP and both residuals, in place."""
        for start in range(0, len(hidden), self._block):
            rows = hidden[start : start + self._block]
            made = layer.output(attended[start : start + self._block].flatten(1))
            rows += made if layer.after_attention is None else layer.after_attention(made)
            gate, up = layer.gate_and_up(layer.before_mlp(rows)).chunk(2, -1)
            made = layer.down(self._activation(gate).mul_(up))
            rows += made if layer.after_mlp is None else layer.after_mlp(made)

    def _angles_of(self, layer_type: str | None, highest: int) -> torch.Tensor:
        """Cosine + i sine of positions 0 to at least `highest`, scaled as rope says: [positions, 1, size / 2], complex."""
        known = self._angles.get(layer_type)
        if known is None or len(known) <= highest:
            positions = torch.arange(max(1024, 1 << highest.bit_length()), device=self._device)[None]
            by_type = {} if layer_type is None else {"layer_type": layer_type}
            cos, sin = self._rotary(torch.empty(1, dtype=torch.float32, device=self._device), positions, **by_type)
            known = self._angles[layer_type] = complex_angles(cos, sin)
        return known

    def _moved(self, array: Any) -> torch.Tensor:
        """An array on the device; by pinned memory where that is not this machine's."""
        tensor = torch.from_numpy(array)
        return tensor if self._on_cpu else tensor.pin_memory().to(self._device, non_blocking=True)

    def _layer(self, layer: Any, family: Family, window: int | None, layer_type: str | None, *, last: bool) -> Layer:
        attention, mlp = layer.self_attn, layer.mlp
        query, key = (side_by_side(fused(part), self._size) for part in (attention.q_proj, attention.k_proj))
        value = fused(attention.v_proj)
        around = family.norms_around
        return Layer(
            before_attention=_norm(layer.input_layernorm, family),
            inputs=self.linear(joined([key, value] if last else [query, key, value])),
            last_queries=self.linear(query) if last else None,
            query_norm=_norm(attention.q_norm, family, halves=True) if family.query_key_norms else None,
            key_norm=_norm(attention.k_norm, family, halves=True) if family.query_key_norms else None,
            output=self.linear(fused(attention.o_proj)),
            after_attention=_norm(layer.post_attention_layernorm, family) if around else None,
            before_mlp=_norm(layer.pre_feedforward_layernorm if around else layer.post_attention_layernorm, family),
            gate_and_up=self.linear(fused(mlp.gate_proj, mlp.up_proj)),
            down=self.linear(fused(mlp.down_proj)),
            after_mlp=_norm(layer.post_feedforward_layernorm, family) if around else None,
            window=window,
            layer_type=layer_type,
            scale=float(attention.scaling),
        )


def _norm(module: Any, family: Family, *, halves: bool = False) -> Norm:
    """A norm of root mean square; with `halves` of heads that are reordered."""
    weight = module.weight.detach()
    weight = paired(weight, len(weight)) if halves else weight
    epsilon = float(module.eps if family.norms_from_one else module.variance_epsilon)
    if family.norms_from_one:
        weight = 1.0 + weight.float()
    if module.weight.dtype == torch.float32:
        return partial(functional.rms_norm, normalized_shape=(len(weight),), weight=weight, eps=epsilon)
    return partial(_narrow_norm, weight=weight, epsilon=epsilon)


def _narrow_norm(rows: torch.Tensor, *, weight: torch.Tensor, epsilon: float) -> torch.Tensor:
    """In float32; weights of the rows' own type multiply after rounding, as Llama's do, wide ones before, as Gemma's."""
    normed = functional.rms_norm(rows.float(), (len(weight),), None, epsilon)
    return normed.to(rows.dtype) * weight if weight.dtype == rows.dtype else (normed * weight).to(rows.dtype)
