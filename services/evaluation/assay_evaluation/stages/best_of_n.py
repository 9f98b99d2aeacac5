"""Lets each reward model choose among samples, and asks gold what the chosen are worth."""

from __future__ import annotations

from typing import Any

from assay_data.storage import write_json
from assay_evaluation.best_of_n import curve
from assay_evaluation.newest import show_best_of_n
from assay_evaluation.samples import read_samples
from assay_evaluation.scoring import score_samples
from assay_evaluation.stage_kinds import BestOfN
from assay_evaluation.stages.context import StageContext
from assay_evaluation.statistics import decimals


def run(context: StageContext, stage: BestOfN) -> dict[str, Any]:
    """Writes best_of_n.json: a curve over n for each reward model, and the answers chosen at the largest n."""
    samples = list(read_samples(context.artifact(stage.samples, "samples")))
    what = context.stage_of(stage.samples, "samples")
    gold = score_samples(context.work, samples, model=context.reward_model(stage.gold), what=what).scores
    curves: dict[str, Any] = {}
    chosen: dict[str, Any] = {}
    for reference in stage.reward_models:
        name = context.stage_of(reference, "reward_model")
        proxy = score_samples(context.work, samples, model=context.reward_model(reference), what=what).scores
        points = curve(proxy, gold)
        best = [int(values.argmax()) for values in proxy]
        words = [len(one.answers[index].text.split()) for one, index in zip(samples, best, strict=True)]
        curves[name] = {
            "points": [{"n": p.n, "kl": decimals(p.kl), "gold": p.gold.as_dict(), "proxy": p.proxy.as_dict()} for p in points],
            "words": decimals(sum(words) / len(words)),
            "gold_per_prompt": [decimals(value) for value in points[-1].gold_per_prompt],
        }
        chosen[name] = {
            one.prompt_id: {"text": one.answers[index].text, "gold": float(values[index])}
            for one, index, values in zip(samples, best, gold, strict=True)
        }
    show_best_of_n(curves)
    uri = context.output("best_of_n.json")
    write_json(uri, {"curves": curves, "chosen": chosen})
    return {"artifacts": {"curves": uri}, "figures": {"prompts": len(samples), "reward_models": list(curves)}}
