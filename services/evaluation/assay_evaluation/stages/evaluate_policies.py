"""Judges policies by gold on held-out prompts; PPO's snapshots too, for the curve of gold against KL."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

from assay_data.storage import write_json
from assay_evaluation.generating import Sampling
from assay_evaluation.newest import show_snapshots
from assay_evaluation.policy_evaluation import evaluate_policies, judge
from assay_evaluation.policy_metrics import measure
from assay_evaluation.samples import Prompt, read_prompts
from assay_evaluation.stage_kinds import EvaluatePolicies
from assay_evaluation.stages.context import StageContext


def run(context: StageContext, stage: EvaluatePolicies) -> dict[str, Any]:
    """Writes evaluation.json: figures of each policy, curves of snapshots, and answers to a few prompts."""
    prompts = read_prompts(context.artifact(stage.prompts, "pairs"), stage.limit)
    reference = context.stage_of(stage.reference, "policy")
    policies = {reference: context.policy(stage.reference)}
    for wanted in stage.policies:
        policies[context.stage_of(wanted, "policy")] = context.policy(wanted)
    sampling = Sampling(
        n=stage.samples_per_prompt,
        max_new_tokens=stage.max_new_tokens,
        min_new_tokens=stage.min_new_tokens,
        temperature=1.0,
        seed=context.seed,
        chunk_prompts=stage.chunk_prompts,
    )
    gold = context.reward_model(stage.gold)
    figures, judged = evaluate_policies(context.work, prompts, policies=policies, reference=reference, gold=gold, sampling=sampling)
    curves = {}
    if stage.snapshots:
        for name in policies:
            snapshots = context.results[name]["figures"].get("snapshots", [])
            if snapshots:
                between = [_snapshot(context, prompts, name, one, policies[reference], gold, sampling) for one in snapshots]
                curves[name] = [_point(0, figures[reference]), *between]
    show_snapshots(curves)
    answers = {
        name: {
            samples.prompt_id: {"text": samples.answers[0].text, "gold": float(scores[0])}
            for samples, scores in zip(one.samples, one.measured.gold, strict=True)
        }
        for name, one in judged.items()
    }
    uri = context.output("evaluation.json")
    texts = {prompt.id: "\n".join(message.content for message in prompt.messages) for prompt in prompts}
    write_json(uri, {"policies": figures, "curves": curves, "answers": answers, "prompts": texts, "reference": reference})
    return {"artifacts": {"metrics": uri}, "figures": {"prompts": len(prompts), "policies": list(policies)}}


def _snapshot(
    context: StageContext, prompts: Sequence[Prompt], name: str, snapshot: Mapping[str, Any], reference: str, gold: str, sampling: Sampling
) -> dict[str, Any]:
    work, client = context.work, context.work.tools.remote.policy
    rollout = int(snapshot["rollout"])
    shown = f"{name}-r{rollout:04d}"
    served = context.served_name(shown)

    def measured() -> dict[str, Any]:
        work.patiently(lambda: client.load_model(served, snapshot["model_uri"]))
        one = judge(work, prompts, shown=shown, served=served, reference=reference, gold=gold, sampling=dataclasses.replace(sampling, n=1))
        work.patiently(lambda: client.unload_model(served))
        return _point(rollout, measure(one.measured, None).as_dict())

    point: dict[str, Any] = work.once(shown, measured)
    return point


def _point(rollout: int, figures: Mapping[str, Any]) -> dict[str, Any]:
    return {"rollout": rollout, "kl": figures["kl"]["value"], "gold": figures["gold"], "words": figures["words"]["value"]}
