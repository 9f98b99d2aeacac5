"""Pods' sandboxes and containers' processes on this machine."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import signal
import sys
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from cluster.node.commands import call
from cluster.node.references import NotThere

_HERE = Path(__file__).parent
_PYTHON = (sys.executable, "-E", "-S")


def image_paths() -> list[str]:
    """What stands for the image: this environment's Python and this checkout, also where /tmp hides them."""
    return sorted({str(Path(sys.base_prefix).resolve()), str(Path(sys.prefix).resolve()), str(_HERE.parents[2])}, key=len)


@dataclass(frozen=True, kw_only=True)
class Mount:
    """A file or folder of this machine in a container."""

    source: Path
    path: str
    read_only: bool


@dataclass(frozen=True, kw_only=True)
class Launch:
    """All there is to know to start a container."""

    command: Sequence[str]
    environment: Mapping[str, str]
    folder: str
    user: int
    group: int
    groups: Sequence[int]
    read_only: bool
    mounts: Sequence[Mount]
    files: Mapping[str, str]
    """Files that the kubelet writes, by path."""


class Sandbox:
    """A process that holds the network of a pod; all of the pod ends with it."""

    def __init__(self, process: asyncio.subprocess.Process) -> None:
        self._process = process
        self.pid = process.pid

    @classmethod
    async def open(cls, hostname: str) -> Sandbox:
        process = await asyncio.create_subprocess_exec(*_PYTHON, str(_HERE / "pause.py"), hostname, stdout=asyncio.subprocess.PIPE)
        assert process.stdout is not None
        assert await process.stdout.readline() == b"ready\n", "the sandbox did not open"
        return cls(process)

    async def close(self) -> None:
        with contextlib.suppress(ProcessLookupError):
            self._process.kill()
        await self._process.wait()


class ContainerProcess:
    """A container that runs, and what is left of it when it has ended."""

    def __init__(self, shim: asyncio.subprocess.Process, report: asyncio.StreamReader, launch: Launch, scratch: Path) -> None:
        self._shim = shim
        self._report = report
        self._launch = launch
        self._scratch = scratch
        self.pid = 0
        """Its process id on this machine."""
        self.code: int | None = None
        """Exit code once it has ended; negative for a signal."""
        self.ended = asyncio.Event()
        self._following: asyncio.Task[None] | None = None

    @classmethod
    async def start(cls, sandbox: Sandbox, launch: Launch, *, log: Path) -> ContainerProcess:
        """Starts the container.

        Raises:
            NotThere: it could not be; a kubelet tries again.
        """
        scratch = Path(tempfile.mkdtemp(prefix="container-", dir=log.parent.parent))
        layer = scratch / "layer"
        layer.mkdir()
        spec = {
            **{name: getattr(launch, name) for name in ("user", "group", "read_only", "folder")},
            "command": list(launch.command),
            "environment": dict(launch.environment),
            "groups": list(launch.groups),
            "files": dict(launch.files),
            "mounts": [{"source": str(one.source), "path": one.path, "read_only": one.read_only} for one in launch.mounts],
            "pause": sandbox.pid,
            "layer": str(layer),
            "image": image_paths(),
        }
        (scratch / "spec.json").write_text(json.dumps(spec))
        reading, writing = os.pipe()
        with log.open("ab") as output:
            shim = await asyncio.create_subprocess_exec(
                *_PYTHON,
                str(_HERE / "container.py"),
                str(scratch / "spec.json"),
                str(writing),
                stdin=asyncio.subprocess.DEVNULL,
                stdout=output,
                stderr=asyncio.subprocess.STDOUT,
                pass_fds=[writing],
            )
        os.close(writing)
        report = asyncio.StreamReader()
        await asyncio.get_running_loop().connect_read_pipe(lambda: asyncio.StreamReaderProtocol(report), os.fdopen(reading, "rb"))
        process = cls(shim, report, launch, scratch)
        begun = (await report.readline()).split()
        if not begun:
            await shim.wait()
            raise NotThere(f"the container could not be started, its log says why: {log}")
        process.pid = int(begun[1])
        process._following = asyncio.create_task(process._follow())  # kept, as the loop keeps no task alive
        return process

    def signal(self, number: signal.Signals) -> None:
        if not self.ended.is_set():
            with contextlib.suppress(ProcessLookupError):
                os.kill(self.pid, number)

    async def execute(self, command: Sequence[str], timeout_s: float) -> str:
        """Runs a command in the container, as its user."""
        launch = self._launch
        variables = [f"{name}={text}" for name, text in launch.environment.items()]
        enter = ["nsenter", f"--target={self.pid}", "--mount", "--pid", "--net", "--uts", "--ipc", "--root", "--wd"]
        enter += [f"--setuid={launch.user}", f"--setgid={launch.group}", "env", "-i", *variables, *command]
        return await call(*enter, timeout_s=timeout_s)

    async def _follow(self) -> None:
        line = (await self._report.readline()).split()
        await self._shim.wait()
        self.code = int(line[1]) if line else -int(signal.SIGKILL)
        for left in (self._scratch / "spec.json", self._scratch / "layer", self._scratch):
            (left.rmdir if left.is_dir() else left.unlink)()
        self.ended.set()
