"""How reward models are mostly computed today: transformers' forward on a padded batch."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from transformers import AutoModelForSequenceClassification, AutoTokenizer


class PaddedModel:
    """A sequence classifier and its tokenizer."""

    def __init__(self, folder: str, dtype: str, *, padding_side: str) -> None:
        """Reads both."""
        self._tokenizer: Any = AutoTokenizer.from_pretrained(folder, padding_side=padding_side)
        self._model: Any = AutoModelForSequenceClassification.from_pretrained(folder, dtype=getattr(torch, dtype)).eval()

    @torch.inference_mode()
    def scores(self, texts: Sequence[str]) -> list[float]:
        """Raw logits of whole texts, in one padded forward."""
        batch = self._tokenizer(list(texts), add_special_tokens=False, padding=True, return_tensors="pt")
        logits = self._model(input_ids=batch["input_ids"], attention_mask=batch["attention_mask"]).logits
        return [float(score) for score in logits[:, 0].double()]
