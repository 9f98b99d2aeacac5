"""How families of decoders differ, each by one `Family`.

To add one: read its `modeling_*.py` in transformers. If its layers are `self_attn` with q, k, v and o projections, `mlp` with gate, up
and down projections, and norms of root mean square under the names that `decoder.py` reads, a `Family` with its architectures and what
is special about it is all; else `decoder.py` must learn the difference, as a field here. Biases, head sizes, rope scaling, activation
and window are read from the checkpoint. Then put a tiny checkpoint of it into `DECODERS` of
`tests/support/tiny_classifiers.py`, whose tests hold it to the plain forward of transformers. At load every checkpoint is held to that
too (`read_forward.py`), and computed plainly where the two differ.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

import numpy as np

from assay_reward.models.packed.plan import Ids

ROPE_BY_LENGTH = ("dynamic", "longrope")
"""Kinds of rope whose angles depend on the length of the whole, so that no beginning can be shared."""


@dataclass(frozen=True, kw_only=True)
class Family:
    """What is special about some architectures."""

    architectures: tuple[str, ...]
    norms_from_one: bool = False
    """Norms hold their weights less one and multiply in float32, as Gemma's."""
    query_key_norms: bool = False
    """Queries and keys are normed by head before they are rotated."""
    norms_around: bool = False
    """Attention and MLP are normed after as well as before."""
    caps_attention: bool = False
    """`attn_logit_softcapping` holds."""
    rope_by_layer_type: bool = False
    """Layers with a window are rotated by other frequencies."""
    windows: Literal["none", "all", "by_layer_type"] = "none"
    """Which layers have the configuration's `sliding_window`."""
    reads: Literal["last_not_padding", "before_first_padding"] = "last_not_padding"
    """The position of the head, by where the padding id occurs in a sequence's own tokens."""


FAMILIES = (
    Family(architectures=("LlamaForSequenceClassification", "LlamaForCausalLM")),
    Family(architectures=("MistralForSequenceClassification", "MistralForCausalLM"), windows="all"),
    Family(architectures=("Qwen2ForSequenceClassification", "Qwen2ForCausalLM"), windows="by_layer_type"),
    Family(architectures=("Qwen2ForRewardModel",), windows="by_layer_type", reads="before_first_padding"),
    Family(architectures=("Qwen3ForSequenceClassification", "Qwen3ForCausalLM"), windows="by_layer_type", query_key_norms=True),
    Family(
        architectures=("Gemma2ForSequenceClassification", "Gemma2ForCausalLM"),
        windows="by_layer_type",
        norms_from_one=True,
        norms_around=True,
        caps_attention=True,
    ),
    Family(
        architectures=("Gemma3TextForSequenceClassification", "Gemma3ForCausalLM"),
        windows="by_layer_type",
        norms_from_one=True,
        norms_around=True,
        query_key_norms=True,
        rope_by_layer_type=True,
    ),
)


def family_of(architecture: str, config: Any) -> Family | None:
    """The family of a checkpoint; None where its forward is not known here."""
    for family in FAMILIES:
        if architecture in family.architectures:
            return family if _fits(config, family) else None
    return None


def window_of(config: Any, family: Family, layer: int) -> int | None:
    """Most keys a query of a layer sees, its own among them; None for all before it."""
    slides = family.windows == "all" or (family.windows == "by_layer_type" and config.layer_types[layer] == "sliding_attention")
    window = config.sliding_window if slides else None
    return None if window is None else int(window)


def read_position(ids: Ids, family: Family, padding: int | None) -> int:
    """Where the head reads a sequence, as the family's own forward finds it in a batch of one.

    Args:
        ids: of the sequence; not empty.
        family: its model's.
        padding: the configuration's padding id; None where it has none, and the last token is read.
    """
    last = len(ids) - 1
    if padding is None:
        return last
    if family.reads == "before_first_padding":
        pads = np.flatnonzero(ids == padding)
        return last if not len(pads) or not pads[0] else int(pads[0]) - 1
    if ids[last] != padding:
        return last
    others = np.flatnonzero(ids != padding)
    return int(others[-1]) if len(others) else 0


def _fits(config: Any, family: Family) -> bool:
    ropes = config.rope_parameters.values() if family.rope_by_layer_type else (config.rope_parameters,)
    if any(rope is None or rope.get("rope_type") in ROPE_BY_LENGTH for rope in ropes):
        return False
    known = {"full_attention", "sliding_attention"}
    return not getattr(config, "use_bidirectional_attention", None) and set(getattr(config, "layer_types", None) or ()) <= known
