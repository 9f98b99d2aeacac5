"""The test node as the tests see it: started beside the control plane, with what it notes of its pods."""

from __future__ import annotations

import json
import os
import random
import re
import signal
import subprocess
import sys
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from cluster.control_plane import ControlPlane
from cluster.kubernetes_api import KubernetesApi, Object, condition
from cluster.node.registration import REAL
from cluster.programs import Program, die_with_parent

SELECTOR = {REAL: "true"}
TOLERATION = {"key": REAL, "operator": "Equal", "value": "true", "effect": "NoSchedule"}


class RunningNode:
    """Starts with `with`; all its pods' processes end with it."""

    def __init__(self, plane: ControlPlane, api: KubernetesApi, folder: Path, name: str = "real-0") -> None:
        self._plane = plane
        self._api = api
        self.name = name
        self.folder = folder
        self.subnet = f"10.{random.randrange(210, 250)}.{random.randrange(1, 250)}"
        self.address = f"{self.subnet}.1"
        """Where pods find what this machine serves to them."""

    def __enter__(self) -> Self:
        token = self.folder / "token"
        token.touch(mode=0o600)
        token.write_text(self._plane.token)
        command = [sys.executable, "-m", "cluster.node", "--url", self._plane.url, "--ca", str(self._plane.ca), "--token", str(token)]
        command += ["--name", self.name, "--subnet", self.subnet, "--folder", str(self.folder)]
        environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[1]), "GRPC_ENABLE_FORK_SUPPORT": "0"}
        self._program = Program("test-node", command, log=self.folder / "node.log", environment=environment)
        try:
            self._program.wait_until(self._ready)
        except BaseException:
            self._program.stop()
            raise
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self._program.stop()

    def _ready(self) -> bool:
        node = self._api.find(f"/api/v1/nodes/{self.name}")
        return node is not None and condition(node, "Ready") == "True" and len(node["spec"].get("taints", [])) == 1

    def log_of(self, pod: Object, container: str = "") -> str:
        """What the container has written, over all its lives."""
        meta = pod["metadata"]
        name = container or pod["spec"]["containers"][0]["name"]
        path = self.folder / "logs" / f"{meta['namespace']}_{meta['name']}_{name}.log"
        return path.read_text(errors="replace") if path.exists() else ""

    def kill(self, pod: Object) -> None:
        """kill -9 of the pod's container."""
        os.kill(_process_of(pod), signal.SIGKILL)

    def execute(self, pod: Object, *command: str, timeout_s: float = 120.0) -> str:
        """Runs a command in the pod, as `kubectl exec` does, and gives its output.

        Raises:
            AssertionError: it fails; says what it wrote.
        """
        with self.executing(pod, *command) as running:
            output, errors = running.communicate(timeout=timeout_s)
        assert running.returncode == 0, f"{' '.join(command)}: {errors[-2000:] or output[-2000:]}"
        return output

    def executing(self, pod: Object, *command: str) -> subprocess.Popen[str]:
        """The same, not waited for."""
        pid = _process_of(pod)
        variables = Path(f"/proc/{pid}/environ").read_text().rstrip("\0").split("\0")
        owner = Path(f"/proc/{pid}").stat()
        enter = ["nsenter", f"--target={pid}", "--all", "--root", "--wd", f"--setuid={owner.st_uid}", f"--setgid={owner.st_gid}"]
        return subprocess.Popen(
            [*enter, "env", "-i", *variables, *command],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            preexec_fn=die_with_parent,
        )

    def ends(self, namespace: str) -> list[dict[str, Any]]:
        """How each pod that was asked to go went: seconds, grace, which containers had to be killed, exit codes."""
        notes = self.folder / "ends.jsonl"
        lines = [json.loads(line) for line in notes.read_text().splitlines()] if notes.exists() else []
        return [line for line in lines if line["namespace"] == namespace]


def _process_of(pod: Object) -> int:
    [status] = pod["status"]["containerStatuses"]
    match = re.fullmatch(r"process://(\d+)", status.get("containerID", ""))
    assert match, f"{pod['metadata']['name']} does not run: {status}"
    return int(match[1])
