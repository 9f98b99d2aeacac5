"""How families of encoders differ, each by a function that takes a classifier of transformers apart.

To add one: read its `modeling_*.py` in transformers, write a function that names its modules as an `Encoder`, and give it a line in
`ENCODERS`. Then put a tiny checkpoint of it into `tests/support/tiny_classifiers.py`, whose tests hold it to its own plain forward. At load
every checkpoint is held to that too (`read_forward.py`), and computed plainly where the two differ.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import nn
from transformers.activations import ACT2FN

from assay_reward.models.packed.disentangled import Disentangled
from assay_reward.models.packed.encoder import Encoder, EncoderLayer, layer_norm
from assay_reward.models.packed.families import ROPE_BY_LENGTH
from assay_reward.models.packed.linears import Linear, Weights, faster, fused, joined
from assay_reward.models.packed.plan import Ids
from assay_reward.models.packed.rope import complex_angles, side_by_side


def encoder_of(architecture: str, model: Any) -> Encoder | None:
    """The parts of a classifier; None where its forward is not known here, and elsewhere than on a CPU, where it fills a device better.

    The classifier is of use still.
    """
    take = ENCODERS.get(architecture) if model.device.type == "cpu" else None
    return None if take is None else take(model)


def _bert(model: Any) -> Encoder | None:
    body = model.bert
    if model.config.is_decoder or body.pooler is None:
        return None
    return _encoder(model, body, nn.Sequential(body.pooler.dense, body.pooler.activation, model.classifier), _counted)


def _roberta(model: Any) -> Encoder | None:
    padding = int(model.config.pad_token_id)

    def positions(ids: Ids) -> npt.NDArray[np.int64]:
        # Padding is not counted, even inside a sequence.
        tokens = ids != padding
        return np.asarray(np.cumsum(tokens) * tokens + padding, dtype=np.int64)

    head = nn.Sequential(model.classifier.dense, nn.Tanh(), model.classifier.out_proj)
    return None if model.config.is_decoder else _encoder(model, model.roberta, head, positions)


def _deberta(model: Any) -> Encoder | None:
    encoder = model.deberta.encoder
    if encoder.conv is not None or not encoder.relative_attention or not encoder.layer[0].attention.self.pos_att_type:
        return None
    head = nn.Sequential(model.pooler.dense, ACT2FN[model.config.pooler_hidden_act], model.classifier)
    with torch.inference_mode():
        distances = encoder.get_rel_embedding()
    return _encoder(model, model.deberta, head, _counted, distances)


def _encoder(
    model: Any, body: Any, head: nn.Sequential, positions: Callable[[Ids], npt.NDArray[np.int64]], distances: torch.Tensor | None = None
) -> Encoder:
    """Layers as BERT's: normed after attention and MLP."""
    layers = body.encoder.layer
    make = faster(_shapes(layers[0]))

    def layer_of(layer: Any) -> EncoderLayer:
        inputs, output, up, down = _shapes(layer)
        return EncoderLayer(
            before_attention=None,
            inputs=make(inputs),
            output=make(output),
            after_attention=layer_norm(layer.attention.output.LayerNorm),
            before_mlp=None,
            up=make(up),
            gated=False,
            down=make(down),
            after_mlp=layer_norm(layer.output.LayerNorm),
            relative=None if distances is None else Disentangled(layer.attention.self, distances),
        )

    def embed(ids: torch.Tensor, where: torch.Tensor) -> torch.Tensor:
        embedded: torch.Tensor = embeddings(input_ids=ids, token_type_ids=torch.zeros_like(ids), position_ids=where)
        return embedded

    embeddings = body.embeddings
    return Encoder(
        layers=[layer_of(layer) for layer in layers],
        heads=int(model.config.num_attention_heads),
        activation=layers[0].intermediate.intermediate_act_fn,
        embed=embed,
        positions=positions,
        angles=_no_angles,
        norm=None,
        reads="first",
        head=head,
    )


def _shapes(layer: Any) -> list[Weights]:
    attention = layer.attention.self
    names = ("query", "key", "value") if hasattr(attention, "query") else ("query_proj", "key_proj", "value_proj")
    return [
        fused(*(getattr(attention, name) for name in names)),
        fused(layer.attention.output.dense),
        fused(layer.intermediate.dense),
        fused(layer.output.dense),
    ]


def _modernbert(model: Any) -> Encoder | None:
    config, body = model.config, model.model
    kinds = {rope.get("rope_type") for rope in config.rope_parameters.values()}
    if config.classifier_pooling not in ("cls", "mean") or not kinds.isdisjoint(ROPE_BY_LENGTH):
        return None
    size = config.hidden_size // config.num_attention_heads

    def shapes(layer: Any) -> list[Weights]:
        query, key, value = _thirds(fused(layer.attn.Wqkv))
        inputs = joined([side_by_side(query, size), side_by_side(key, size), value])
        return [inputs, fused(layer.attn.Wo), fused(layer.mlp.Wi), fused(layer.mlp.Wo)]

    make: Callable[[Weights], Linear] = faster(shapes(body.layers[0]))

    def layer_of(layer: Any) -> EncoderLayer:
        inputs, output, up, down = shapes(layer)
        return EncoderLayer(
            before_attention=None if isinstance(layer.attn_norm, nn.Identity) else layer_norm(layer.attn_norm),
            inputs=make(inputs),
            output=make(output),
            after_attention=None,
            before_mlp=layer_norm(layer.mlp_norm),
            up=make(up),
            gated=True,
            down=make(down),
            after_mlp=None,
            window=int(config.sliding_window) if layer.attention_type == "sliding_attention" else None,
            layer_type=layer.attention_type,
        )

    def angles(where: torch.Tensor, layer_type: str) -> torch.Tensor:
        return complex_angles(*rotary(torch.empty(1, dtype=dtype), where, layer_type))

    def embed(ids: torch.Tensor, where: torch.Tensor) -> torch.Tensor:
        embedded: torch.Tensor = embeddings(input_ids=ids)
        return embedded

    rotary, embeddings, dtype = body.rotary_emb, body.embeddings, body.embeddings.tok_embeddings.weight.dtype
    return Encoder(
        layers=[layer_of(layer) for layer in body.layers],
        heads=int(config.num_attention_heads),
        activation=body.layers[0].mlp.act,
        embed=embed,
        positions=_counted,
        angles=angles,
        norm=layer_norm(body.final_norm),
        reads="first" if config.classifier_pooling == "cls" else "mean",
        head=nn.Sequential(model.head.dense, model.head.act, model.head.norm, model.classifier),
    )


def _thirds(weights: Weights) -> list[Weights]:
    biases = [None] * 3 if weights.bias is None else weights.bias.chunk(3)
    return [Weights(weight=weight, bias=bias) for weight, bias in zip(weights.weight.chunk(3), biases, strict=True)]


def _counted(ids: Ids) -> npt.NDArray[np.int64]:
    return np.arange(len(ids))


def _no_angles(where: torch.Tensor, layer_type: str) -> torch.Tensor:
    raise AssertionError("layers without a type have no angles")


ENCODERS: dict[str, Callable[[Any], Encoder | None]] = {
    "BertForSequenceClassification": _bert,
    "RobertaForSequenceClassification": _roberta,
    "XLMRobertaForSequenceClassification": _roberta,
    "DebertaV2ForSequenceClassification": _deberta,
    "ModernBertForSequenceClassification": _modernbert,
}
"""By architecture."""
