"""What a platform team has ready before it installs the chart: made here for whatever the value file names."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from cluster.folder_volumes import FolderVolumes
from cluster.kubernetes_api import KubernetesApi, Object

_BATCH_KINDS = {"Deployment", "StatefulSet", "Job"}


def provide(api: KubernetesApi, volumes: FolderVolumes, namespace: str, objects: Sequence[Object]) -> None:
    """Makes the classes of priority, runtime and storage and the claims that are named and that the chart does not make itself."""
    for claim in claim_specs(objects):
        if "storageClassName" in claim:
            volumes.add_class(claim["storageClassName"])
    own_claims = {one["metadata"]["name"] for one in objects if one["kind"] == "PersistentVolumeClaim"}
    for pod in pod_specs(objects):
        if "priorityClassName" in pod:
            _ensure(api, "/apis/scheduling.k8s.io/v1/priorityclasses", {"metadata": {"name": pod["priorityClassName"]}, "value": 1000})
        if "runtimeClassName" in pod:
            _ensure(api, "/apis/node.k8s.io/v1/runtimeclasses", {"metadata": {"name": pod["runtimeClassName"]}, "handler": "test"})
        for volume in pod.get("volumes", []):
            claim = volume.get("persistentVolumeClaim", {}).get("claimName")
            if claim and claim not in own_claims:
                spec = {"accessModes": ["ReadWriteMany"], "resources": {"requests": {"storage": "1Gi"}}}
                path = f"/api/v1/namespaces/{namespace}/persistentvolumeclaims"
                _ensure(api, path, {"metadata": {"name": claim}, "spec": spec})


def pod_specs(objects: Sequence[Object]) -> Iterator[Object]:
    """The pods of all workloads."""
    for one in objects:
        if one["kind"] in _BATCH_KINDS:
            yield one["spec"]["template"]["spec"]


def claim_specs(objects: Sequence[Object]) -> Iterator[Object]:
    """The claims of the chart itself and of its StatefulSets."""
    for one in objects:
        if one["kind"] == "PersistentVolumeClaim":
            yield one["spec"]
        if one["kind"] == "StatefulSet":
            yield from (template["spec"] for template in one["spec"].get("volumeClaimTemplates", []))


def _ensure(api: KubernetesApi, path: str, body: Object) -> None:
    if api.find(f"{path}/{body['metadata']['name']}") is None:
        api.create(path, body)
