"""Tiny random sequence classifiers of every family whose forward the reward service knows, or does not."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from support.tiny_models import tiny_tokenizer
from transformers import (
    AutoModelForCausalLM,
    BertConfig,
    BertForSequenceClassification,
    DebertaV2Config,
    DebertaV2ForSequenceClassification,
    Gemma2Config,
    Gemma2ForSequenceClassification,
    Gemma3TextConfig,
    Gemma3TextForSequenceClassification,
    LlamaConfig,
    LlamaForSequenceClassification,
    MistralConfig,
    MistralForSequenceClassification,
    ModernBertConfig,
    ModernBertForSequenceClassification,
    PreTrainedModel,
    Qwen2Config,
    Qwen2ForSequenceClassification,
    Qwen3Config,
    Qwen3ForSequenceClassification,
    RobertaConfig,
    RobertaForSequenceClassification,
)

from assay_reward.models.qwen2_reward import Qwen2ForRewardModel

POSITIONS = 2048
WINDOW = 24
"""Of the families with windows: shorter than what is scored."""

_TOKENIZER = tiny_tokenizer(max_length=POSITIONS)
_IDS = {"bos_token_id": _TOKENIZER.bos_token_id, "eos_token_id": _TOKENIZER.eos_token_id, "pad_token_id": _TOKENIZER.pad_token_id}
_SIZES: dict[str, Any] = {
    "vocab_size": len(_TOKENIZER),
    "hidden_size": 32,
    "intermediate_size": 88,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
    "max_position_embeddings": POSITIONS,
    "num_labels": 1,
}
_DECODER: dict[str, Any] = {**_SIZES, **_IDS, "num_key_value_heads": 2, "head_dim": 8}
_SLIDING = ["sliding_attention", "full_attention", "sliding_attention"]
_LLAMA3 = {
    "rope_type": "llama3",
    "rope_theta": 10000.0,
    "factor": 4.0,
    "low_freq_factor": 1.0,
    "high_freq_factor": 4.0,
    "original_max_position_embeddings": 64,
}


def _gemma3_ropes() -> dict[str, Any]:
    return {
        "full_attention": {"rope_type": "linear", "factor": 4.0, "rope_theta": 1_000_000.0},
        "sliding_attention": {"rope_type": "default", "rope_theta": 10_000.0},
    }


DECODERS: dict[str, Callable[[], PreTrainedModel]] = {
    "llama": lambda: LlamaForSequenceClassification(LlamaConfig(**_DECODER)),
    "llama_biased_scaled": lambda: LlamaForSequenceClassification(
        LlamaConfig(**_DECODER, attention_bias=True, mlp_bias=True, rope_parameters=_LLAMA3)
    ),
    "llama_one_layer": lambda: LlamaForSequenceClassification(LlamaConfig(**{**_DECODER, "num_hidden_layers": 1})),
    "mistral": lambda: MistralForSequenceClassification(MistralConfig(**_DECODER, sliding_window=None)),
    "mistral_window": lambda: MistralForSequenceClassification(MistralConfig(**_DECODER, sliding_window=WINDOW)),
    "mistral_wide_window": lambda: MistralForSequenceClassification(MistralConfig(**_DECODER, sliding_window=600)),
    "qwen2": lambda: Qwen2ForSequenceClassification(Qwen2Config(**_DECODER)),
    "qwen2_window": lambda: Qwen2ForSequenceClassification(
        Qwen2Config(**_DECODER, use_sliding_window=True, sliding_window=WINDOW, layer_types=_SLIDING)
    ),
    "qwen2_reward_head": lambda: Qwen2ForRewardModel(Qwen2Config(**_DECODER)),
    "qwen3": lambda: Qwen3ForSequenceClassification(Qwen3Config(**_DECODER)),
    "gemma2": lambda: Gemma2ForSequenceClassification(
        Gemma2Config(**_DECODER, sliding_window=WINDOW, layer_types=_SLIDING, query_pre_attn_scalar=16, attn_logit_softcapping=2.0)
    ),
    "gemma3": lambda: Gemma3TextForSequenceClassification(
        Gemma3TextConfig(**_DECODER, sliding_window=WINDOW, layer_types=_SLIDING, query_pre_attn_scalar=16, rope_parameters=_gemma3_ropes())
    ),
}
"""Those that are computed on packed tokens, with what they share computed once."""

_DEBERTA: dict[str, Any] = {
    **_SIZES,
    "pad_token_id": _TOKENIZER.pad_token_id,
    "relative_attention": True,
    "pos_att_type": ["p2c", "c2p"],
    "position_biased_input": False,
}
_DEBERTA_V3: dict[str, Any] = {**_DEBERTA, "position_buckets": 16, "share_att_key": True, "norm_rel_ebd": "layer_norm"}
_MODERNBERT: dict[str, Any] = {
    **_SIZES,
    **_IDS,
    "cls_token_id": _TOKENIZER.bos_token_id,
    "sep_token_id": _TOKENIZER.eos_token_id,
    "local_attention": 32,
}

ENCODERS: dict[str, Callable[[], PreTrainedModel]] = {
    "bert": lambda: BertForSequenceClassification(BertConfig(**_SIZES, pad_token_id=_TOKENIZER.pad_token_id)),
    "roberta": lambda: RobertaForSequenceClassification(RobertaConfig(**{**_SIZES, "type_vocab_size": 1}, **_IDS)),
    "deberta_v2": lambda: DebertaV2ForSequenceClassification(DebertaV2Config(**_DEBERTA)),
    "deberta_v2_one_way": lambda: DebertaV2ForSequenceClassification(
        DebertaV2Config(**{**_DEBERTA, "pos_att_type": ["c2p"], "position_biased_input": True})
    ),
    "deberta_v3": lambda: DebertaV2ForSequenceClassification(DebertaV2Config(**_DEBERTA_V3)),
    "modernbert": lambda: ModernBertForSequenceClassification(ModernBertConfig(**_MODERNBERT)),
    "modernbert_mean": lambda: ModernBertForSequenceClassification(
        ModernBertConfig(**_MODERNBERT, classifier_pooling="mean", attention_bias=True)
    ),
}
"""Those that are computed on packed tokens, and share nothing."""

OTHERS: dict[str, Callable[[], PreTrainedModel]] = {
    "deberta_v2_convolution": lambda: DebertaV2ForSequenceClassification(DebertaV2Config(**_DEBERTA_V3, conv_kernel_size=3)),
    "llama_dynamic_rope": lambda: LlamaForSequenceClassification(
        LlamaConfig(**_DECODER, rope_parameters={"rope_type": "dynamic", "rope_theta": 10000.0, "factor": 2.0})
    ),
}
"""Those that are not: an encoder with a convolution, and a decoder whose rope depends on the length of the whole."""


def write_classifier(folder: Path, name: str, seed: int = 0, *, labels: int = 1) -> Path:
    """Writes one of them with a tokenizer; returns the folder. Weights are wide enough that every part of a layer moves the score."""
    torch.manual_seed(seed)
    model = {**DECODERS, **ENCODERS, **OTHERS}[name]()
    if labels != 1:
        model.config.num_labels = labels
        model = type(model)(model.config)
    return _written(folder, model.eval())


def write_language_model(folder: Path, name: str, seed: int = 0, **changes: Any) -> Path:
    """Writes a language model of the family of a decoder, with changes to its configuration, as `write_classifier`."""
    torch.manual_seed(seed)
    config = DECODERS[name]().config
    config.update({"architectures": None, **changes})
    return _written(folder, AutoModelForCausalLM.from_config(config).eval())


def _written(folder: Path, model: PreTrainedModel) -> Path:
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.dim() > 1:
                parameter.normal_(0.0, 1.0 / parameter.shape[-1] ** 0.5)
            else:
                parameter.add_(torch.randn_like(parameter) * 0.1)
    model.save_pretrained(folder)
    _TOKENIZER.save_pretrained(folder)
    return folder
