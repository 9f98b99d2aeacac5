"""The figures of a report, gathered from what the stages left."""

from __future__ import annotations

import importlib.metadata
from collections.abc import Mapping
from pathlib import PurePosixPath
from typing import Any

import numpy as np

from assay_data.storage import read_json, sha256_of
from assay_evaluation.caveats import caveats
from assay_evaluation.findings import (
    Outcome,
    cleaning_findings,
    gold_findings,
    limits,
    paradigm_findings,
    reward_model_findings,
)
from assay_evaluation.policy_metrics import against, distinct
from assay_evaluation.stage_kinds import Report
from assay_evaluation.stages.context import StageContext
from assay_evaluation.statistics import decimals

PACKAGES = ("assay-evaluation", "torch", "transformers", "trl", "tokenizers", "numpy", "scipy", "statsmodels", "kafka-python", "dbos")
ALGORITHMS = ("sft", "best_of_n", "dpo", "ppo")


def report_figures(context: StageContext, stage: Report) -> dict[str, Any]:
    """What report.json holds; the same for the same seed and data."""
    study = context.plan.study
    cleaning = dict(context.figures(stage.cleaning, "labelled"))
    leaderboard = context.figures(stage.benchmark, "benchmark")
    gold = _gold(context, stage)
    evaluation = read_json(context.artifact(stage.evaluation, "evaluation"))
    sampled = read_json(context.artifact(stage.best_of_n, "best_of_n"))
    best_of_n = sampled["curves"]
    reward_models = [_reward_model(context, entry) for entry in leaderboard["models"]]
    policies = [*_trained(context, evaluation), *_chosen(evaluation, best_of_n, sampled["chosen"])]
    outcomes = _outcomes(context, evaluation, best_of_n)
    accuracy = {model["name"]: model["accuracy"] for model in reward_models}
    data = {
        "name": study.data.name or PurePosixPath(study.data.uri.rstrip("/")).name,
        "uri": study.data.uri,
        "pairs": cleaning["rows_in"],
    }
    gold_entry = None if gold is None or gold["accuracy"] is None else {"accuracy": gold["estimate"]}
    return {
        "study": study.name,
        "data": data,
        "cleaning": cleaning,
        "gold": None if gold is None else {key: value for key, value in gold.items() if key != "estimate"},
        "reward_models": reward_models,
        "baselines": leaderboard["baselines"],
        "reward_model_tests": leaderboard["tests"],
        "policies": sorted(policies, key=lambda policy: ALGORITHMS.index(policy["algorithm"])),
        "curves": _curves(context, evaluation, best_of_n),
        "findings": [
            *cleaning_findings(cleaning),
            *gold_findings(gold_entry),
            *reward_model_findings(leaderboard),
            *paradigm_findings(outcomes, accuracy, evaluation["policies"][evaluation["reference"]]["words"]["value"]),
            *limits(outcomes, len(reward_models)),
        ],
        "caveats": caveats(gold, data, [model["label_flip_rate"] or 0.0 for model in reward_models]),
        "lineage": _lineage(context, stage),
    }


def _gold(context: StageContext, stage: Report) -> dict[str, Any] | None:
    name = context.stage_of(stage.gold, "reward_model")
    gold: dict[str, Any] = {
        "name": name,
        "kind": getattr(context.plan.study.stages[name], "model", ""),
        "fingerprint": context.results[name]["figures"]["fingerprint"],
        "n": 0,
        "accuracy": None,
        "accuracy_interval": None,
    }
    if stage.gold_benchmark is not None:
        measured = next((m for m in context.figures(stage.gold_benchmark, "benchmark")["models"] if m["name"] == name), None)
        if measured is not None:
            gold |= {
                "n": measured["accuracy"]["n"],
                "accuracy": measured["accuracy"]["value"],
                "accuracy_interval": [measured["accuracy"]["low"], measured["accuracy"]["high"]],
                "estimate": measured["accuracy"],
            }
    return gold


def _reward_model(context: StageContext, entry: Mapping[str, Any]) -> dict[str, Any]:
    accuracy = entry["accuracy"]
    return {
        "name": entry["name"],
        "label_flip_rate": getattr(context.plan.study.stages[entry["name"]], "label_flip_rate", None),
        "n": accuracy["n"],
        "accuracy": accuracy["value"],
        "accuracy_interval": [accuracy["low"], accuracy["high"]],
        **{key: value for key, value in entry.items() if key not in ("name", "accuracy")},
    }


def _reward_model_of(context: StageContext, policy: str) -> str | None:
    reference = getattr(context.plan.study.stages[policy], "reward_model", None)
    return None if reference is None else context.stage_of(reference, "reward_model")


