"""`assay score`."""

from __future__ import annotations

from dataclasses import asdict
from typing import Annotated

import typer

from assay_cli.commands.common import DEFAULT_DATA_DIR, AsJson, DataDir, connect, conversation_of
from assay_cli.output import console, print_json, print_table


def score(
    answers: Annotated[list[str], typer.Argument(help="Answers to score; an empty one is an answer too.")],
    prompt: Annotated[str, typer.Option("--prompt", "-p", help="What they answer: a question, or an HH-RLHF transcript.")],
    model: Annotated[str, typer.Option("--model", "-m", help="Reward model; else the alias `default`.")] = "",
    system: Annotated[str, typer.Option(help="System message.")] = "",
    as_json: AsJson = False,
    data_dir: DataDir = DEFAULT_DATA_DIR,
) -> None:
    """Score answers to one prompt.

    Example: `assay score --model my-rm --prompt "Is the earth flat?" "No." "Yes."`
    """
    with connect(data_dir) as client:
        group = client.reward.score_group(conversation_of(prompt, system), answers, model=model)
    if as_json:
        print_json(asdict(group))
        return
    rows = [
        ["*" if index == group.best_index else "", answer, score.raw, score.prompt_tokens + score.response_tokens]
        for index, (answer, score) in enumerate(zip(answers, group.scores, strict=True))
    ]
    source = group.provenance
    print_table(f"{source.model} ({source.revision}, {source.dtype})", ["best", "answer", "raw score", "tokens"], rows)
    if not source.has_quality_card:
        console.print(f"Nobody has measured this model: `assay bench {source.model} --data held-out.jsonl` does.", style="yellow")
