"""`assay study`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from assay_cli.commands.common import (
    DEFAULT_DATA_DIR,
    WAITING_PATIENCE_SECONDS,
    AsJson,
    DataDir,
    Wait,
    absolute_uri,
    connect,
    goes_on,
)
from assay_cli.output import console, only_json_on_stdout, print_json, print_table
from assay_cli.study_run import follow_study, study_file, with_data
from assay_client.messages import plain

app = typer.Typer(help="Run studies: a YAML file of stages, as a durable job.", no_args_is_help=True)
Study = Annotated[Path, typer.Argument(help="The study, a YAML file.", exists=True, dir_okay=False, readable=True)]
Data = Annotated[str, typer.Option(help="Pairs to use instead of the study's own data.")]


@app.command()
def run(
    study: Study,
    output: Annotated[str, typer.Option("--output", "-o", help="Folder for the report and what the stages make.")],
    data: Data = "",
    job_id: Annotated[str, typer.Option(help="Job id; asking twice with one id is asking once.")] = "",
    wait: Wait = True,
    as_json: AsJson = False,
    data_dir: DataDir = DEFAULT_DATA_DIR,
) -> None:
    """Run a study; it goes on by itself after a restart of any service.

    Example: `assay study run study.yaml --output out/study --data pairs.jsonl`
    """
    if as_json:
        only_json_on_stdout()
    with connect(data_dir) as client:
        job = client.evaluation.create_study_job(study_text(study, data), absolute_uri(output, must_exist=False), job_id=job_id)
    if not wait:
        if as_json:
            print_json(job)
        else:
            console.print(f"{job.id}\nLook at it with `assay study status {job.id}`.", soft_wrap=True)
        return
    with connect(data_dir, patience_s=WAITING_PATIENCE_SECONDS) as client, goes_on("evaluation", job.id):
        follow_study(client, job.id)
        result = plain(client.jobs("evaluation").get(job.id).result)
    if as_json:
        print_json(result)
    else:
        console.print(f"Report: {result['report_html_uri'] or 'none; the study has no stage of that kind'}", markup=False, soft_wrap=True)


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
        rows.append([stage.name, stage.kind, state, done, f"{stage.seconds:.1f}" if stage.seconds else ""])
    print_table(job_id, ["stage", "kind", "state", "done", "seconds"], rows)
    if study.job.error:
        console.print(study.job.error, markup=False, style="red")


@app.command()
def validate(study: Study, data: Data = "", as_json: AsJson = False, data_dir: DataDir = DEFAULT_DATA_DIR) -> None:
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
    """The study's YAML, with other data put in where some is given.

    Raises:
        DataError: the file is no text, or, where data is put in, no mapping in YAML.
    """
    text = study_file(study)
    return with_data(text, {"uri": absolute_uri(data)}, source=str(study)) if data else text