def _trained(context: StageContext, evaluation: Mapping[str, Any]) -> list[dict[str, Any]]:
    return [
        {
            "name": name,
            "algorithm": context.plan.study.stages[name].kind,
            "reward_model": _reward_model_of(context, name),
            "n": measured["n"],
            "gold_mean": measured["gold"]["value"],
            "gold_interval": [measured["gold"]["low"], measured["gold"]["high"]],
            "kl": measured["kl"]["value"],
            "kl_interval": [measured["kl"]["low"], measured["kl"]["high"]],
            "win_rate": measured.get("win_rate"),
            "win_p_value": measured.get("win_p_value"),
            "gain": measured.get("gain"),
            "gain_p_value": measured.get("gain_p_value"),
            "words": measured["words"]["value"],
            "distinct_1": measured["distinct_1"],
            "distinct_2": measured["distinct_2"],
            "gate": context.results[name]["figures"].get("gate"),
        }
        for name, measured in evaluation["policies"].items()
    ]


def _chosen(evaluation: Mapping[str, Any], best_of_n: Mapping[str, Any], chosen: Mapping[str, Any]) -> list[dict[str, Any]]:
    policies = []
    for model, curve in best_of_n.items():
        point = curve["points"][-1]
        texts = [answer["text"] for answer in chosen[model].values()]
        reference = evaluation["policies"][evaluation["reference"]]["gold_per_prompt"]
        # The comparison is paired, so it needs the same prompts in the same order.
        paired = list(chosen[model]) == list(evaluation["prompts"])
        compared = against(np.array(curve["gold_per_prompt"]), np.array(reference)) if paired else {}
        policies.append(
            {
                "name": f"best of {point['n']} by {model}",
                "algorithm": "best_of_n",
                "reward_model": model,
                "n": point["gold"]["n"],
                "gold_mean": point["gold"]["value"],
                "gold_interval": [point["gold"]["low"], point["gold"]["high"]],
                "kl": point["kl"],
                "kl_interval": None,
                "samples": point["n"],
                "win_rate": compared.get("win_rate"),
                "win_p_value": compared.get("win_p_value"),
                "gain": compared.get("gain"),
                "gain_p_value": compared.get("gain_p_value"),
                "words": curve["words"],
                "distinct_1": decimals(distinct(texts, 1)),
                "distinct_2": decimals(distinct(texts, 2)),
                "gate": None,
            }
        )
    return policies


def _outcomes(context: StageContext, evaluation: Mapping[str, Any], best_of_n: Mapping[str, Any]) -> list[Outcome]:
    outcomes = [
        Outcome(
            algorithm="best_of_n",
            reward_model=model,
            gold_per_prompt=np.array(curve["gold_per_prompt"]),
            kl=curve["points"][-1]["kl"],
            words=curve["words"],
        )
        for model, curve in best_of_n.items()
    ]
    for name, measured in evaluation["policies"].items():
        model = _reward_model_of(context, name)
        if model is not None:
            outcomes.append(
                Outcome(
                    algorithm=context.plan.study.stages[name].kind,
                    reward_model=model,
                    gold_per_prompt=np.array(measured["gold_per_prompt"]),
                    kl=measured["kl"]["value"],
                    words=measured["words"]["value"],
                    curve=[{"kl": point["kl"], "gold": point["gold"]["value"]} for point in _all_points(context, evaluation, name)],
                )
            )
    return outcomes


def _all_points(context: StageContext, evaluation: Mapping[str, Any], name: str) -> list[dict[str, Any]]:
    points = list(evaluation["curves"].get(name, []))
    rollouts = getattr(context.plan.study.stages[name], "rollouts", 0)
    if points and points[-1]["rollout"] < rollouts:
        last = evaluation["policies"][name]
        points.append({"rollout": rollouts, "kl": last["kl"]["value"], "gold": last["gold"], "words": last["words"]["value"]})
    return points


def _curves(context: StageContext, evaluation: Mapping[str, Any], best_of_n: Mapping[str, Any]) -> dict[str, Any]:
    return {
        "ppo": [
            {
                "policy": name,
                "reward_model": _reward_model_of(context, name),
                "points": [{**_flat(point), "rollout": point["rollout"]} for point in _all_points(context, evaluation, name)],
            }
            for name in evaluation["curves"]
        ],
        "best_of_n": [
            {
                "reward_model": model,
                "points": [{**_flat(point), "n": point["n"], "proxy": point["proxy"]["value"]} for point in curve["points"]],
            }
            for model, curve in best_of_n.items()
        ],
    }


def _flat(point: Mapping[str, Any]) -> dict[str, float]:
    gold = point["gold"]
    return {"kl": point["kl"], "gold": gold["value"], "low": gold["low"], "high": gold["high"]}


def _lineage(context: StageContext, stage: Report) -> dict[str, Any]:
    fingerprints = {
        name: result["figures"]["fingerprint"] for name, result in context.results.items() if "fingerprint" in result["figures"]
    }
    return {
        "study_sha256": context.plan.design_sha256,
        "seed": context.seed,
        "labelled_sha256": sha256_of(context.artifact(stage.cleaning, "labelled")),
        "cleaning_policy_id": context.figures(stage.cleaning, "labelled")["policy_id"],
        "fingerprints": fingerprints,
        "versions": {name: importlib.metadata.version(name) for name in PACKAGES if _installed(name)},
    }


def _installed(package: str) -> bool:
    try:
        importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return False
    return True
