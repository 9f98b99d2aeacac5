"""Samples answers of a policy."""

from __future__ import annotations

from typing import Any

from assay_data.storage import write_jsonl
from assay_evaluation.generating import Sampling, generate
from assay_evaluation.samples import read_prompts, to_row
from assay_evaluation.stage_kinds import Sample
from assay_evaluation.stages.context import StageContext


def run(context: StageContext, stage: Sample) -> dict[str, Any]:
    """Writes samples.jsonl."""
    prompts = read_prompts(context.artifact(stage.prompts, "pairs"), stage.limit)
    samples = generate(
        context.work,
        prompts,
        policy=context.policy(stage.policy),
        options=Sampling(
            n=stage.n,
            max_new_tokens=stage.max_new_tokens,
            min_new_tokens=stage.min_new_tokens,
            temperature=stage.temperature,
            seed=context.seed,
            chunk_prompts=stage.chunk_prompts,
        ),
        label=context.work.name,
    )
    uri = context.output("samples.jsonl")
    write_jsonl(uri, (to_row(one) for one in samples))
    return {"artifacts": {"samples": uri}, "figures": {"prompts": len(samples), "samples": sum(len(one.answers) for one in samples)}}
