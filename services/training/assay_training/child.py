"""The process of a run: started, listened to, started again when it was killed, and never left behind."""

from __future__ import annotations

import json
import logging
import os
import queue
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

logger = logging.getLogger(__name__)

_LOOK_UP_SECONDS = 0.25
_LINES_LOGGED = 20

Line = Mapping[str, Any]


class ChildFailed(Exception):
    """The run cannot be done; the message is its own last word."""


class ChildKilled(Exception):
    """The process of the run was killed from outside."""


def supervise(
    spec: Path,
    *,
    log: Path,
    restarts: int,
    on_line: Callable[[Line], None],
    on_restart: Callable[[str], None],
    look_up: Callable[[], None],
) -> None:
    """Runs a spec to its end in a process of its own.

    To be called from the thread that stays until the end: the kernel kills the process when that thread dies.

    Args:
        spec: the run's file.
        log: what the process writes to stderr is appended here.
        restarts: how often it is started again after being killed.
        on_line: given each line of progress.
        on_restart: told why the process is started again.
        look_up: called a few times a second; what it raises kills the process and passes.

    Raises:
        ChildFailed: the run said that it cannot be done, or was killed once too often.
    """
    for attempt in range(restarts + 1):
        try:
            _run(spec, log=log, on_line=on_line, look_up=look_up)
            return
        except ChildKilled as killed:
            if attempt == restarts:
                raise ChildFailed(f"{killed}, {attempt + 1} times; the machine may lack memory for it") from killed
            on_restart(str(killed))


def _run(spec: Path, *, log: Path, on_line: Callable[[Line], None], look_up: Callable[[], None]) -> None:
    last_word = ""
    with _process(spec, log) as process:
        for line in _lines(process, look_up):
            if "error" in line:
                last_word = str(line["error"])
            else:
                on_line(line)
        code = process.wait()
    if code == 0:
        return
    said = _tail(log)
    logger.warning("run %s ended with %d", spec.parent.name, code, extra={"fields": {"stderr": said}})
    if code < 0 and not last_word:
        raise ChildKilled(f"the process of the run was killed by {signal.Signals(-code).name}")
    raise ChildFailed(last_word or f"the process of the run ended with {code}: {said[-1] if said else 'it said nothing'}")


@contextmanager
def _process(spec: Path, log: Path) -> Iterator[subprocess.Popen[str]]:
    command = [sys.executable, "-m", "assay_training.run", "--run-spec", str(spec), "--resume", "auto", "--parent", str(os.getpid())]
    with (
        log.open("a", encoding="utf-8") as errors,
        subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=errors, text=True, encoding="utf-8") as process,
    ):
        try:
            yield process
        finally:
            if process.poll() is None:
                process.kill()


def _lines(process: subprocess.Popen[str], look_up: Callable[[], None]) -> Iterator[Line]:
    """Lines of the process's stdout until it closes it."""
    lines: queue.SimpleQueue[str | None] = queue.SimpleQueue()
    assert process.stdout is not None
    stdout = process.stdout

    def read() -> None:
        for line in stdout:
            lines.put(line)
        lines.put(None)

    reader = threading.Thread(target=read, name="run-progress", daemon=True)
    reader.start()
    while True:
        look_up()
        try:
            line = lines.get(timeout=_LOOK_UP_SECONDS)
        except queue.Empty:
            continue
        if line is None:
            reader.join()
            return
        try:
            told = json.loads(line)
        except ValueError:
            # A process that is killed may leave half a line.
            logger.warning("not a line of progress: %.200s", line)
            continue
        yield told


def _tail(log: Path) -> list[str]:
    lines = [line.rstrip() for line in log.read_text(encoding="utf-8", errors="replace").splitlines() if line.strip()]
    return lines[-_LINES_LOGGED:]
