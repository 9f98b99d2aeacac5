"""`assay doctor --cluster` on a real API server: what is well, what is not, and what it says to do.

What pods see themselves is tested where they are real processes with a real Kafka: tests/integration/test_self_check.py.
"""

from __future__ import annotations

import datetime
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from cluster.helm import CHART, RELEASE, Tools
from cluster.kubernetes_api import KubernetesApi, until

MINIMAL = CHART / "ci" / "minimal-values.yaml"
Findings = dict[str, dict[str, Any]]

pytestmark = pytest.mark.usefixtures("pools", "volumes", "custom_resources")


def doctor(tools: Tools, namespace: str, *options: str) -> tuple[int, Findings]:
    """Exit code, and what was found."""
    environment = os.environ | {
        "PATH": f"{tools.folder}:{os.environ['PATH']}",
        "KUBECONFIG": str(tools.kubeconfig),
        "HOME": str(tools.home),
    }
    command = [
        str(Path(sys.executable).with_name("assay")),
        "doctor",
        "--cluster",
        "--outside",
        "--json",
        "--namespace",
        namespace,
        *options,
    ]
    done = subprocess.run(command, env=environment, capture_output=True, text=True)
    assert done.returncode in (0, 1), done.stderr
    return done.returncode, {one["what"]: one for one in json.loads(done.stdout)}


def install(tools: Tools, namespace: str, *options: str) -> None:
    tools.helm("install", RELEASE, str(CHART), "--namespace", namespace, "-f", str(MINIMAL), "--wait", "--timeout", "120s", *options)


def test_a_release_that_is_well_is_found_well(tools: Tools, namespace: str) -> None:
    install(tools, namespace)
    code, findings = doctor(tools, namespace)
    assert code == 0, findings
    assert findings.keys() == {"reward pods", "service assay-reward", "service assay-reward-headless"}
    assert findings["reward pods"]["found"] == "1 of 1 ready"


def test_a_release_that_is_not_there_is_missed(tools: Tools, namespace: str) -> None:
    code, findings = doctor(tools, namespace, "--release", "other")
    assert code == 1
    assert "no release other" in findings["release"]["found"]


def test_a_pod_without_a_node_is_found_with_what_it_asks_for(tools: Tools, namespace: str) -> None:
    install(tools, namespace)
    options = ("--set", "reward.accelerator.enabled=true", "--set", "accelerator.resourceName=nvidia.com/none")
    tools.helm("upgrade", RELEASE, str(CHART), "--namespace", namespace, "-f", str(MINIMAL), *options)

    def trouble() -> dict[str, Any]:
        _, findings = doctor(tools, namespace)
        pods = findings["reward pods"]
        return pods if "has no node" in pods["found"] else {}

    pods = until("the doctor sees it", trouble)
    assert not pods["good"]
    assert "nvidia.com/none" in pods["remedy"]


def test_certificates_are_found_missing_then_good_then_near_their_end(tools: Tools, namespace: str, api: KubernetesApi) -> None:
    if "cert-manager.io" not in api.groups():
        pytest.skip("no custom resource definitions of cert-manager: they are part of the shared data")
    tools.helm("install", RELEASE, str(CHART), "--namespace", namespace, "-f", str(MINIMAL), "--set", "tls.enabled=true")
    _, findings = doctor(tools, namespace)
    assert not findings["certificate assay-reward"]["good"]
    assert "cert-manager" in findings["certificate assay-reward"]["remedy"]
    for days, good in ((60, True), (3, False)):
        ends = datetime.datetime.now(datetime.UTC) + datetime.timedelta(days=days, hours=1)
        conditions = [{"type": "Ready", "status": "True", "lastTransitionTime": "2026-01-01T00:00:00Z"}]
        status = {"status": {"conditions": conditions, "notAfter": ends.strftime("%Y-%m-%dT%H:%M:%SZ")}}
        where = ("--namespace", namespace, "--subresource=status", "--type=merge", "--patch", json.dumps(status))
        tools.kubectl("patch", "certificates.cert-manager.io", "assay-reward", *where)
        _, findings = doctor(tools, namespace)
        assert findings["certificate assay-reward"]["good"] is good
        assert findings["certificate assay-reward"]["found"] == f"good for {days} days"


def test_who_may_not_look_is_told_so(tools: Tools, namespace: str, tmp_path: Path) -> None:
    nobody = Tools(folder=tools.folder, kubeconfig=tmp_path / "none", home=tools.home)
    code, findings = doctor(nobody, namespace)
    assert code == 1
    assert "kubectl" in findings["cluster"]["remedy"]
