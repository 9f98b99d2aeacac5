"""Measures reward models on comparisons and publishes their quality cards."""

from __future__ import annotations

from typing import Any

from assay_data.pairs import read_pairs
from assay_data.storage import write_json
from assay_evaluation.benchmarking import OnPolicy, benchmark_models, publish_cards
from assay_evaluation.samples import read_samples
from assay_evaluation.stage_kinds import Benchmark
from assay_evaluation.stages.context import StageContext


def run(context: StageContext, stage: Benchmark) -> dict[str, Any]:
    """Writes benchmark.json and scores.jsonl."""
    data_uri = context.artifact(stage.comparisons, "pairs")
    models = {context.stage_of(reference, "reward_model"): context.reward_model(reference) for reference in stage.reward_models}
    on_policy = None
    if stage.samples is not None and stage.gold is not None:
        on_policy = OnPolicy(
            samples=list(read_samples(context.artifact(stage.samples, "samples"))),
            what=context.stage_of(stage.samples, "samples"),
            gold=context.reward_model(stage.gold),
        )
    scores_uri = context.output("scores.jsonl")
    leaderboard = benchmark_models(
        context.work, list(read_pairs(data_uri)), models=models, on_policy=on_policy, seed=context.seed, scores_uri=scores_uri
    )
    if stage.publish_cards:
        publish_cards(context.work, leaderboard, models=models, data_uri=data_uri)
    uri = context.output("benchmark.json")
    write_json(uri, leaderboard)
    return {"artifacts": {"leaderboard": uri, "scores": scores_uri}, "figures": leaderboard}
