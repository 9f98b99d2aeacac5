"""The prompts of a run that generates."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from transformers import PreTrainedTokenizerBase

from assay_data.conversations import Message, prompt_key
from assay_training.examples import as_turns, render, token_ids
from assay_training.runs import Run


def prompts_of(run: Run, tokenizer: PreTrainedTokenizerBase, *, longest: int) -> tuple[list[list[dict[str, str]]], int]:
    """The different prompts of the data, without the oldest turns that do not fit, and how many did not fit at all."""
    seen: dict[str, tuple[Message, ...]] = {}
    for pair in run.pairs():
        seen.setdefault(prompt_key(pair.prompt), pair.prompt)
    fitting, too_long = [], 0
    for prompt in seen.values():
        turns = as_turns(prompt)
        while turns and len(token_ids(tokenizer, render(tokenizer, [turns], generation=True))[0]) > longest:
            turns = turns[1:]
        if turns:
            fitting.append(turns)
        else:
            too_long += 1
    return fitting, too_long


def planned_prompts(prompts: Sequence[Any], count: int, *, seed: int) -> list[Any]:
    """`count` prompts in the order of the rollouts: each pass over them is shuffled anew."""
    rng = np.random.default_rng(seed)
    order: list[int] = []
    while len(order) < count:
        order.extend(rng.permutation(len(prompts)).tolist())
    return [prompts[index] for index in order[:count]]
