"""A child process that is kept alive: its log, its errors, its restarts, its end."""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import sys
import threading
import time
import uuid
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO

from assay_cli import process_tree
from assay_cli.process_tree import MARK_OF_PROCESS, MARK_OF_STACK

Report = Callable[[str, str], None]
"""Called with the name of a process and a line for people."""

BAD_SETTINGS = 2
"""Exit code of a process that was told something wrong: starting it again would not help."""
_STABLE_S = 60.0  # a process that ran for so long starts again without a growing pause
_LONGEST_PAUSE_S = 10.0
_ERROR_LEVELS = frozenset({"ERROR", "CRITICAL", "FATAL"})


class Guardian:
    """A small process that ends all children of this one when this one ends, however it ends."""

    def __init__(self) -> None:
        self.mark = uuid.uuid4().hex
        self._process = subprocess.Popen(
            [sys.executable, "-I", "-S", process_tree.__file__, self.mark], stdin=subprocess.PIPE, start_new_session=True
        )

    @property
    def pid(self) -> int:
        """Its process id."""
        return self._process.pid

    def close(self) -> None:
        """Ends all that is left, and the guardian."""
        assert self._process.stdin is not None
        self._process.stdin.close()
        self._process.wait()


@dataclass(frozen=True)
class Status:
    """How a process does."""

    name: str
    pid: int | None
    """Process id; None while it is down."""
    restarts: int
    """How often it was started again."""


class Supervised:
    """A child process, started again when it dies, ended with all its descendants."""

    def __init__(
        self,
        name: str,
        command: Sequence[str],
        *,
        environment: Mapping[str, str],
        log: Path,
        guardian: Guardian,
        report: Report,
        restart: bool = True,
        on_line: Callable[[str], None] | None = None,
    ) -> None:
        """Remembers what to start; `start` does.

        Args:
            name: For people.
            command: Program and arguments.
            environment: All of its environment.
            log: File that its output is appended to.
            guardian: Ends it should this process die.
            report: Told of errors in its log, its deaths and its restarts; called from other threads.
            restart: Whether it is started again when it ends by itself.
            on_line: Sees each line of its output.
        """
        self.name = name
        self._command = list(command)
        self._environment = dict(environment) | {MARK_OF_STACK: guardian.mark}
        self._log = log
        self._report = report
        self._restart = restart
        self._on_line = on_line
        self._stop = threading.Event()
        self._lock = threading.Lock()
        self._process: subprocess.Popen[bytes] | None = None
        self._restarts = 0
        self._last_lines: deque[str] = deque(maxlen=15)
        self._thread = threading.Thread(target=self._supervise, name=f"supervise-{name}", daemon=True)
        self.ended = threading.Event()
        """Set once it is down for good."""
        self._on_exit: list[Callable[[], None]] = []

    @property
    def status(self) -> Status:
        """How it does now."""
        with self._lock:
            pid = self._process.pid if self._process is not None and self._process.returncode is None else None
            return Status(name=self.name, pid=pid, restarts=self._restarts)

    @property
    def last_lines(self) -> str:
        """The newest lines of its output."""
        return "\n".join(self._last_lines)

    def call_on_exit(self, act: Callable[[], None]) -> None:
        """Has `act` called each time it ends by itself."""
        with self._lock:
            self._on_exit.append(act)

    def start(self) -> None:
        """Starts it; returns at once."""
        self._log.parent.mkdir(parents=True, exist_ok=True)
        self._thread.start()

    def stop(self, grace_s: float) -> None:
        """Asks it to end (SIGTERM), and after `grace_s` seconds ends it and all its descendants (SIGKILL)."""
        self._stop.set()
        with self._lock:
            process = self._process
        if process is not None and process.returncode is None:
            _signal_group(process, signal.SIGTERM)
            try:
                process.wait(grace_s)
            except subprocess.TimeoutExpired:
                self._report(self.name, f"did not end within {grace_s:g} s and is killed")
                _signal_group(process, signal.SIGKILL)
        if self._thread.ident is not None:
            self._thread.join()

    def _supervise(self) -> None:
        pause = 0.5
        try:
            while not self._stop.is_set():
                began = time.monotonic()
                code = self._run_once()
                if self._stop.is_set():
                    return
                how = f"was ended by {signal.Signals(-code).name}" if code < 0 else f"ended with exit code {code}"
                for act in list(self._on_exit):
                    act()
                if not self._restart or code == BAD_SETTINGS:
                    self._report(self.name, f"{how}; it is not started again\n{self.last_lines}")
                    return
                pause = 0.5 if time.monotonic() - began > _STABLE_S else min(_LONGEST_PAUSE_S, pause * 2)
                wait = pause * random.uniform(0.5, 1.0)
                self._report(self.name, f"{how}; it is started again in {wait:.1f} s")
                if self._stop.wait(wait):
                    return
                with self._lock:
                    self._restarts += 1
        finally:
            self.ended.set()

    def _run_once(self) -> int:
        mark = uuid.uuid4().hex
        with self._log.open("ab") as log:
            with self._lock:
                if self._stop.is_set():
                    return 0
                process = subprocess.Popen(
                    self._command,
                    env=self._environment | {MARK_OF_PROCESS: mark},
                    stdin=subprocess.DEVNULL,
                    stdout=subprocess.PIPE,
                    stderr=subprocess.STDOUT,
                    start_new_session=True,
                )
                self._process = process
            assert process.stdout is not None
            reader = threading.Thread(target=self._read, args=(process.stdout, log), name=f"log-{self.name}", daemon=True)
            reader.start()
            code = process.wait()
            process_tree.end_marked(MARK_OF_PROCESS, mark)  # nothing it has started outlives it, or holds its output open
            reader.join()
            return code

    def _read(self, output: IO[bytes], log: IO[bytes]) -> None:
        with output:
            for raw in output:
                log.write(raw)
                log.flush()
                line = raw.decode(errors="replace").rstrip()
                self._last_lines.append(line)
                if self._on_line is not None:
                    self._on_line(line)
                error = error_in(line)
                if error is not None:
                    self._report(self.name, error)


def error_in(line: str) -> str | None:
    """The message of a log line if it is an error: JSON with a level, or text that begins with one or has it after a time."""
    if line.startswith("{"):
        try:
            entry = json.loads(line)
        except ValueError:
            return None
        if isinstance(entry, dict) and entry.get("level") in _ERROR_LEVELS:
            return str(entry.get("message", line))
        return None
    words = line.split(maxsplit=2)
    return line if any(word.rstrip(":") in _ERROR_LEVELS for word in words[:2]) else None


def _signal_group(process: subprocess.Popen[bytes], number: signal.Signals) -> None:
    try:
        os.killpg(process.pid, number)
    except ProcessLookupError:
        return
