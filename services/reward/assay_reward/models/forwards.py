"""From token ids to a classifier's logits: what every way of computing them has, and the plain one."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import torch

TOGETHER_ON_GPU = 32


@dataclass(frozen=True, kw_only=True)
class Logits:
    """What the device gave for some sequences."""

    rows: list[list[float]]
    """All labels of each sequence, in order."""
    computed_tokens: int
    """Tokens that went through the model; what sequences share counts once."""


class Forward(Protocol):
    """A way of computing a model."""

    def cost(self, sequences: Sequence[tuple[int, ...]]) -> int:
        """The `computed_tokens` of these; any thread."""

    def logits(self, sequences: Sequence[tuple[int, ...]]) -> Logits:
        """Those of each sequence, which holds one token at least; the device's thread."""


class PlainForward:
    """The forward of transformers: each distinct sequence once, without padding, so that padding cannot move a score.

    On a CPU one by one, which costs nothing there and gives a sequence the same bits in any company. On a GPU, where a single
    sequence would leave it idle, up to `TOGETHER_ON_GPU` that happen to be of one length.
    """

    def __init__(self, model: Any) -> None:
        """Takes a sequence classifier on its device, in evaluation mode."""
        self._model = model
        self._device = model.device
        pads = model.config.get_text_config().pad_token_id is not None
        # Without a padding id transformers reads the last token, and only of one sequence at a time.
        self._together = TOGETHER_ON_GPU if pads and self._device.type != "cpu" else 1

    def cost(self, sequences: Sequence[tuple[int, ...]]) -> int:
        """Sum of the lengths of the distinct ones."""
        return sum(len(ids) for ids in set(sequences))

    def logits(self, sequences: Sequence[tuple[int, ...]]) -> Logits:
        """Longest first, so that memory is asked for once."""
        by_length: dict[int, list[tuple[int, ...]]] = defaultdict(list)
        for ids in dict.fromkeys(sequences):
            by_length[len(ids)].append(ids)
        found: dict[tuple[int, ...], list[float]] = {}
        for length in sorted(by_length, reverse=True):
            alike = by_length[length]
            for start in range(0, len(alike), self._together):
                few = alike[start : start + self._together]
                found.update(zip(few, self._forward(few), strict=True))
        return Logits(rows=[found[ids] for ids in sequences], computed_tokens=sum(len(ids) for ids in found))

    def _forward(self, few: Sequence[tuple[int, ...]]) -> list[list[float]]:
        ids = torch.tensor(few, device=self._device)
        with torch.inference_mode():
            logits: torch.Tensor = self._model(input_ids=ids, attention_mask=torch.ones_like(ids)).logits
        return [[float(value) for value in row] for row in logits.double().tolist()]
