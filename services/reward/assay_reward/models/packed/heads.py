"""What heads make of a decoder's hidden states."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from assay_reward.models.log_probs import capped, softcap_of
from assay_reward.models.packed.linears import ROWS, Linear, Weights, plain

_LOGITS = 2**25
"""Most logits in memory at a time, but of `_LEAST_ROWS` positions always: 128 MiB in float32, and as much for their softmax."""
_LEAST_ROWS = 32
"""A multiple of the rows that keep a row's bits; see the package."""


class VocabularyHead:
    """A language model's last layer, from hidden states to what is likely."""

    def __init__(self, model: Any, make: Callable[[Weights], Linear]) -> None:
        """Takes the head of a causal language model, and how the decoder's other products are made."""
        head = model.get_output_embeddings()
        weights = Weights(weight=head.weight.detach(), bias=None if head.bias is None else head.bias.detach())
        tied = weights.weight.data_ptr() == model.get_input_embeddings().weight.data_ptr()
        # Weights that are the embeddings' too stay in memory as they are: a second layout of them would be more, not another.
        self._linear = plain(weights) if tied else make(weights)
        self._softcap = softcap_of(model)
        self._block = min(ROWS, max(_LEAST_ROWS, _LOGITS // len(weights.weight) // _LEAST_ROWS * _LEAST_ROWS))

    def log_probs(self, hidden: torch.Tensor, rows: npt.NDArray[np.int64], tokens: npt.NDArray[np.int64]) -> npt.NDArray[np.float64]:
        """The log-probability of each token after what its row has read; a row may be asked for several.

        Args:
            hidden: [rows, width], a multiple of 16 rows.
            rows: one for each token.
            tokens: within the vocabulary.
        """
        order = np.argsort(rows, kind="stable")
        where = torch.from_numpy(rows[order]).to(hidden.device)
        wanted = torch.from_numpy(tokens[order]).to(hidden.device)
        borders = np.searchsorted(rows[order], np.arange(0, len(hidden) + self._block, self._block))
        parts = []
        with torch.inference_mode():
            for index, start in enumerate(range(0, len(hidden), self._block)):
                asked = slice(int(borders[index]), int(borders[index + 1]))
                logits = capped(self._linear(hidden[start : start + self._block]).float(), self._softcap)
                parts.append(logits.log_softmax(-1)[where[asked] - start, wanted[asked]].double())
            found = torch.cat(parts).cpu().numpy()
        back = np.empty_like(found)
        back[order] = found
        return back


def score_head(score: Any) -> Callable[[torch.Tensor], torch.Tensor]:
    """The head of a classifier, a linear layer or more with activations between: [rows, width] to [rows, labels], float32 or wider."""
    modules: list[Any] = list(score) if isinstance(score, torch.nn.Sequential) else [score]
    *hidden, last = modules
    weight = last.weight.detach().float()
    bias = None if last.bias is None else last.bias.detach().float()

    def logits(rows: torch.Tensor) -> torch.Tensor:
        for module in hidden:
            rows = module(rows)
        # Row by row: as a matrix product so narrow, a row's sum would depend on how many there are.
        found = torch.stack([(rows.float() * label).sum(-1) for label in weight], -1)
        return found if bias is None else found + bias

    return logits
