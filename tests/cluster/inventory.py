"""All there is in a namespace, or outside of all, so that what a release leaves behind can be seen."""

from __future__ import annotations

from collections.abc import Iterator

import httpx
from cluster.kubernetes_api import KubernetesApi, Object

_PASSING = {"events", "leases", "endpointslices", "endpoints", "controllerrevisions", "replicasets", "pods"}
_OWNED = (
    ("/api/v1", "pods"),
    ("/apis/apps/v1", "replicasets"),
    ("/apis/apps/v1", "controllerrevisions"),
    ("/apis/discovery.k8s.io/v1", "endpointslices"),
)
_OF_THE_CLUSTER = {"persistentvolumes", "nodes", "namespaces", "componentstatuses", "resourceslices"}


def inventory(api: KubernetesApi, namespace: str) -> set[str]:
    """resource/name of all lasting objects of the namespace. What goes with its owner is `passing_objects`."""
    return set(_names(api, namespace, namespaced=True)) | set(_names(api, namespace, namespaced=False))


def passing_objects(api: KubernetesApi, namespace: str) -> list[str]:
    """Pods and the like that are still there."""
    found = [
        ("pods", "/api/v1"),
        ("replicasets", "/apis/apps/v1"),
        ("controllerrevisions", "/apis/apps/v1"),
        ("endpointslices", "/apis/discovery.k8s.io/v1"),
    ]
    return [f"{kind}/{one['metadata']['name']}" for kind, group in found for one in api.list(f"{group}/namespaces/{namespace}/{kind}")]


def _names(api: KubernetesApi, namespace: str, *, namespaced: bool) -> Iterator[str]:
    for group in _groups(api):
        for resource in api.get(group)["resources"]:
            kind = resource["name"]
            listed = "list" in resource["verbs"] and "/" not in kind and resource["namespaced"] == namespaced
            if not listed or kind in _PASSING or (not namespaced and kind in _OF_THE_CLUSTER):
                continue
            path = f"{group}/namespaces/{namespace}/{kind}" if namespaced else f"{group}/{kind}"
            for one in _listed(api, path):
                yield f"{kind}/{one['metadata']['name']}"


def _groups(api: KubernetesApi) -> list[str]:
    return ["/api/v1", *(f"/apis/{group['preferredVersion']['groupVersion']}" for group in api.get("/apis")["groups"])]


def _listed(api: KubernetesApi, path: str) -> list[Object]:
    try:
        return api.list(path)
    except httpx.HTTPStatusError as error:
        if error.response.status_code in (404, 405):  # a resource that can't be listed, whatever its discovery says
            return []
        raise
