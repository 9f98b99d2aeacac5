"""`assay up`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from assay_cli.commands.common import DEFAULT_DATA_DIR
from assay_cli.output import console, print_table
from assay_cli.stack import LocalStack


def up(
    data_dir: Annotated[Path, typer.Option(help="Folder for the stack's state; found again by the next `assay up`.")] = DEFAULT_DATA_DIR,
    kafka_bootstrap: Annotated[
        str | None, typer.Option(envvar="ASSAY_KAFKA_BOOTSTRAP", help="host:port of another Kafka cluster instead of an own broker.")
    ] = None,
) -> None:
    """Start Kafka and the five services on loopback and keep them up until Ctrl-C.

    Example: `assay up --data-dir .assay`
    """
    with LocalStack(data_dir, kafka_bootstrap=kafka_bootstrap) as stack:
        print_table("Assay is up", ["what", "gRPC", "metrics"], [["kafka", stack.kafka_bootstrap, ""], *stack.endpoint_rows()])
        console.print(f"Logs in {data_dir / 'logs'}. Ctrl-C stops all.", soft_wrap=True)
        stack.run_forever()
