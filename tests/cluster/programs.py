"""Programs that a test starts beside itself, and that never outlive it."""

from __future__ import annotations

import ctypes
import signal
import subprocess
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

_SET_DEATH_SIGNAL = 1  # PR_SET_PDEATHSIG
_libc = ctypes.CDLL(None, use_errno=True)


class ProgramFailed(AssertionError):
    """A program ended or did not become ready in time; says the end of its log."""


def die_with_parent() -> None:
    """For `preexec_fn`: has the kernel kill this child when the thread that started it ends, however that ends."""
    _libc.prctl(_SET_DEATH_SIGNAL, signal.SIGKILL)


class Program:
    """A child process with a log file. Start it from a thread that lives as long as it should: it dies with that thread."""

    def __init__(self, name: str, command: Sequence[str], *, log: Path, environment: Mapping[str, str] | None = None) -> None:
        self.name = name
        self.log = log
        with log.open("ab") as output:
            self.process = subprocess.Popen(
                command,
                env=environment,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                start_new_session=True,
                preexec_fn=die_with_parent,
            )

    def wait_until(self, ready: Callable[[], bool], *, timeout_s: float = 60.0) -> None:
        deadline = time.monotonic() + timeout_s
        while not ready():
            if self.process.poll() is not None or time.monotonic() > deadline:
                tail = self.log.read_text(errors="replace")[-4000:]
                raise ProgramFailed(f"{self.name} is not ready (exit code {self.process.poll()}):\n{tail}")
            time.sleep(0.1)

    def stop(self, *, grace_s: float = 10.0) -> None:
        self.process.terminate()
        try:
            self.process.wait(grace_s)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
