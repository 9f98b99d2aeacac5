"""`assay bench`."""

from __future__ import annotations

from typing import Annotated

import typer

from assay_cli.commands.common import DEFAULT_DATA_DIR, AsJson, DataDir, Wait, absolute_uri, connect, kept_or_new
from assay_cli.output import console, print_json, print_table


def bench(
    reward_models: Annotated[list[str], typer.Argument(help="Names of models at the reward service.")],
    data: Annotated[str, typer.Option(help="Held-out preference pairs: a file, a folder or a hub id.")],
    output: Annotated[str, typer.Option("--output", "-o", help="Folder for benchmark.json and scores.jsonl.")] = "",
    limit: Annotated[int, typer.Option(min=0, help="At most this many pairs; 0 for all.")] = 0,
    publish: Annotated[bool, typer.Option("--publish/--no-publish", help="Publish the quality cards.")] = True,
    job_id: Annotated[str, typer.Option(help="Job id; asking twice with one id is asking once.")] = "",
    wait: Wait = True,
    as_json: AsJson = False,
    data_dir: DataDir = DEFAULT_DATA_DIR,
) -> None:
    """Measure reward models on held-out pairs: accuracy with interval, baselines, paired tests; publish their quality cards.

    Example: `assay bench my-rm other-rm --data held-out.jsonl`
    """
    with connect(data_dir) as client:
        job = client.evaluation.create_benchmark_job(
            reward_models,
            absolute_uri(data),
            output_uri=absolute_uri(output, must_exist=False) if output else "",
            publish_cards=publish,
            limit=limit,
            job_id=job_id,
        )
    result = kept_or_new(job, wait=wait, as_json=as_json, data_dir=data_dir, service="evaluation")
    if result is None:
        return
    if as_json:
        print_json(result)
        return
    measured = [(model["name"], model["accuracy"], int(model["ties"])) for model in result["models"]]
    baselines = [(name.replace("_", " "), accuracy, "") for name, accuracy in result["baselines"].items()]
    print_table(
        "Reward models on held-out pairs",
        ["reward model", "accuracy", "95 % interval", "ties", "n"],
        [
            [name, accuracy["value"], f"[{accuracy['low']:.3f}, {accuracy['high']:.3f}]", ties, int(accuracy["n"])]
            for name, accuracy, ties in [*sorted(measured, key=lambda row: -row[1]["value"]), *baselines]
        ],
    )
    if result["tests"]:
        print_table(
            "Paired tests (exact McNemar; corrected by Holm for the number of tests)",
            ["first", "second", "only first right", "only second right", "p", "corrected p"],
            [
                [
                    test["first"],
                    test["second"],
                    int(test["first_only"]),
                    int(test["second_only"]),
                    _p_value(test["p_value"]),
                    _p_value(test["corrected_p_value"]),
                ]
                for test in result["tests"]
            ],
        )
    console.print(f"Written to {result['benchmark_uri']} and {result['scores_uri']}", markup=False, soft_wrap=True)


def _p_value(value: float) -> str:
    return "<0.001" if value < 0.001 else f"{value:.3f}"
