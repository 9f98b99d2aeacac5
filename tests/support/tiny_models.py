"""Tiny random checkpoints for tests: real folders, as `save_pretrained` writes them, that load in milliseconds.

The same arguments give the same bytes, so scores and fingerprints are the same in every run.
"""

from functools import cache
from pathlib import Path
from typing import Any, Literal

import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import (
    BertConfig,
    BertForSequenceClassification,
    GPT2Config,
    GPT2ForSequenceClassification,
    LlamaConfig,
    LlamaForCausalLM,
    LlamaForSequenceClassification,
    PreTrainedModel,
    PreTrainedTokenizerFast,
    Qwen2Config,
    Qwen2ForSequenceClassification,
)

Family = Literal["llama", "qwen2", "gpt2", "bert"]

BOS, EOS, PAD = "<|bos|>", "<|eos|>", "<|pad|>"

# HH style; an assistant turn ends with the end-of-sequence token, the generation prompt leaves it open.
HH_CHAT_TEMPLATE = (
    "{% for message in messages %}"
    "{% if message['role'] == 'user' %}{{ '\\n\\nHuman: ' + message['content'] }}"
    "{% elif message['role'] == 'assistant' %}{{ '\\n\\nAssistant: ' + message['content'] + eos_token }}"
    "{% else %}{{ message['content'] }}{% endif %}"
    "{% endfor %}"
    "{% if add_generation_prompt %}{{ '\\n\\nAssistant:' }}{% endif %}"
)

_CORPUS = (
    "\n\nHuman: How do I bake bread at home?\n\nAssistant: Mix flour, water, salt and yeast, let it rise, and bake it for an hour.",
    "\n\nHuman: What should I say to a friend who is sad?\n\nAssistant: Listen first; then ask whether they would like some advice.",
    "\n\nHuman: Can you tell me about the history of the town?\n\nAssistant: I am not sure which town you mean. Could you say more?",
    "\n\nHuman: Is it safe to do this?\n\nAssistant: I would not recommend it. There are better and safer ways to do that.",
)
_VOCABULARY = 400
_POSITIONS = 512


@cache
def _trained() -> str:
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=_VOCABULARY,
        special_tokens=[PAD, BOS, EOS],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(_CORPUS, trainer)
    return str(tokenizer.to_str())


def tiny_tokenizer(*, pad_token: str = PAD, padding_side: str = "right", max_length: int = _POSITIONS) -> PreTrainedTokenizerFast:
    """A byte-level BPE tokenizer: bos, eos, pad and the HH chat template; any text survives a round trip."""
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=Tokenizer.from_str(_trained()),
        bos_token=BOS,
        eos_token=EOS,
        pad_token=pad_token,
        padding_side=padding_side,
        model_max_length=max_length,
        clean_up_tokenization_spaces=False,
    )
    tokenizer.chat_template = HH_CHAT_TEMPLATE
    return tokenizer


def _sizes(hidden_size: int, layers: int) -> dict[str, Any]:
    return {
        "vocab_size": len(tiny_tokenizer()),
        "hidden_size": hidden_size,
        "intermediate_size": 4 * hidden_size,
        "num_hidden_layers": layers,
        "num_attention_heads": 4,
        "max_position_embeddings": _POSITIONS,
    }


def _ids(tokenizer: PreTrainedTokenizerFast) -> dict[str, Any]:
    return {"bos_token_id": tokenizer.bos_token_id, "eos_token_id": tokenizer.eos_token_id, "pad_token_id": tokenizer.pad_token_id}


def _save(model: PreTrainedModel, tokenizer: PreTrainedTokenizerFast, folder: Path) -> Path:
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


def write_tiny_causal_lm(folder: Path, seed: int = 0, *, hidden_size: int = 32, layers: int = 2) -> Path:
    """Writes a random Llama language model with its tokenizer; returns the folder."""
    tokenizer = tiny_tokenizer()
    torch.manual_seed(seed)
    model = LlamaForCausalLM(LlamaConfig(**_sizes(hidden_size, layers), **_ids(tokenizer), num_key_value_heads=2))
    return _save(model, tokenizer, folder)


def write_tiny_reward_model(
    folder: Path,
    seed: int = 0,
    family: Family = "llama",
    *,
    hidden_size: int = 32,
    layers: int = 2,
    num_labels: int = 1,
    tokenizer: PreTrainedTokenizerFast | None = None,
) -> Path:
    """Writes a random sequence classifier with its tokenizer; returns the folder. Its scores spread over about -3..3."""
    tokenizer = tokenizer or tiny_tokenizer()
    shared = {**_ids(tokenizer), "num_labels": num_labels}
    torch.manual_seed(seed)
    if family == "llama":
        model = LlamaForSequenceClassification(LlamaConfig(**_sizes(hidden_size, layers), **shared, num_key_value_heads=2))
        head = model.score
    elif family == "qwen2":
        model = Qwen2ForSequenceClassification(Qwen2Config(**_sizes(hidden_size, layers), **shared, num_key_value_heads=2))
        head = model.score
    elif family == "gpt2":
        sizes = {"n_embd": hidden_size, "n_layer": layers, "n_head": 4, "n_positions": _POSITIONS}
        model = GPT2ForSequenceClassification(GPT2Config(vocab_size=len(tokenizer), **sizes, **shared))
        head = model.score
    else:
        model = BertForSequenceClassification(BertConfig(**_sizes(hidden_size, layers), **shared))
        head = model.classifier
    with torch.no_grad():
        head.weight.normal_(0.0, 1.0 / hidden_size**0.5)
    return _save(model.eval(), tokenizer, folder)
