"""Reads a cluster through `kubectl`, as whoever is signed in with it."""

from __future__ import annotations

import json
import shutil
import subprocess
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

Object = dict[str, Any]


class KubectlFailed(RuntimeError):
    """It could not be asked, or was refused; says why, in kubectl's words."""


@dataclass(frozen=True, kw_only=True)
class Kubectl:
    """One namespace of one cluster."""

    namespace: str
    context: str = ""
    """Of the kubeconfig; empty is the current one."""

    def listed(self, kind: str, selector: str = "") -> list[Object]:
        """The objects of a kind; none where the cluster has no such kind.

        Raises:
            KubectlFailed: for any other reason.
        """
        try:
            answer = self._ask("get", kind, "--output", "json", *(["--selector", selector] if selector else []))
        except KubectlFailed as error:
            if "the server doesn't have a resource type" in str(error):
                return []
            raise
        items: list[Object] = json.loads(answer)["items"]
        return items

    def within(self, pod: str, command: Sequence[str], container: str) -> str:
        """What a command says within a pod.

        Raises:
            KubectlFailed: it could not be run, or failed.
        """
        return self._ask("exec", pod, "--container", container, "--", *command, timeout_s=90.0)

    def _ask(self, *arguments: str, timeout_s: float = 30.0) -> str:
        program = shutil.which("kubectl")
        if program is None:
            raise KubectlFailed("there is no kubectl on the PATH")
        where = ["--namespace", self.namespace, *(["--context", self.context] if self.context else [])]
        try:
            done = subprocess.run([program, *where, *arguments], capture_output=True, text=True, timeout=timeout_s)
        except (OSError, subprocess.TimeoutExpired) as error:
            raise KubectlFailed(str(error)) from error
        if done.returncode != 0:
            raise KubectlFailed((done.stderr.strip().splitlines() or [f"exit code {done.returncode}"])[-1])
        return done.stdout


def condition(thing: Object, kind: str) -> Object:
    """A condition of the object's status; empty where it has none of that kind."""
    return next((one for one in thing.get("status", {}).get("conditions", []) if one["type"] == kind), {})
