"""The `assay` command."""

from __future__ import annotations

import io
import signal
import sys
from types import FrameType
from typing import Annotated

import typer
import typer.rich_utils

from assay_cli.commands import bench, clean, dead_letters, demo, doctor, generate, jobs, models, score, study, train, up
from assay_cli.output import EXIT_INTERRUPTED, Interrupted, complaints, console, told_plainly

app = typer.Typer(
    help="Find out what preference data and reward models are worth before training on them.",
    epilog="Start with `assay demo`, or `assay up` and, in another terminal, `assay clean PAIRS`.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode="markdown",
    context_settings={"help_option_names": ["-h", "--help"]},
)
app.command("up")(up.up)
app.command("demo")(demo.demo)
app.command("clean")(clean.clean)
app.command("score")(score.score)
app.command("generate")(generate.generate)
app.add_typer(train.app, name="train")
app.command("bench")(bench.bench)
app.add_typer(study.app, name="study")
app.add_typer(models.app, name="models")
app.add_typer(jobs.app, name="jobs")
app.add_typer(dead_letters.app, name="dead-letters")
app.command("doctor")(doctor.doctor)


@app.callback()
def root(
    version: Annotated[bool, typer.Option("--version", is_eager=True, help="Print the version and exit.")] = False,
) -> None:
    """Find out what preference data and reward models are worth before training on them."""
    if version:
        from importlib.metadata import version as installed

        print(installed("assay-cli"))
        raise typer.Exit


def main() -> None:
    """Runs the command line; exit codes: 0 done, 1 failed, 2 bad input, 3 a service is away, 130 interrupted."""
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, _interrupted)
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")  # what an answer says must not end the command on a plain terminal
    if not console.is_terminal:
        typer.rich_utils.MAX_WIDTH = console.width
    try:
        with told_plainly():
            app()
    except typer.Exit as end:
        sys.exit(end.exit_code)
    except Interrupted:
        complaints.print("interrupted", soft_wrap=True)
        sys.exit(EXIT_INTERRUPTED)


def _interrupted(number: int, frame: FrameType | None) -> None:
    raise Interrupted


if __name__ == "__main__":
    main()
