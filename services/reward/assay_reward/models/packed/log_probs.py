"""A packed decoder as a way of computing how likely responses are."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from assay_reward.models.log_probs import Likelihoods, Response
from assay_reward.models.packed.decoder import PackedDecoder
from assay_reward.models.packed.families import Family
from assay_reward.models.packed.heads import VocabularyHead
from assay_reward.models.packed.plan import Ids, plan_of


class PackedLogProbs:
    """A decoder that computes what the sequences of a batch share once, and the last layer and the vocabulary where a response is read.

    A sequence goes in without its last token, which predicts nothing that is asked. Responses that begin alike share what predicts that
    beginning as well; the position that predicts their first tokens, the prompt's last, is theirs together.
    """

    def __init__(self, model: Any, family: Family) -> None:
        """Takes a causal language model of transformers apart: it is of no use afterwards."""
        self._decoder = PackedDecoder(model, family)
        self._head = VocabularyHead(model, self._decoder.linear)

    def cost(self, responses: Sequence[Response]) -> int:
        """Tokens of the batch without repetition."""
        distinct, _ = _distinct(responses)
        return plan_of(distinct).tokens if distinct else 0

    def likelihoods(self, responses: Sequence[Response]) -> Likelihoods:
        """All in one batch; a sequence that overflows the type of the weights cannot spoil those it was computed beside."""
        sums, computed = self._batch(responses)
        spoilt = [place for place, total in enumerate(sums) if not math.isfinite(total)] if len(responses) > 1 else []
        for place in spoilt:
            [sums[place]], more = self._batch([responses[place]])
            computed += more
        return Likelihoods(sums=sums, computed_tokens=computed)

    def _batch(self, responses: Sequence[Response]) -> tuple[list[float], int]:
        if not responses:
            return [], 0
        distinct, places = _distinct(responses)
        firsts = [len(ids) for ids in distinct]
        for place, response in zip(places, responses, strict=True):
            firsts[place] = min(firsts[place], response.prompt_tokens - 1)
        plan = plan_of(distinct)
        runs, rows_of = plan.tails(firsts)
        rows = [rows_of[place][response.prompt_tokens - 1 - firsts[place] :] for place, response in zip(places, responses, strict=True)]
        tokens = [np.array(response.ids[response.prompt_tokens :], dtype=np.int64) for response in responses]
        hidden = self._decoder.hidden(plan, distinct, runs)
        found = self._head.log_probs(hidden, np.concatenate(rows), np.concatenate(tokens))
        ends = np.cumsum([len(one) for one in tokens])
        # Exactly rounded, so that the order in which they are summed is nobody's concern.
        return [math.fsum(found[end - len(one) : end]) for one, end in zip(tokens, ends, strict=True)], plan.tokens


def _distinct(responses: Sequence[Response]) -> tuple[list[Ids], list[int]]:
    """The distinct sequences that are computed, and for each response the place of its own among them."""
    places: dict[tuple[int, ...], int] = {}
    found = [places.setdefault(response.ids[:-1], len(places)) for response in responses]
    distinct: list[npt.NDArray[np.int32]] = [np.array(ids, dtype=np.int32) for ids in places]
    return distinct, found
