"""How the command line speaks: tables for people, JSON for scripts, errors that say what to do next, exit codes that mean something."""

from __future__ import annotations

import contextlib
import json
import os
import re
import sys
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

import typer
from google.protobuf.json_format import MessageToDict
from google.protobuf.message import Message
from rich.console import Console
from rich.table import Table
from rich.text import Text

from assay_cli.broker import BrokerFailed
from assay_cli.kafka_jars import JarsMissing
from assay_cli.stack import StackError
from assay_client.errors import AssayClientError, JobFailed
from assay_data.errors import DataError

EXIT_FAILED = 1
"""The work was done wrong or not at all: a job failed, a check did not pass."""
EXIT_BAD_INPUT = 2
"""What was asked for is wrong: a flag, a file, a name."""
EXIT_UNAVAILABLE = 3
"""A service is away or has no room."""
EXIT_INTERRUPTED = 130
"""Ctrl-C."""

WIDTH = 160
"""Columns of what is written to a log or a pipe, where no terminal has a width of its own."""


def _console(*, stderr: bool) -> Console:
    found = Console(stderr=stderr, highlight=False)
    return found if found.is_terminal or "COLUMNS" in os.environ else Console(stderr=stderr, highlight=False, width=WIDTH)


console = _console(stderr=False)
complaints = _console(stderr=True)

_BAD_INPUT = {"INVALID_ARGUMENT", "NOT_FOUND", "ALREADY_EXISTS", "OUT_OF_RANGE", "UNIMPLEMENTED"}
_UNAVAILABLE = {"UNAVAILABLE", "RESOURCE_EXHAUSTED", "DEADLINE_EXCEEDED"}
_NUMBER = re.compile(r"[-+<]?[\d.,]+ ?(%|MiB)?|–|")
_NEXT = {
    "UNAVAILABLE": "Is the stack up? `assay up` starts it, `assay doctor` looks at it.",
    "RESOURCE_EXHAUSTED": "The service has no room now; try again in a moment.",
    "NOT_FOUND": "`assay models list` and `assay jobs list` show what there is.",
}


class Interrupted(BaseException):
    """Ctrl-C or SIGTERM; not KeyboardInterrupt, which the command-line library would turn into exit code 1."""


def print_json(value: Any) -> None:
    """Prints a value, or protobuf messages within lists, as JSON on stdout."""
    json.dump(_plain(value), sys.stdout, ensure_ascii=False, indent=2)
    sys.stdout.write("\n")


def only_json_on_stdout() -> None:
    """Sends what is for people to stderr from now on, so that stdout holds nothing but what `print_json` writes."""
    console.stderr = True


def _plain(value: Any) -> Any:
    if isinstance(value, Message):
        return MessageToDict(value, preserving_proto_field_name=True, always_print_fields_with_no_presence=True)
    if isinstance(value, dict):
        return {key: _plain(value[key]) for key in sorted(value)}  # a protobuf Struct keeps no order of its own
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    return value


def print_table(title: str, columns: Sequence[str], rows: Iterable[Sequence[object]]) -> None:
    """Prints a table; numbers are set to the right."""
    console.print(f"\n{title}", style="bold", markup=False, soft_wrap=True)
    table = Table(header_style="bold")
    shown = [[_cell(value) for value in row] for row in rows]
    for index, column in enumerate(columns):
        numeric = bool(shown) and all(_is_number(row[index]) for row in shown)
        table.add_column(column, justify="right" if numeric else "left", overflow="fold")
    for row in shown:
        table.add_row(*map(Text, row))
    console.print(table)


def _cell(value: object) -> str:
    return f"{value:.3f}" if isinstance(value, float) else str(value)


def _is_number(text: str) -> bool:
    return _NUMBER.fullmatch(text) is not None


def fail(message: str, code: int, hint: str = "") -> typer.Exit:
    """Says what is wrong on stderr; raise what it returns."""
    complaints.print(Text.assemble(("error:", "bold red"), " ", message), soft_wrap=True)
    if hint:
        complaints.print(Text(hint, style="dim"), soft_wrap=True)
    return typer.Exit(code)


def _one_line(text: str) -> str:
    return " ".join(text.split())


@contextlib.contextmanager
def told_plainly() -> Iterator[None]:
    """Turns the errors of the services into one line on stderr and an exit code."""
    try:
        yield
    except JobFailed as error:
        raise fail(_one_line(error.message), EXIT_FAILED) from error
    except AssayClientError as error:
        name = error.code.name
        code = EXIT_BAD_INPUT if name in _BAD_INPUT else EXIT_UNAVAILABLE if name in _UNAVAILABLE else EXIT_FAILED
        no_time_to_retry = name == "RESOURCE_EXHAUSTED" and error.retry_after_seconds is None  # room that no waiting makes
        raise fail(f"{name}: {_one_line(error.message)}", code, "" if no_time_to_retry else _NEXT.get(name, "")) from error
    except (StackError, BrokerFailed, JarsMissing) as error:
        raise fail(str(error), EXIT_UNAVAILABLE, "`assay doctor` looks at this machine.") from error
    except DataError as error:
        raise fail(_one_line(str(error)), EXIT_BAD_INPUT) from error
    except UnicodeEncodeError as error:
        raise fail(f"what was typed is not UTF-8, at {error.object[error.start : error.end]!a}", EXIT_BAD_INPUT) from error
    except OSError as error:
        if isinstance(error, BrokenPipeError):
            raise
        where = f"{error.filename}: " if error.filename else ""
        raise fail(f"{where}{error.strerror or error}", EXIT_BAD_INPUT) from error
