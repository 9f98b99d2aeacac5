"""Helm and kubectl as a platform engineer calls them, against the control plane of the tests."""

from __future__ import annotations

import os
import subprocess
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

REPOSITORY = Path(__file__).parents[2]
CHART = REPOSITORY / "helm" / "assay"
RELEASE = "assay"


@dataclass(frozen=True, kw_only=True)
class Tools:
    """The programs, and the cluster they speak to."""

    folder: Path
    """Where helm4 and kubectl are."""
    kubeconfig: Path
    home: Path
    """For their caches."""

    def helm(self, *arguments: str, timeout_s: float = 660.0) -> str:
        return self._call("helm4", *arguments, timeout_s=timeout_s)

    def kubectl(self, *arguments: str, given: str = "") -> str:
        return self._call("kubectl", *arguments, given=given, timeout_s=120.0)

    def rendered(self, namespace: str, *arguments: str, chart: Path = CHART) -> list[dict[str, Any]]:
        """The objects that an installation would make."""
        text = self.helm("template", RELEASE, str(chart), "--namespace", namespace, "--kube-version", "1.36.3", *arguments)
        return [one for one in yaml.safe_load_all(text) if one]

    def can(self, account: str, namespace: str, verb: str, resource: str, *, where: str = "") -> bool:
        """Whether a service account may, in its own namespace or in `where`, as `kubectl auth can-i` has it."""
        done = self._run("kubectl", "auth", "can-i", verb, resource, *self._as(account, namespace, where), timeout_s=60.0)
        answer = done.stdout.strip().splitlines()[-1:] or [""]
        assert answer[0] in ("yes", "no"), done.stdout + done.stderr
        return answer[0] == "yes"

    def rights(self, account: str, namespace: str) -> set[str]:
        """All that a service account may do, a line for each kind of resource or address."""
        return set(self.kubectl("auth", "can-i", "--list", "--no-headers", *self._as(account, namespace)).splitlines())

    def _as(self, account: str, namespace: str, where: str = "") -> list[str]:
        return ["-n", where or namespace, f"--as=system:serviceaccount:{namespace}:{account}"]

    def _call(self, program: str, *arguments: str, timeout_s: float, given: str = "") -> str:
        done = self._run(program, *arguments, timeout_s=timeout_s, given=given)
        assert done.returncode == 0, f"{program} {' '.join(arguments)}: {done.stderr or done.stdout}"
        return done.stdout

    def _run(self, program: str, *arguments: str, timeout_s: float, given: str = "") -> subprocess.CompletedProcess[str]:
        environment = {
            "PATH": os.environ.get("PATH", ""),
            "HOME": str(self.home),
            "KUBECONFIG": str(self.kubeconfig),
            "HELM_DRIVER": "secret",
        }
        return subprocess.run(
            [str(self.folder / program), *arguments], env=environment, input=given, capture_output=True, text=True, timeout=timeout_s
        )
