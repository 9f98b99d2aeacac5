"""Reading the model that training starts from."""

from __future__ import annotations

from transformers import AutoModelForCausalLM, AutoTokenizer, PreTrainedModel, PreTrainedTokenizerBase

from assay_data.errors import DataError
from assay_data.storage import local_path
from assay_training.runs import TrainingError


def model_path(uri: str) -> str:
    """What `from_pretrained` takes: a folder for a path or a URI, a hub id as it is.

    Raises:
        TrainingError: where a path or URI leads to nothing.
    """
    if uri.startswith("hf://"):
        return uri.removeprefix("hf://")
    try:
        return str(local_path(uri))
    except DataError as error:
        if "://" in uri or uri.startswith((".", "/", "~")):
            raise TrainingError(f"model_uri: {error}") from error
        return uri


def load_policy(uri: str) -> tuple[PreTrainedModel, PreTrainedTokenizerBase]:
    """A causal LM in float32 and its tokenizer, which must have a chat template.

    Raises:
        TrainingError: where there is no such model, or no chat template.
    """
    path = model_path(uri)
    tokenizer = load_tokenizer(path)
    try:
        model = AutoModelForCausalLM.from_pretrained(path, dtype="float32")
    except (OSError, ValueError) as error:
        raise TrainingError(f"model_uri: {uri} is no causal LM that can be read: {_first_line(error)}") from error
    return model, tokenizer


def load_tokenizer(path: str) -> PreTrainedTokenizerBase:
    """The tokenizer of a model's folder or hub id.

    Raises:
        TrainingError: where there is none, or none with a chat template.
    """
    try:
        tokenizer: PreTrainedTokenizerBase = AutoTokenizer.from_pretrained(path)
    except (OSError, ValueError) as error:
        raise TrainingError(f"model_uri: {path} has no tokenizer that can be read: {_first_line(error)}") from error
    if not tokenizer.chat_template:
        raise TrainingError(f"model_uri: the tokenizer of {path} has no chat template; save one with it (tokenizer.chat_template)")
    if tokenizer.pad_token is None:
        tokenizer.pad_token = tokenizer.eos_token
    return tokenizer


def longest_input(model: PreTrainedModel, wanted: int) -> int:
    """The wanted length in tokens, or the model's longest where that is less: serving refuses what is longer."""
    most = getattr(model.config.get_text_config(), "max_position_embeddings", None)
    return min(wanted, most) if most else wanted


def _first_line(error: Exception) -> str:
    return str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
