"""The process of a run: forked from one that has imported the libraries, listened to, started again when it was killed.

None outlives the service: the process they are forked from ends when the service does, and the kernel ends them with it.
"""

from __future__ import annotations

import json
import logging
import multiprocessing
import os
import signal
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from multiprocessing import forkserver
from multiprocessing.connection import Connection, wait
from pathlib import Path
from typing import Any

from assay_training.run import main

logger = logging.getLogger(__name__)

_LOOK_UP_SECONDS = 0.25
_LINES_LOGGED = 20
_SERVER_DIED = 255
"""What multiprocessing gives as the exit code of a process whose fork server is gone."""

_context = multiprocessing.get_context("forkserver")

Line = Mapping[str, Any]
Program = Callable[[Sequence[str]], int]
"""Takes the arguments of `assay_training.run`, and returns an exit code."""


class ChildFailed(Exception):
    """The run cannot be done; the message is its own last word."""


class ChildKilled(Exception):
    """The process of the run was killed from outside."""


def preload() -> None:
    """Starts the process that runs are forked from; it imports while the service goes on."""
    _context.set_forkserver_preload(["assay_training.preloaded"])
    forkserver.ensure_running()


def supervise(
    spec: Path,
    *,
    log: Path,
    restarts: int,
    on_line: Callable[[Line], None],
    on_restart: Callable[[str], None],
    look_up: Callable[[], None],
    program: Program = main,
) -> None:
    """Runs a spec to its end in a process of its own.

    Args:
        spec: the run's file.
        log: what the process writes to stderr is appended here.
        restarts: how often it is started again after being killed.
        on_line: given each line of progress.
        on_restart: told why the process is started again.
        look_up: called a few times a second; what it raises kills the process and passes.
        program: what the process does; a function at the top of a module.

    Raises:
        ChildFailed: the run said that it cannot be done, or was killed once too often.
    """
    for attempt in range(restarts + 1):
        try:
            _run(program, spec, log=log, on_line=on_line, look_up=look_up)
            return
        except ChildKilled as killed:
            if attempt == restarts:
                raise ChildFailed(f"{killed}, {attempt + 1} times; the machine may lack memory for it") from killed
            on_restart(str(killed))


def _run(program: Program, spec: Path, *, log: Path, on_line: Callable[[Line], None], look_up: Callable[[], None]) -> None:
    last_word = ""
    with _process(program, spec, log) as (process, progress):
        for line in _lines(progress, look_up):
            if "error" in line:
                last_word = str(line["error"])
            else:
                on_line(line)
        process.join()
        code = process.exitcode
    if code == 0:
        return
    said = _tail(log)
    logger.warning("run %s ended with %d", spec.parent.name, code, extra={"fields": {"stderr": said}})
    if not last_word and code == _SERVER_DIED:
        raise ChildKilled("the process that the run was forked from was killed")
    if not last_word and code < 0:
        raise ChildKilled(f"the process of the run was killed by {signal.Signals(-code).name}")
    raise ChildFailed(last_word or f"the process of the run ended with {code}: {said[-1] if said else 'it said nothing'}")


@contextmanager
def _process(program: Program, spec: Path, log: Path) -> Iterator[tuple[Any, Connection[Any, Any]]]:
    """A run's process, and the end of the pipe that its progress comes out of; it is killed where the block is left early."""
    log.touch()
    progress, theirs = _context.Pipe(duplex=False)
    process = _context.Process(target=_child, args=(program, str(spec), str(log), theirs), name=f"run {spec.parent.name}", daemon=True)
    with progress:
        with theirs:
            process.start()
        try:
            yield process, progress
        finally:
            if process.is_alive():
                process.kill()
            process.join()
            process.close()


def _child(program: Program, spec: str, log: str, progress: Connection[Any, Any]) -> None:
    """The life of a run's process: progress into the pipe, all else into the log."""
    errors = os.open(log, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o644)
    os.dup2(progress.fileno(), 1)
    os.dup2(errors, 2)
    os.close(errors)
    progress.close()
    sys.exit(program(["--run-spec", spec, "--resume", "auto", "--parent", str(os.getppid())]))


def _lines(progress: Connection[Any, Any], look_up: Callable[[], None]) -> Iterator[Line]:
    """Lines of progress until the process closes its end."""
    left = b""
    while True:
        look_up()
        if not wait([progress], timeout=_LOOK_UP_SECONDS):
            continue
        read = os.read(progress.fileno(), 65536)
        if not read:
            return
        *lines, left = (left + read).split(b"\n")
        for line in lines:
            yield json.loads(line)


def _tail(log: Path) -> list[str]:
    lines = [line.rstrip() for line in log.read_text(encoding="utf-8", errors="replace").splitlines() if line.strip()]
    return lines[-_LINES_LOGGED:]
