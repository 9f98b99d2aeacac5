"""From token ids to how likely responses are under a language model: what every way of computing that has, and the plain one."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import torch

_POSITIONS_PER_CHUNK = 256


@dataclass(frozen=True, slots=True)
class Response:
    """A response to a prompt, as tokens."""

    ids: tuple[int, ...]
    """Prompt and response."""
    prompt_tokens: int
    """Where the response begins; from 1, since the first token of all has nothing before it, to less than all."""


@dataclass(frozen=True, kw_only=True)
class Likelihoods:
    """What the device gave for some responses."""

    sums: list[float]
    """For each, in order: the sum over its tokens of ln p(token | all before it)."""
    computed_tokens: int
    """Tokens that went through the model; what sequences share counts once."""


class LogProbs(Protocol):
    """A way of computing a language model."""

    def cost(self, responses: Sequence[Response]) -> int:
        """The `computed_tokens` of these; any thread."""

    def likelihoods(self, responses: Sequence[Response]) -> Likelihoods:
        """Those of each response; the device's thread."""


class PlainLogProbs:
    """The forward of transformers: each distinct response by itself, so that it has the same bits in any company."""

    def __init__(self, model: Any) -> None:
        """Takes a causal language model on its device, in evaluation mode."""
        self._body = model.base_model
        self._head = model.get_output_embeddings()
        self._softcap = softcap_of(model)
        self._device = model.device

    def cost(self, responses: Sequence[Response]) -> int:
        """Sum of the lengths of the distinct ones; what follows the last token of one is not asked."""
        return sum(len(response.ids) - 1 for response in set(responses))

    def likelihoods(self, responses: Sequence[Response]) -> Likelihoods:
        """One after the other."""
        known = {response: self._sum(response) for response in dict.fromkeys(responses)}
        return Likelihoods(sums=[known[response] for response in responses], computed_tokens=self.cost(responses))

    def _sum(self, response: Response) -> float:
        """The head is applied to the positions that predict the response, a chunk of them at a time; the softmax is taken in float32."""
        total = 0.0
        with torch.inference_mode():
            ids = torch.tensor([response.ids], device=self._device)
            mask = torch.ones_like(ids[:, :-1])
            hidden = self._body(input_ids=ids[:, :-1], attention_mask=mask, use_cache=False).last_hidden_state[0]
            for start in range(response.prompt_tokens, len(response.ids), _POSITIONS_PER_CHUNK):
                end = min(start + _POSITIONS_PER_CHUNK, len(response.ids))
                logits = capped(self._head(hidden[start - 1 : end - 1]).float(), self._softcap)
                total += float(logits.log_softmax(-1).gather(-1, ids[0, start:end, None]).double().sum())
        return total


def softcap_of(model: Any) -> float | None:
    """The cap that a language model puts on its logits, as Gemma 2 does; None where it has none."""
    cap = getattr(model.config.get_text_config(), "final_logit_softcapping", None)
    return None if cap is None else float(cap)


def capped(logits: torch.Tensor, cap: float | None) -> torch.Tensor:
    """Logits with the cap put on them softly; in place."""
    return logits if cap is None else logits.div_(cap).tanh_().mul_(cap)
