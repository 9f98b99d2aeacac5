"""How far a policy has moved from another: a Monte Carlo estimate of KL(policy || start)."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import torch
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from assay_training.compact_head import labelled_log_probs
from assay_training.examples import render, token_ids


def measure_kl(
    policy: PreTrainedModel,
    start: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    prompts: Sequence[list[dict[str, str]]],
    *,
    answers_per_prompt: int,
    max_new_tokens: int,
    min_new_tokens: int = 0,
    seed: int,
) -> dict[str, float]:
    """Samples answers of the policy at temperature 1 and compares their log-probabilities.

    The random state of the process is left as it was, so that measuring does not change a run.

    Args:
        policy: the one that answers.
        start: the one it is compared with.
        tokenizer: of both.
        prompts: turns, the last not the assistant's.
        answers_per_prompt: answers to each.
        max_new_tokens: longest answer.
        min_new_tokens: shortest answer; the end mark is forbidden before, which the estimate does not correct for.
        seed: of the sampling.

    Returns:
        ``kl`` and ``standard_error`` in nats an answer, ``answers``, and ``answer_tokens``, their mean length.
    """
    ids = [row for row in token_ids(tokenizer, render(tokenizer, prompts, generation=True)) for _ in range(answers_per_prompt)]
    longest = max(len(row) for row in ids)
    pad = int(tokenizer.pad_token_id)
    inputs = torch.tensor([[pad] * (longest - len(row)) + row for row in ids], device=policy.device)
    attention = torch.tensor([[0] * (longest - len(row)) + [1] * len(row) for row in ids], device=policy.device)
    was_training = policy.training
    policy.eval()
    try:
        with torch.no_grad(), torch.random.fork_rng():
            torch.manual_seed(seed)
            sequences: Any = policy.generate(
                input_ids=inputs,
                attention_mask=attention,
                do_sample=True,
                temperature=1.0,
                top_k=0,
                top_p=1.0,
                max_new_tokens=max_new_tokens,
                min_new_tokens=min_new_tokens or None,
                pad_token_id=pad,
                eos_token_id=tokenizer.eos_token_id,
            )
            answers = sequences[:, longest:]
            ended = (answers == tokenizer.eos_token_id).int().cumsum(1)
            mask = (ended == 0) | ((ended == 1) & (answers == tokenizer.eos_token_id))
            whole = torch.cat([attention, mask.long()], dim=1)
            labels = torch.cat([torch.full_like(inputs, -100), answers.masked_fill(~mask, -100)], dim=1)
            sums = []
            for model in (policy, start):
                where, _, log_probs = labelled_log_probs(model, labels, input_ids=sequences, attention_mask=whole)
                sums.append(log_probs.new_zeros(where.shape).masked_scatter(where, log_probs).sum(1))
    finally:
        policy.train(was_training)
    ratios = (sums[0] - sums[1]).double()
    return {
        "kl": float(ratios.mean()),
        "standard_error": float(ratios.std()) / math.sqrt(len(ratios)) if len(ratios) > 1 else 0.0,
        "answers": len(ratios),
        "answer_tokens": float(mask.sum(1).double().mean()),
    }
