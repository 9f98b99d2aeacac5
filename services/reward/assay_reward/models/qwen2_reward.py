"""`Qwen2ForRewardModel`, the architecture of Qwen2.5-Math-RM and WorldPM, whose checkpoints bring code of their own for it.

None of that code is run: this is the same architecture, a Qwen2 with a head of two layers on the position before the first padding,
written for the classes of transformers.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import nn
from transformers.modeling_outputs import SequenceClassifierOutputWithPast
from transformers.models.qwen2.modeling_qwen2 import Qwen2Model, Qwen2PreTrainedModel

ARCHITECTURE = "Qwen2ForRewardModel"


class Qwen2ForRewardModel(Qwen2PreTrainedModel):  # type: ignore[misc]  # transformers has no types
    """A Qwen2 with one reward."""

    def __init__(self, config: Any) -> None:
        """Makes the modules; weights are random until they are loaded."""
        super().__init__(config)
        self.model = Qwen2Model(config)
        self.score = nn.Sequential(nn.Linear(config.hidden_size, config.hidden_size), nn.ReLU(), nn.Linear(config.hidden_size, 1))
        self.post_init()

    def forward(self, input_ids: torch.Tensor, attention_mask: torch.Tensor | None = None) -> SequenceClassifierOutputWithPast:
        """The reward of each sequence [batch, 1], padded to the right or not at all."""
        hidden = self.model(input_ids, attention_mask=attention_mask, use_cache=False).last_hidden_state
        last = torch.full((len(input_ids),), -1)
        if self.config.pad_token_id is not None:
            # Where there is no padding argmax is 0, and the position before it the last, as by the checkpoints' own modulo.
            last = torch.eq(input_ids, self.config.pad_token_id).int().argmax(-1) - 1
        return SequenceClassifierOutputWithPast(logits=self.score(hidden[torch.arange(len(input_ids)), last]))
