"""The sampling loop: one chunk of answers, token by token, on the device."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch

from assay_policy.cache import roomy_cache
from assay_policy.generation import Finish, Sampling
from assay_policy.sampling import choose


@dataclass(frozen=True, kw_only=True)
class Decoded:
    """An answer as tokens."""

    token_ids: tuple[int, ...]
    finish: Finish
    log_prob: float


@dataclass(frozen=True, kw_only=True)
class Chunk:
    """Answers that are decoded together."""

    prompts: Sequence[Sequence[int]]
    """Token ids of the prompts, each once, none empty."""
    rows: Sequence[int]
    """For each answer, the index of its prompt."""
    uniform: torch.Tensor | None
    """Float64 [answers, max_new_tokens] in [0, 1); None when greedy."""


def decode(
    model: Any,
    chunk: Chunk,
    sampling: Sampling,
    *,
    eos_ids: Sequence[int],
    pad_id: int,
    stopped: Callable[[Sequence[int]], bool] | None,
    check: Callable[[], None],
) -> list[Decoded]:
    """Decodes a chunk: each prompt is read once, its states shared by its answers; answers that have ended leave the batch.

    Args:
        model: a transformers causal LM in eval mode.
        chunk: what to decode.
        sampling: how; `stop` is looked after by `stopped`.
        eos_ids: tokens that end an answer.
        pad_id: token to pad with.
        stopped: told an answer's tokens so far, says whether a stop text has come.
        check: called before each step; what it raises ends the chunk.
    """
    batch = _Batch(model, chunk, sampling, eos_ids=eos_ids, pad_id=pad_id, stopped=stopped)
    with torch.inference_mode():
        batch.prefill()
        while not batch.done:
            check()
            batch.step()
    return batch.decoded()


class _Batch:
    def __init__(
        self,
        model: Any,
        chunk: Chunk,
        sampling: Sampling,
        *,
        eos_ids: Sequence[int],
        pad_id: int,
        stopped: Callable[[Sequence[int]], bool] | None,
    ) -> None:
        self._model = model
        self._chunk = chunk
        self._sampling = sampling
        self._pad_id = pad_id
        self._stopped = stopped
        self._device = model.device
        self._eos = torch.tensor(sorted(eos_ids), dtype=torch.long, device=self._device)
        self._uniform = None if chunk.uniform is None else chunk.uniform.to(self._device)
        answers = len(chunk.rows)
        self._tokens: list[list[int]] = [[] for _ in range(answers)]
        self._log_probs = [0.0] * answers
        self._finish = [Finish.LENGTH] * answers
        self._rows = torch.arange(answers, device=self._device)  # the answer that each row of the batch belongs to
        self._alive = torch.ones(answers, dtype=torch.bool, device=self._device)
        self._made = 0

    @property
    def done(self) -> bool:
        return self._made == self._sampling.max_new_tokens or not bool(self._alive.any())

    def prefill(self) -> None:
        ids, mask = padded_left(self._chunk.prompts, self._pad_id, self._device)
        self._cache = roomy_cache(self._model.config)
        positions = (mask.cumsum(1) - 1).clamp(min=0)
        logits = self._forward(ids, mask, positions)
        index = torch.tensor(list(self._chunk.rows), device=self._device)
        self._cache.batch_select_indices(index)
        self._logits, self._mask = logits[index], mask[index]
        self._length = self._mask.sum(1)

    def step(self) -> None:
        sampling = self._sampling
        logits = self._logits.float()
        log_probs = torch.log_softmax(logits, -1)
        if self._made < sampling.min_new_tokens:
            logits = logits.index_fill(1, self._eos, -torch.inf)
        uniform = None if self._uniform is None else self._uniform[self._rows, self._made]
        chosen = choose(logits, temperature=sampling.temperature, top_p=sampling.top_p, uniform=uniform)
        self._record(chosen, log_probs.gather(1, chosen[:, None])[:, 0])
        if self.done:
            return
        chosen = self._compact(chosen)
        self._mask = torch.nn.functional.pad(self._mask, (0, 1), value=1)
        self._logits = self._forward(chosen[:, None], self._mask, self._length[:, None])
        self._length = self._length + 1

    def decoded(self) -> list[Decoded]:
        return [
            Decoded(token_ids=tuple(tokens), finish=finish, log_prob=log_prob)
            for tokens, finish, log_prob in zip(self._tokens, self._finish, self._log_probs, strict=True)
        ]

    def _record(self, chosen: torch.Tensor, log_probs: torch.Tensor) -> None:
        ended = torch.isin(chosen, self._eos)
        self._made += 1
        table = zip(self._rows.tolist(), chosen.tolist(), log_probs.double().tolist(), ended.tolist(), self._alive.tolist(), strict=True)
        alive = []
        for answer, token, log_prob, by_itself, going in table:
            if going:
                tokens = self._tokens[answer]
                tokens.append(token)
                self._log_probs[answer] += log_prob
                if by_itself or self._stops(tokens):
                    self._finish[answer] = Finish.STOP
                    going = False
            alive.append(going)
        self._alive = torch.tensor(alive, device=self._device)

    def _stops(self, tokens: Sequence[int]) -> bool:
        return self._stopped is not None and self._made >= self._sampling.min_new_tokens and self._stopped(tokens)

    def _compact(self, chosen: torch.Tensor) -> torch.Tensor:
        """Drops the rows that have ended, once they are a quarter of the batch: dropping copies the cache."""
        alive = int(self._alive.sum())
        if alive > 0.75 * len(self._alive):
            return chosen
        keep = self._alive.nonzero()[:, 0]
        self._cache.batch_select_indices(keep)
        self._rows, self._mask, self._length, self._alive = (
            self._rows[keep],
            self._mask[keep],
            self._length[keep],
            self._alive[keep],
        )
        return chosen[keep]

    def _forward(self, ids: torch.Tensor, mask: torch.Tensor, positions: torch.Tensor) -> torch.Tensor:
        output = self._model(
            input_ids=ids, attention_mask=mask, position_ids=positions, past_key_values=self._cache, use_cache=True, logits_to_keep=1
        )
        logits: torch.Tensor = output.logits[:, -1]
        return logits


def answer_log_probs(model: Any, items: Sequence[tuple[Sequence[int], Sequence[int]]], *, pad_id: int) -> list[float]:
    """Sum of the log-probabilities of each answer's tokens after its prompt, in nats; a prompt of several answers is read once.

    Args:
        model: a transformers causal LM in eval mode.
        items: token ids of prompt (not empty) and answer (not empty).
        pad_id: token to pad with.
    """
    device = model.device
    prompts = {tuple(prompt): place for place, prompt in enumerate(dict.fromkeys(tuple(prompt) for prompt, _ in items))}
    rows = torch.tensor([prompts[tuple(prompt)] for prompt, _ in items], device=device)
    with torch.inference_mode():
        ids, mask = padded_left(list(prompts), pad_id, device)
        cache = roomy_cache(model.config)
        shared = {"past_key_values": cache, "use_cache": True}
        positions = (mask.cumsum(1) - 1).clamp(min=0)
        logits = model(input_ids=ids, attention_mask=mask, position_ids=positions, logits_to_keep=1, **shared).logits[rows]
        targets, belongs = padded_right([answer for _, answer in items], pad_id, device)
        if targets.shape[1] > 1:
            cache.batch_select_indices(rows)
            mask = mask[rows]
            positions = mask.sum(1, keepdim=True) + torch.arange(targets.shape[1] - 1, device=device)
            mask = torch.cat([mask, belongs[:, :-1]], 1)
            later = model(input_ids=targets[:, :-1], attention_mask=mask, position_ids=positions, **shared).logits
            logits = torch.cat([logits, later], 1)
        chosen = logits.gather(2, targets[:, :, None])[:, :, 0].float() - logits.float().logsumexp(-1)
        sums: list[float] = (chosen.double() * belongs).sum(1).tolist()
    return sums


def padded_left(sequences: Sequence[Sequence[int]], pad_id: int, device: Any) -> tuple[torch.Tensor, torch.Tensor]:
    """Ids and mask, int64 [rows, longest], the padding on the left."""
    width = max(len(ids) for ids in sequences)
    ids = torch.tensor([[pad_id] * (width - len(row)) + list(row) for row in sequences], dtype=torch.long)
    mask = torch.tensor([[0] * (width - len(row)) + [1] * len(row) for row in sequences], dtype=torch.long)
    return ids.to(device), mask.to(device)


def padded_right(sequences: Sequence[Sequence[int]], pad_id: int, device: Any) -> tuple[torch.Tensor, torch.Tensor]:
    """Ids and mask, int64 [rows, longest], the padding on the right."""
    width = max(len(ids) for ids in sequences)
    ids = torch.tensor([list(row) + [pad_id] * (width - len(row)) for row in sequences], dtype=torch.long)
    mask = torch.tensor([[1] * len(row) + [0] * (width - len(row)) for row in sequences], dtype=torch.long)
    return ids.to(device), mask.to(device)
