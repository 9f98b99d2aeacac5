"""`assay dead-letters`."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Annotated

import typer

from assay_cli.commands.common import DEFAULT_DATA_DIR, AsJson, DataDir, kafka_environment
from assay_cli.output import EXIT_UNAVAILABLE, fail

app = typer.Typer(help="Messages that a worker refused: look at them, send them back.", no_args_is_help=True)
Topic = Annotated[str, typer.Option(help="Only those read from this topic.")]


@app.command("list")
def show(topic: Topic = "", as_json: AsJson = False, data_dir: DataDir = DEFAULT_DATA_DIR) -> None:
    """List the dead letters with their reasons.

    Example: `assay dead-letters list --topic assay.preferences.raw.v1`
    """
    _run("list", topic, as_json, data_dir)


@app.command()
def replay(topic: Topic = "", as_json: AsJson = False, data_dir: DataDir = DEFAULT_DATA_DIR) -> None:
    """Send dead letters back to the topics they were read from, each once.

    Example: `assay dead-letters replay --topic assay.rewards.requested.v1`
    """
    _run("replay", topic, as_json, data_dir)


def _run(action: str, topic: str, as_json: bool, data_dir: Path) -> None:
    command = [sys.executable, "-m", "assay_kit.dead_letters", action]
    command += [*(["--topic", topic] if topic else []), *(["--json"] if as_json else [])]
    told = subprocess.run(command, env=kafka_environment(data_dir), stderr=subprocess.PIPE, text=True, check=False)
    complaint = told.stderr.strip().rpartition("\n")[2].rpartition("error: ")[2]
    if told.returncode:
        raise fail(complaint, told.returncode, "`assay doctor` looks at Kafka." if told.returncode == EXIT_UNAVAILABLE else "")
    sys.stderr.write(told.stderr)
