"""`assay demo`."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import typer

from assay_cli.demo import run_demo
from assay_cli.output import Interrupted, complaints, only_json_on_stdout, print_json


def demo(
    data: Annotated[
        str | None, typer.Option(help="Preference pairs: a file, a folder or a hub id. Else HH-RLHF from a hub, else a generated set.")
    ] = None,
    out: Annotated[Path, typer.Option(help="Folder for report.html, report.json and the run's state.")] = Path("out/demo"),
    resume: Annotated[bool, typer.Option("--resume", help="Go on with an interrupted demo.")] = False,
    study: Annotated[
        Path | None,
        typer.Option(help="Another study of the same shape (YAML) instead of the demo's own.", exists=True, dir_okay=False, readable=True),
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print report.json on stdout, all else on stderr.")] = False,
) -> None:
    """Run the whole line: clean pairs, grade reward models, align policies with them, report.

    Starts a stack of its own and stops it at the end. About five minutes on two cores.

    Example: `assay demo --data harmless-base-test.jsonl.gz`
    """
    if as_json:
        only_json_on_stdout()
    try:
        report = run_demo(data=data, out=out, resume=resume, study=study)
    except Interrupted:
        complaints.print("what was started has been stopped; `assay demo --resume` goes on from here", soft_wrap=True)
        raise
    if as_json:
        print_json(json.loads(report.read_text()))
