"""The models: Llama classifiers of about 5 and 100 million random parameters, with a tokenizer and a chat template."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import torch
from support.tiny_models import BOS, EOS, HH_CHAT_TEMPLATE, PAD
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import LlamaConfig, LlamaForSequenceClassification, PreTrainedTokenizerFast

from assay_data.generated import generate_pairs

POSITIONS = 2048
_VOCABULARY = 8192
_DONE = "made"


@dataclass(frozen=True, kw_only=True)
class Size:
    """Of a model."""

    hidden: int
    feed_forward: int
    layers: int
    heads: int
    key_heads: int


SIZES = {
    "5m": Size(hidden=256, feed_forward=688, layers=4, heads=8, key_heads=4),
    "100m": Size(hidden=768, feed_forward=2048, layers=12, heads=12, key_heads=12),
}


def checkpoint(name: str, folder: Path) -> Path:
    """The folder of a model, made where it is not there yet; the same bytes every time."""
    target = folder / name
    if (target / _DONE).exists():
        return target
    size, tokenizer = SIZES[name], chat_tokenizer()
    torch.manual_seed(0)
    model = LlamaForSequenceClassification(
        LlamaConfig(
            vocab_size=_VOCABULARY,
            hidden_size=size.hidden,
            intermediate_size=size.feed_forward,
            num_hidden_layers=size.layers,
            num_attention_heads=size.heads,
            num_key_value_heads=size.key_heads,
            max_position_embeddings=POSITIONS,
            num_labels=1,
            bos_token_id=tokenizer.bos_token_id,
            eos_token_id=tokenizer.eos_token_id,
            pad_token_id=tokenizer.pad_token_id,
        )
    )
    with torch.no_grad():
        model.score.weight.normal_(0.0, 4.0 / size.hidden**0.5)
    model.eval().save_pretrained(target)
    tokenizer.save_pretrained(target)
    (target / _DONE).touch()
    return target


@cache
def chat_tokenizer() -> PreTrainedTokenizerFast:
    """Byte-level BPE, trained on generated conversations, with the HH chat template; it adds no special tokens by itself."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=_VOCABULARY,
        special_tokens=[PAD, BOS, EOS],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(_corpus(), trainer)
    fast: Any = PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        bos_token=BOS,
        eos_token=EOS,
        pad_token=PAD,
        model_max_length=POSITIONS,
        clean_up_tokenization_spaces=False,
    )
    fast.chat_template = HH_CHAT_TEMPLATE
    return fast


def _corpus() -> list[str]:
    return [text for pair in generate_pairs(2000, seed=1) for text in (*(turn.content for turn in pair.prompt), pair.chosen, pair.rejected)]
