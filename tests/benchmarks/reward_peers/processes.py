"""A server in a process of its own: started, measured by processor time with all that it started, ended however this one ends."""

from __future__ import annotations

import os
import signal
import subprocess
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from assay_cli.process_tree import MARK_OF_STACK
from assay_cli.supervised import Guardian

_TICKS = os.sysconf("SC_CLK_TCK")
_GRACE_SECONDS = 15.0

QUIET = {
    "HF_HUB_OFFLINE": "1",
    "OMP_NUM_THREADS": "1",
    "MKL_NUM_THREADS": "1",
    "OMP_WAIT_POLICY": "PASSIVE",
    "RAYON_NUM_THREADS": "1",
    "TOKENIZERS_PARALLELISM": "false",
    "TRL_EXPERIMENTAL_SILENCE": "1",
}
"""Environment of every server: one thread for computing, none that spins while it waits."""


class NotStarted(RuntimeError):
    """A server ended, or was not ready in time; says so with the end of its log."""


class ServerProcess:
    """One server, in a session of its own."""

    def __init__(
        self,
        command: Sequence[str],
        *,
        log: Path,
        guardian: Guardian,
        environment: Mapping[str, str],
        pipes: bool = False,
    ) -> None:
        """Starts it.

        Args:
            command: program and arguments.
            log: file for what it says.
            guardian: ends it where this process cannot.
            environment: beside this process's own and `QUIET`.
            pipes: whether its standard input and output are for the caller.
        """
        log.parent.mkdir(parents=True, exist_ok=True)
        self._log = log
        with log.open("wb") as file:
            self.process = subprocess.Popen(
                command,
                stdin=subprocess.PIPE if pipes else subprocess.DEVNULL,
                stdout=subprocess.PIPE if pipes else file,
                stderr=file,
                env={**os.environ, **QUIET, **environment, MARK_OF_STACK: guardian.mark},
                start_new_session=True,
            )

    def wait_until(self, ready: Callable[[], bool], *, seconds: float) -> None:
        """Waits until `ready` says so.

        Raises:
            NotStarted: it ended before, or the time is over.
        """
        until = time.monotonic() + seconds
        while not ready():
            if self.process.poll() is not None or time.monotonic() > until:
                how = f"ended with {self.process.returncode}" if self.process.returncode is not None else f"was not ready in {seconds:g} s"
                raise NotStarted(f"{how}:\n{self._log.read_text(errors='replace')[-600:]}")
            time.sleep(0.1)

    def cpu_seconds(self) -> float:
        """Processor time of it and of all that it started, since its start."""
        return sum(_cpu_ticks(pid) for pid in self._tree()) / _TICKS

    def resident_mib(self) -> float:
        """Memory of it and of all that it started."""
        return sum(_resident_kib(pid) for pid in self._tree()) / 1024

    def stop(self) -> None:
        """Asks it to end, and ends what is left of it after a while."""
        tree = self._tree()
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGTERM)
            try:
                self.process.wait(_GRACE_SECONDS)
            except subprocess.TimeoutExpired:
                self.process.kill()
                self.process.wait()
        for pid in tree:
            if pid != self.process.pid and _session(pid) is not None:
                try:
                    os.kill(pid, signal.SIGKILL)
                except ProcessLookupError:
                    continue
        for pipe in (self.process.stdin, self.process.stdout):
            if pipe is not None:
                pipe.close()

    def _tree(self) -> list[int]:
        """Process ids of its session, and of its descendants in other sessions."""
        root = self.process.pid
        found = {pid: known for name in os.listdir("/proc") if name.isdigit() and (known := _session(pid := int(name))) is not None}
        tree = {pid for pid, (_, session) in found.items() if session == root or pid == root}
        while more := {pid for pid, (parent, _) in found.items() if parent in tree and pid not in tree}:
            tree |= more
        return sorted(tree)


def _stat(pid: int) -> list[str] | None:
    """Fields of /proc/<pid>/stat from the state on; None where the process has ended."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except (FileNotFoundError, ProcessLookupError):
        return None


def _session(pid: int) -> tuple[int, int] | None:
    """Parent and session; None for a process that has ended."""
    fields = _stat(pid)
    return (int(fields[1]), int(fields[3])) if fields and fields[0] != "Z" else None


def _cpu_ticks(pid: int) -> int:
    """User and system time, that of children which have ended included."""
    fields = _stat(pid)
    return sum(map(int, fields[11:15])) if fields else 0


def _resident_kib(pid: int) -> int:
    try:
        lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    except (FileNotFoundError, ProcessLookupError):
        return 0
    return next((int(line.split()[1]) for line in lines if line.startswith("VmRSS")), 0)
