"""`assay dead-letters`."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Annotated

import typer

from assay_cli.commands.common import DEFAULT_DATA_DIR, DataDir, kafka_environment

app = typer.Typer(help="Messages that a worker refused: look at them, send them back.", no_args_is_help=True)
Topic = Annotated[str, typer.Option(help="Only those read from this topic.")]


@app.command("list")
def show(data_dir: DataDir = DEFAULT_DATA_DIR, topic: Topic = "") -> None:
    """List the dead letters with their reasons.

    Example: `assay dead-letters list --topic assay.preferences.raw.v1`
    """
    _run("list", data_dir, topic)


@app.command()
def replay(data_dir: DataDir = DEFAULT_DATA_DIR, topic: Topic = "") -> None:
    """Send dead letters back to the topics they were read from, each once.

    Example: `assay dead-letters replay --topic assay.rewards.requested.v1`
    """
    _run("replay", data_dir, topic)


def _run(action: str, data_dir: Path, topic: str) -> None:
    command = [sys.executable, "-m", "assay_kit.dead_letters", action, *(["--topic", topic] if topic else [])]
    raise typer.Exit(subprocess.run(command, env=kafka_environment(data_dir), check=False).returncode)
