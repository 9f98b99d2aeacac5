"""Log-probabilities of a response under a language model, without the logits of a whole sequence in memory."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from transformers import AutoModelForCausalLM

from assay_kit.errors import InvalidArgument
from assay_reward.models.base import LoadOptions
from assay_reward.models.checkpoints import architecture_of, read_config, read_weights

_POSITIONS_PER_CHUNK = 256
_ALIKE = 1e-3


class LanguageModel:
    """A causal language model in memory, that tells how likely a response is."""

    def __init__(self, model: Any, device: str) -> None:
        """Takes a model of transformers, on its device."""
        self.config = model.config.get_text_config()
        self.architecture = str(model.config.architectures[0])
        self._body = model.base_model
        self._head = model.get_output_embeddings()
        self._softcap: float | None = getattr(self.config, "final_logit_softcapping", None)
        self._device = device

    def response_log_prob(self, ids: Sequence[int], prompt_tokens: int) -> float:
        """Sum over the response's tokens of ln p(token | all before it).

        One sequence by itself, so that it has the same bits in any company. The head is applied to the positions that predict
        the response, a chunk of them at a time, and the softmax taken in float32 at least.

        Args:
            ids: prompt and response.
            prompt_tokens: where the response begins; at least 1, since the first token of all has nothing before it.
        """
        total = 0.0
        with torch.inference_mode():
            sequence = torch.tensor([ids], device=self._device)
            hidden = self._body(input_ids=sequence, attention_mask=torch.ones_like(sequence), use_cache=False).last_hidden_state[0]
            for start in range(prompt_tokens, len(ids), _POSITIONS_PER_CHUNK):
                end = min(start + _POSITIONS_PER_CHUNK, len(ids))
                logits = self._head(hidden[start - 1 : end - 1]).float()
                if self._softcap is not None:
                    logits = self._softcap * torch.tanh(logits / self._softcap)
                chosen = logits.gather(-1, sequence[0, start:end, None])[:, 0] - logits.logsumexp(-1)
                total += float(chosen.double().sum())
        return total


def read_language_model(folder: Path, options: LoadOptions) -> LanguageModel:
    """The language model in a folder; warmed up, and held against its own plain forward.

    Raises:
        InvalidArgument: field `uri`; it is no whole causal language model, or makes its logits in a way that is not known here.
    """
    config = read_config(folder)
    architecture = architecture_of(config)
    if not architecture.endswith("ForCausalLM"):
        raise InvalidArgument("uri", f"the architecture in {folder} is {architecture}; one that ends with ForCausalLM is wanted")
    model = read_weights(AutoModelForCausalLM, folder, architecture, options)
    loaded = LanguageModel(model, options.device)
    ids = list(range(min(8, loaded.config.vocab_size)))
    with torch.inference_mode():
        plain = model(input_ids=torch.tensor([ids], device=options.device)).logits[0, :-1].float().log_softmax(-1)
    expected = float(plain[torch.arange(len(ids) - 1), ids[1:]].sum())
    found = loaded.response_log_prob(ids, 1)
    if not abs(found - expected) <= _ALIKE * abs(expected):
        raise InvalidArgument(
            "uri", f"{architecture} makes its logits in a way that is not known here: {found} where its own forward gives {expected}"
        )
    return loaded
