"""A packed decoder as a way of computing a classifier."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch

from assay_reward.models.forwards import Logits
from assay_reward.models.packed.decoder import PackedDecoder
from assay_reward.models.packed.families import Family, read_position
from assay_reward.models.packed.heads import score_head
from assay_reward.models.packed.plan import Ids, plan_of


class PackedForward:
    """A decoder that computes what the sequences of a batch share once, and nothing after the position that is read."""

    def __init__(self, model: Any, family: Family) -> None:
        """Takes a sequence classifier of transformers apart: it is of no use afterwards."""
        self._family = family
        self._padding: int | None = model.config.get_text_config().pad_token_id
        self._decoder = PackedDecoder(model, family)
        self._head = score_head(model.score)

    def cost(self, sequences: Sequence[tuple[int, ...]]) -> int:
        """Tokens of the batch without repetition."""
        distinct, _ = self._read(sequences)
        return plan_of(distinct).tokens if distinct else 0

    def logits(self, sequences: Sequence[tuple[int, ...]]) -> Logits:
        """All in one batch; a sequence that overflows the type of the weights cannot spoil those it was computed beside."""
        if not sequences:
            return Logits(rows=[], computed_tokens=0)
        distinct, places = self._read(sequences)
        rows, computed = self._batch(distinct)
        spoilt = [place for place, row in enumerate(rows) if not all(map(math.isfinite, row))] if len(distinct) > 1 else []
        for place in spoilt:
            [rows[place]], more = self._batch([distinct[place]])
            computed += more
        return Logits(rows=[rows[place] for place in places], computed_tokens=computed)

    def _batch(self, distinct: Sequence[Ids]) -> tuple[list[list[float]], int]:
        plan = plan_of(distinct)
        runs, rows = plan.tails([len(ids) - 1 for ids in distinct])
        with torch.inference_mode():
            logits = self._head(self._decoder.hidden(plan, distinct, runs)).double().tolist()
        return [logits[int(row)] for [row] in rows], plan.tokens

    def _read(self, sequences: Sequence[tuple[int, ...]]) -> tuple[list[Ids], list[int]]:
        """The distinct sequences up to where the head reads them, and for each given the place of its own among them."""
        places: dict[bytes, int] = {}
        distinct: list[Ids] = []
        found = []
        for given in sequences:
            ids = np.array(given, dtype=np.int32)
            ids = ids[: read_position(ids, self._family, self._padding) + 1]
            place = places.setdefault(ids.tobytes(), len(distinct))
            if place == len(distinct):
                distinct.append(ids)
            found.append(place)
        return distinct, found
