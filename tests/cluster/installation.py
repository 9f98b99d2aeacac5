"""The chart installed on the test node, with a real Kafka and a real PostgreSQL beside it, and a pod that calls it as a user would."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cluster.folder_volumes import FolderVolumes
from cluster.helm import CHART, RELEASE, Tools
from cluster.kubernetes_api import KubernetesApi, Object, condition, until
from cluster.node.registration import REAL
from cluster.running_node import SELECTOR, TOLERATION, RunningNode
from support.tiny_models import write_tiny_causal_lm, write_tiny_reward_model

from assay_client import AssayClient, Endpoints
from assay_data.generated import generate_pairs
from assay_data.pairs import write_pairs

COMPONENTS = ("cleaning", "reward", "policy", "training", "evaluation")
VALUES = Path(__file__).with_name("running-values.yaml")
_COMPONENT = "app.kubernetes.io/component"
PAIRS, MANY = 400, 8000


@dataclass(frozen=True, kw_only=True)
class Installation:
    """The release and all that the tests need to play with it."""

    api: KubernetesApi
    tools: Tools
    node: RunningNode
    volumes: FolderVolumes
    namespace: str
    kafka: str
    database: str

    def prepare(self) -> None:
        """Models, data, the database's secret, and the pod of a user."""
        base = f"/api/v1/namespaces/{self.namespace}"
        for name in ("models", "artifacts"):
            spec = {"accessModes": ["ReadWriteMany"], "resources": {"requests": {"storage": "1Gi"}}}
            self.api.create(f"{base}/persistentvolumeclaims", {"metadata": {"name": name}, "spec": spec})
        self.api.create(f"{base}/secrets", {"metadata": {"name": "postgres"}, "stringData": {"uri": self.database}})
        models, artifacts = self.volumes.folder_of(self.namespace, "models"), self.artifacts
        models.mkdir(parents=True)
        artifacts.mkdir(parents=True)
        write_tiny_reward_model(models / "first", seed=1)
        write_tiny_reward_model(models / "second", seed=2)
        write_tiny_causal_lm(models / "writer", seed=3)
        write_pairs(str(artifacts / "pairs.jsonl"), generate_pairs(PAIRS))
        write_pairs(str(artifacts / "many.jsonl"), generate_pairs(MANY))
        self.api.create(f"{base}/pods", self._user())
        until("the user's pod runs", lambda: condition(self.user, "Ready") == "True")

    def install(self) -> None:
        self._helm("install")

    def upgrade(self, *changes: str) -> None:
        self._helm("upgrade", *changes)

    def uninstall(self) -> None:
        self.tools.helm("uninstall", RELEASE, "--namespace", self.namespace, "--wait", "--timeout", "180s")

    def pods(self, component: str) -> list[Object]:
        """The component's pods that are to stay, by name."""
        selector = f"app.kubernetes.io/instance={RELEASE},{_COMPONENT}={component}"
        found = self.api.list(f"/api/v1/namespaces/{self.namespace}/pods", labelSelector=selector)
        return sorted((pod for pod in found if "deletionTimestamp" not in pod["metadata"]), key=lambda pod: str(pod["metadata"]["name"]))

    def wait_until_ready(self, component: str, pods: int = 1, timeout_s: float = 120.0) -> list[Object]:
        def ready() -> list[Object]:
            found = self.pods(component)
            good = len(found) == pods and all(condition(pod, "Ready") == "True" for pod in found)
            return found if good else []

        return list(until(f"{pods} pods of {component} are ready", ready, timeout_s=timeout_s))

    def client(self) -> AssayClient:
        """The services as this machine sees them: each by the address of its pod, which stays when its process is killed."""
        addresses = {name: f"{self.pods(name)[0]['status']['podIP']}:50051" for name in COMPONENTS}
        return AssayClient(Endpoints(**addresses), patience_s=180)

    @property
    def artifacts(self) -> Path:
        """What lies at /artifacts in the pods."""
        return self.volumes.folder_of(self.namespace, "artifacts")

    def ends(self, component: str = "") -> list[dict[str, Any]]:
        """How the release's pods went that were asked to go."""
        found = self.node.ends(self.namespace)
        return [end for end in found if end["pod"].startswith(f"{RELEASE}-{component}")]

    @property
    def user(self) -> Object:
        return self.api.get(f"/api/v1/namespaces/{self.namespace}/pods/user")

    def assay(self, *arguments: str, timeout_s: float = 120.0) -> Any:
        """What the command line answers in the user's pod."""
        return json.loads(self.node.execute(self.user, "assay", *arguments, "--json", timeout_s=timeout_s))

    def _helm(self, verb: str, *changes: str) -> None:
        own = ["--set", f"kafka.external.bootstrap={self.kafka}"]
        where = ["--namespace", self.namespace, "--wait", "--timeout", "600s"]
        self.tools.helm(verb, RELEASE, str(CHART), "-f", str(VALUES), *own, *changes, *where)

    def _user(self) -> Object:
        targets = [
            {"name": f"ASSAY_{name.upper()}_TARGET", "value": f"dns:///{RELEASE}-{name}-headless.{self.namespace}.svc:50051"}
            for name in COMPONENTS
        ]
        secure = {"allowPrivilegeEscalation": False, "readOnlyRootFilesystem": True, "capabilities": {"drop": ["ALL"]}}
        return {
            "apiVersion": "v1",
            "kind": "Pod",
            "metadata": {"name": "user", "labels": {"assay/client": "true", REAL: "true"}},
            "spec": {
                "nodeSelector": SELECTOR,
                "tolerations": [TOLERATION],
                "terminationGracePeriodSeconds": 1,
                "enableServiceLinks": False,
                "automountServiceAccountToken": False,
                "securityContext": {
                    "runAsNonRoot": True,
                    "runAsUser": 10001,
                    "runAsGroup": 10001,
                    "fsGroup": 10001,
                    "seccompProfile": {"type": "RuntimeDefault"},
                },
                "volumes": [
                    {"name": "tmp", "emptyDir": {}},
                    {"name": "artifacts", "persistentVolumeClaim": {"claimName": "artifacts"}},
                ],
                "containers": [
                    {
                        "name": "user",
                        "image": "assay/cli",
                        "command": ["sleep", "infinity"],
                        "env": [{"name": "HOME", "value": "/tmp"}, *targets],
                        "volumeMounts": [{"name": "tmp", "mountPath": "/tmp"}, {"name": "artifacts", "mountPath": "/artifacts"}],
                        "securityContext": secure,
                    }
                ],
            },
        }
