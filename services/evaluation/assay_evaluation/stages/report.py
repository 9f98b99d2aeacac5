"""Gathers the figures of all stages and writes report.json and report.html."""

from __future__ import annotations

import importlib.metadata
from collections.abc import Mapping
from pathlib import PurePosixPath
from typing import Any

import numpy as np

from assay_data.formats import pair_of
from assay_data.storage import atomic_write, join_uri, read_json, read_jsonl, sha256_of, write_json
from assay_evaluation.caveats import caveats
from assay_evaluation.findings import (
    CATEGORIES,
    Outcome,
    cleaning_findings,
    gold_findings,
    limits,
    paradigm_findings,
    reward_model_findings,
)
from assay_evaluation.report import plain_text, render_html
from assay_evaluation.stage_kinds import Report
from assay_evaluation.stages.context import StageContext

EXAMPLES_PER_CATEGORY = 3
PROMPTS_SHOWN = 4
PACKAGES = ("assay-evaluation", "torch", "transformers", "trl", "tokenizers", "numpy", "scipy", "statsmodels", "kafka-python", "dbos")


def run(context: StageContext, stage: Report) -> dict[str, Any]:
    """Writes report.json and report.html at the top of the study's folder."""
    figures = _figures(context, stage)
    evaluation = read_json(context.artifact(stage.evaluation, "evaluation"))
    chosen = read_json(context.artifact(stage.best_of_n, "best_of_n"))["chosen"]
    json_uri, html_uri = join_uri(context.output_uri, "report.json"), join_uri(context.output_uri, "report.html")
    write_json(json_uri, figures)
    page = render_html(
        figures,
        examples=_examples(context.artifact(stage.cleaning, "labelled")),
        answers=_answers(evaluation, chosen),
    )
    with atomic_write(html_uri, "w") as file:
        file.write(page)
    return {
        "artifacts": {"report": html_uri},
        "figures": {"report_html_uri": html_uri, "report_json_uri": json_uri, "findings": figures["findings"]},
    }


def _figures(context: StageContext, stage: Report) -> dict[str, Any]:
    study = context.plan.study
    cleaning = dict(context.figures(stage.cleaning, "labelled"))
    leaderboard = context.figures(stage.benchmark, "benchmark")
    gold = _gold(context, stage)
    evaluation = read_json(context.artifact(stage.evaluation, "evaluation"))
    best_of_n = read_json(context.artifact(stage.best_of_n, "best_of_n"))["curves"]
    reward_models = [_reward_model(context, entry) for entry in leaderboard["models"]]
    policies = _policies(context, evaluation, best_of_n)
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
        "policies": policies,
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


def _policies(context: StageContext, evaluation: Mapping[str, Any], best_of_n: Mapping[str, Any]) -> list[dict[str, Any]]:
    policies = []
    for name, measured in evaluation["policies"].items():
        policies.append(
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
        )
    for model, curve in best_of_n.items():
        point = curve["points"][-1]
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
                "win_rate": None,
                "win_p_value": None,
                "words": curve["words"],
                "distinct_1": None,
                "distinct_2": None,
            }
        )
    order = ("sft", "best_of_n", "dpo", "ppo")
    return sorted(policies, key=lambda policy: order.index(policy["algorithm"]) if policy["algorithm"] in order else len(order))


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


def _examples(labelled_uri: str) -> dict[str, list[dict[str, Any]]]:
    """The surest few pairs of each category but Same."""
    found: dict[str, list[tuple[float, dict[str, Any]]]] = {}
    for row in read_jsonl(labelled_uri):
        if row["category"] != "same":
            found.setdefault(row["category"], []).append((row["confidence"], row))
    examples = {}
    for category in (name for name in CATEGORIES if name in found):
        surest = sorted(found[category], key=lambda item: -item[0])[:EXAMPLES_PER_CATEGORY]
        examples[category] = [_example(row) for _, row in surest]
    return examples


def _example(row: Mapping[str, Any]) -> dict[str, Any]:
    pair = pair_of(row["pair"])
    return {
        "prompt": plain_text("\n".join(f"{message.role}: {message.content}" for message in pair.prompt[-3:])),
        "chosen": plain_text(pair.chosen),
        "rejected": plain_text(pair.rejected),
        "action": row["action"],
        "confidence": row["confidence"],
        "evidence": row["evidence"],
    }


def _answers(evaluation: Mapping[str, Any], chosen: Mapping[str, Any]) -> list[dict[str, Any]]:
    columns = dict(evaluation["answers"])
    columns |= {f"best-of-n by {model}": picked for model, picked in chosen.items()}
    shared = [prompt for prompt in columns[evaluation["reference"]] if all(prompt in column for column in columns.values())]
    prompts = evaluation["prompts"]
    return [
        {
            "prompt": plain_text(prompts[prompt]),
            "answers": [
                {"policy": policy, "text": plain_text(column[prompt]["text"]), "gold": column[prompt]["gold"]}
                for policy, column in columns.items()
            ],
        }
        for prompt in shared[:PROMPTS_SHOWN]
    ]
