"""Hugging Face checkpoints from a folder on disk, with what can be wrong about one said in words.

Nothing of a checkpoint is ever run: one that brings code of its own is refused.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from transformers import AutoConfig, AutoTokenizer

from assay_kit.errors import InvalidArgument
from assay_reward.models.base import LoadOptions

# Architectures whose checkpoints bring code, and that need none of it here.
_KNOWN_HERE = ("Qwen2ForRewardModel",)
NO_LIMIT = 1_000_000
"""Longest input of a model that names no limit."""
_TOKENIZER_FILES = ("tokenizer.json", "tokenizer.model", "spiece.model", "sentencepiece.bpe.model", "vocab.json", "vocab.txt")
# Families whose positions start after the padding id, so that many fewer tokens fit.
_OFFSET_POSITIONS = ("roberta", "xlm-roberta", "xlm-roberta-xl", "camembert", "longformer", "xmod", "data2vec-text")


def read_config(folder: Path) -> Any:
    """The configuration of a checkpoint.

    Raises:
        InvalidArgument: field `uri`; it is not there, not known here, or needs code of the checkpoint's own.
    """
    file = folder / "config.json"
    try:
        config = AutoConfig.from_pretrained(folder, local_files_only=True)
    except (OSError, ValueError, KeyError, TypeError) as error:
        if "trust_remote_code" in str(error):
            raise _needs_code(file) from error
        raise InvalidArgument("uri", f"{file} is no model configuration that is known here: {line(error)}") from error
    if getattr(config, "auto_map", None) and architecture_of(config) not in _KNOWN_HERE:
        raise _needs_code(file)
    return config


def architecture_of(config: Any) -> str:
    """Name of the class that wrote the checkpoint; "none" where it does not say."""
    return str((config.architectures or ["none"])[0])


def read_weights(auto_class: Any, folder: Path, architecture: str, options: LoadOptions) -> Any:
    """The model on its device, for inference.

    Args:
        auto_class: of transformers, for example `AutoModelForCausalLM`.
        folder: the checkpoint.
        architecture: as in its configuration.
        options: device and type of the weights.

    Raises:
        InvalidArgument: field `uri`; the files cannot be read, weights are missing, or some are not finite.
    """
    try:
        model, report = auto_class.from_pretrained(
            folder, dtype=getattr(torch, options.dtype), local_files_only=True, output_loading_info=True
        )
    except Exception as error:  # what the readers of weights raise for a broken file is of many types
        raise InvalidArgument("uri", f"the weights in {folder} cannot be read: {line(error)}") from error
    if report["missing_keys"]:
        raise InvalidArgument(
            "uri", f"the checkpoint lacks weights that {architecture} has: {', '.join(sorted(report['missing_keys'])[:5])}"
        )
    damaged = [name for name, weight in model.named_parameters() if not bool(torch.isfinite(weight).all())]
    if damaged:
        raise InvalidArgument("uri", f"the weights in {folder} are damaged: {', '.join(damaged[:5])} hold NaN or infinity")
    return model.to(options.device).eval()


def read_tokenizer(folder: Path) -> Any:
    """The tokenizer of a checkpoint.

    Raises:
        InvalidArgument: field `uri`; there is none, or it cannot be read.
    """
    if not any((folder / name).is_file() for name in _TOKENIZER_FILES):
        raise InvalidArgument("uri", f"{folder} holds no tokenizer; save the one the model was trained with there (tokenizer.json)")
    try:
        return AutoTokenizer.from_pretrained(folder, local_files_only=True)
    except Exception as error:  # what the readers of tokenizers raise for a broken file is of many types
        raise InvalidArgument("uri", f"the tokenizer in {folder} cannot be read: {line(error)}") from error


def longest_input(config: Any, tokenizer: Any, options: LoadOptions) -> int:
    """Most tokens of one input, by the model's positions, its tokenizer and the service's own limit."""
    limits = [options.max_input_tokens] if options.max_input_tokens else []
    positions = getattr(config, "max_position_embeddings", None)
    if positions:
        offset = (config.pad_token_id or 0) + 1 if config.model_type in _OFFSET_POSITIONS else 0
        limits.append(int(positions) - offset)
    if 0 < tokenizer.model_max_length < NO_LIMIT:
        limits.append(int(tokenizer.model_max_length))
    return min(limits, default=NO_LIMIT)


def line(error: BaseException) -> str:
    """What an error says, on one line."""
    return " ".join(str(error).split())[:300]


def _needs_code(file: Path) -> InvalidArgument:
    return InvalidArgument(
        "uri",
        f"the checkpoint needs code of its own ({file} has auto_map), and none is run here; "
        "a checkpoint of an architecture that transformers itself has is wanted",
    )
