"""Splits labelled pairs by prompt."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from typing import Any

from assay_data.conversations import PreferencePair, prompt_key
from assay_data.formats import pair_of
from assay_data.pairs import write_pairs
from assay_data.storage import read_jsonl
from assay_evaluation.stage_kinds import Split
from assay_evaluation.stages.context import StageContext
from assay_kit.errors import FailedPrecondition


def run(context: StageContext, stage: Split) -> dict[str, Any]:
    """Writes train and held_out; pairs as people labelled them, those that cleaning dropped left out."""
    pairs = []
    dropped = unusable = 0
    for row in read_jsonl(context.artifact(stage.labelled, "labelled")):
        if row["action"] == "drop":
            dropped += 1
            continue
        pair = reduced(pair_of(row["pair"]), stage.prompt)
        if pair is None:
            unusable += 1
        else:
            pairs.append(pair)
    held_out = held_out_prompts(pairs, stage.held_out_prompts, context.seed)
    prompts = {prompt_key(pair) for pair in pairs}
    if len(held_out) >= len(prompts):
        raise FailedPrecondition(
            f"held_out_prompts is {stage.held_out_prompts}, and there are only {len(prompts)} prompts; nothing would be left to train on"
        )
    train_uri, held_out_uri = context.output("train.jsonl"), context.output("held_out.jsonl")
    train = write_pairs(train_uri, (pair for pair in pairs if prompt_key(pair) not in held_out))
    held = write_pairs(held_out_uri, (pair for pair in pairs if prompt_key(pair) in held_out))
    return {
        "artifacts": {"train": train_uri, "held_out": held_out_uri},
        "figures": {
            "train_pairs": train.rows,
            "held_out_pairs": held.rows,
            "train_prompts": len(prompts) - len(held_out),
            "held_out_prompts": len(held_out),
            "dropped_by_cleaning": dropped,
            "unusable": unusable,
            "train_sha256": train.sha256,
            "held_out_sha256": held.sha256,
        },
    }


def reduced(pair: PreferencePair, prompt: str) -> PreferencePair | None:
    """The pair with the wanted part of its prompt; None where the two answers do not stand in one context or one is empty."""
    if pair.rejected_prompt or not pair.chosen.strip() or not pair.rejected.strip() or not pair.prompt:
        return None
    if prompt == "whole":
        return pair
    last = next((message for message in reversed(pair.prompt) if message.role == "user"), None)
    if last is None or not last.content.strip():
        return None
    return PreferencePair(
        prompt=(last,), chosen=pair.chosen, rejected=pair.rejected, source=pair.source, split=pair.split, metadata=dict(pair.metadata)
    )


def held_out_prompts(pairs: Iterable[PreferencePair], count: int, seed: int) -> set[str]:
    """Keys of the `count` prompts whose hash with the seed is smallest."""
    keys = {prompt_key(pair) for pair in pairs}
    return set(sorted(keys, key=lambda key: hashlib.sha256(f"{seed}/{key}".encode()).hexdigest())[:count])
