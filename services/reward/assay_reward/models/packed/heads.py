"""What heads make of a decoder's hidden states."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch


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
