"""Writes a study's report: one self-contained HTML file and one JSON file with the same figures."""

from __future__ import annotations

import functools
import html
import json
from collections.abc import Mapping, Sequence
from importlib import resources
from typing import Any

import vl_convert
from jinja2 import Environment

from assay_evaluation import charts
from assay_evaluation.findings import PARADIGMS

TOP_KEYS = ("data", "cleaning", "reward_models", "policies", "findings", "lineage")


def render_html(
    report: Mapping[str, Any], *, examples: Mapping[str, Sequence[Mapping[str, Any]]], answers: Sequence[Mapping[str, Any]]
) -> str:
    """The report for people.

    Args:
        report: What report.json holds.
        examples: Pairs that cleaning found, by category: prompt, chosen, rejected, action, confidence, evidence.
        answers: Prompts with each policy's answer: {"prompt", "answers": [{"policy", "text", "gold"}]}.

    Returns:
        HTML that asks the network for nothing.
    """
    environment = Environment(autoescape=True, trim_blocks=True, lstrip_blocks=True)
    environment.filters["rate"] = lambda value: f"{100 * value:.1f} %"
    environment.filters["thousands"] = lambda value: f"{value:,}"
    environment.filters["p"] = lambda value: f"{value:.3f}" if value >= 0.001 else f"{value:.0e}"
    template = environment.from_string(resources.files("assay_evaluation").joinpath("report.html.j2").read_text(encoding="utf-8"))
    return template.render(
        report=report,
        examples=examples,
        answers=answers,
        specifications=_specifications(report),
        paradigms=PARADIGMS,
        script=_script(),
    )


def _specifications(report: Mapping[str, Any]) -> dict[str, str]:
    accuracies = {model["name"]: model for model in report["reward_models"]}
    reference = next((policy["gold_mean"] for policy in report["policies"] if policy["algorithm"] == "sft"), None)
    made: dict[str, Any] = {
        "cleaning": charts.cleaning_chart(report["cleaning"]),
        "leaderboard": charts.leaderboard_chart(report["reward_models"], report["baselines"]),
        "kl": charts.kl_chart(report["curves"]),
    }
    gold = [bound for policy in report["policies"] for bound in policy["gold_interval"]]
    for algorithm in PARADIGMS:
        policies = [policy for policy in report["policies"] if policy["algorithm"] == algorithm and policy["reward_model"] in accuracies]
        if policies:
            made[algorithm] = charts.paradigm_chart(policies, accuracies, reference=reference, gold_range=[min(gold), max(gold)])
    return {name: _safe_json(specification) for name, specification in made.items() if specification}


def _safe_json(value: Any) -> str:
    # "</script" inside a script element would end it.
    return json.dumps(value, ensure_ascii=True).replace("<", "\\u003c")


@functools.cache
def _script() -> str:
    return str(vl_convert.javascript_bundle("window.vegaEmbed = vegaEmbed;")).replace("</script", "<\\/script")


def plain_text(text: str, limit: int = 420) -> str:
    """Text shortened for a table, its middle left out."""
    text = html.unescape(text).strip()
    return text if len(text) <= limit else f"{text[: limit * 2 // 3].rstrip()} […] {text[-limit // 3 :].lstrip()}"
