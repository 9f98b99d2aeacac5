"""`assay clean`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from assay.cleaning.v1 import cleaning_pb2
from assay_cli.commands.common import DEFAULT_DATA_DIR, AsJson, DataDir, Wait, absolute_uri, connect, kept_or_new
from assay_cli.demo import print_cleaning
from assay_cli.output import console, print_json


def clean(
    pairs: Annotated[str, typer.Argument(help="Preference pairs: a file, a folder or a hub id.")],
    output: Annotated[str, typer.Option("--output", "-o", help="Folder for kept, flipped, dropped and labelled pairs.")],
    limit: Annotated[int, typer.Option(min=0, help="At most this many pairs; 0 for all.")] = 0,
    min_flip_confidence: Annotated[
        float, typer.Option(min=0, max=1, help="Least confidence at which a pair is turned round; 0 for the service's default.")
    ] = 0.0,
    job_id: Annotated[str, typer.Option(help="Job id; asking twice with one id is asking once.")] = "",
    wait: Wait = True,
    as_json: AsJson = False,
    data_dir: DataDir = DEFAULT_DATA_DIR,
) -> None:
    """Label each pair, turn round or drop what is wrong, and say why.

    Example: `assay clean harmless-base-test.jsonl.gz --output clean/`
    """
    options = cleaning_pb2.CleaningOptions(min_flip_confidence=min_flip_confidence)
    with connect(data_dir) as client:
        job = client.cleaning.create_cleaning_job(
            absolute_uri(pairs), absolute_uri(output, must_exist=False), options=options, limit=limit, job_id=job_id
        )
    result = kept_or_new(job, wait=wait, as_json=as_json, data_dir=data_dir, service="cleaning")
    if result is None:
        return
    if as_json:
        print_json(result)
        return
    print_cleaning(result)
    console.print(f"Written to {Path(output)}", markup=False, soft_wrap=True)
