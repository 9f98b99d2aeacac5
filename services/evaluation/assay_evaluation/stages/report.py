"""Writes report.json and report.html at the top of the study's folder."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from assay_data.formats import pair_of
from assay_data.storage import atomic_write, join_uri, read_json, read_jsonl, write_json
from assay_evaluation.findings import CATEGORIES
from assay_evaluation.report import plain_text, render_html
from assay_evaluation.stage_kinds import Report
from assay_evaluation.stages.context import StageContext
from assay_evaluation.stages.report_figures import report_figures

EXAMPLES_PER_CATEGORY = 3
PROMPTS_SHOWN = 4


def run(context: StageContext, stage: Report) -> dict[str, Any]:
    """Writes report.json and report.html at the top of the study's folder."""
    figures = report_figures(context, stage)
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
