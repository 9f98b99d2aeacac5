"""`assay study`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer
import yaml

from assay_cli.commands.common import DEFAULT_DATA_DIR, AsJson, DataDir, Wait, absolute_uri, connect
from assay_cli.output import EXIT_BAD_INPUT, console, fail, print_json, print_table
from assay_cli.study_run import follow_study
from assay_client.messages import plain

app = typer.Typer(help="Run studies: a YAML file of stages, as a durable job.", no_args_is_help=True)
Study = Annotated[Path, typer.Argument(help="The study, a YAML file.", exists=True, dir_okay=False, readable=True)]


@app.command()
def run(
    study: Study,
    output: Annotated[str, typer.Option("--output", "-o", help="Folder for the report and what the stages make.")],
    data: Annotated[str, typer.Option(help="Pairs to use instead of the study's own data.")] = "",
    job_id: Annotated[str, typer.Option(help="Job id; asking twice with one id is asking once.")] = "",
    wait: Wait = True,
    as_json: AsJson = False,
    data_dir: DataDir = DEFAULT_DATA_DIR,
) -> None:
    """Run a study; it goes on by itself after a restart of any service.

    Example: `assay study run study.yaml --output out/study --data pairs.jsonl`
    """
    with connect(data_dir, patience_s=60.0 if wait else 0.0) as client:
        job = client.evaluation.create_study_job(study_text(study, data), absolute_uri(output, must_exist=False), job_id=job_id)
        if not wait:
            if as_json:
                print_json(job)
            else:
                console.print(f"{job.id}\nLook at it with `assay study status {job.id}`.", soft_wrap=True)
            return
        follow_study(client, job.id)
        result = plain(client.jobs("evaluation").get(job.id).result)
    if as_json:
        print_json(result)
    else:
        console.print(f"Report: {result['report_html_uri']}", soft_wrap=True)


@app.command()
def status(
    job_id: Annotated[str, typer.Argument(help="Job id of the study.")],
    as_json: AsJson = False,
    data_dir: DataDir = DEFAULT_DATA_DIR,
) -> None:
    """Show the stages of a study and how far each is.

    Example: `assay study status demo`
    """
    from assay.jobs.v1 import jobs_pb2

    with connect(data_dir) as client:
        study = client.evaluation.get_study(job_id)
    if as_json:
        print_json(study)
        return
    rows = []
    for stage in study.stages:
        done = f"{stage.progress.done}/{stage.progress.total} {stage.progress.unit}" if stage.progress.total else ""
        state = jobs_pb2.JobState.Name(stage.state).removeprefix("JOB_STATE_").lower()
        rows.append([stage.name, stage.kind, state, done, round(stage.seconds, 1)])
    print_table(job_id, ["stage", "kind", "state", "done", "seconds"], rows)
    if study.job.error:
        console.print(study.job.error, markup=False, style="red")


@app.command()
def validate(study: Study, data: str = "", as_json: AsJson = False, data_dir: DataDir = DEFAULT_DATA_DIR) -> None:
    """Check a study without running it.

    Example: `assay study validate study.yaml`
    """
    with connect(data_dir) as client:
        checked = client.evaluation.validate_study(study_text(study, data))
    if as_json:
        print_json(checked)
        return
    rows = [[stage.name, stage.kind, ", ".join(stage.needs)] for stage in checked.stages]
    print_table(f"{checked.name}: {len(rows)} stages", ["stage", "kind", "waits for"], rows)


def study_text(study: Path, data: str) -> str:
    """The study's YAML, with other data put in where some is given."""
    text = study.read_text()
    if not data:
        return text
    try:
        parsed = yaml.safe_load(text)
    except yaml.YAMLError as error:
        raise fail(f"{study} is not YAML: {error}", EXIT_BAD_INPUT) from error
    if not isinstance(parsed, dict):
        raise fail(f"{study} must be a mapping with name, data and stages", EXIT_BAD_INPUT)
    parsed["data"] = {**(parsed.get("data") or {}), "uri": absolute_uri(data)}
    return yaml.safe_dump(parsed, sort_keys=False, allow_unicode=True)
