"""The test node as the cluster knows it: a Node that says it is ready, and a Lease that says it lives."""

from __future__ import annotations

import asyncio
import datetime

from cluster.node.client import Client, Object

REAL = "assay.test/real"
"""Label and taint of nodes whose pods are real processes: only pods that ask for it land there."""
_BEAT_S = 5.0
_LEASES = "/apis/coordination.k8s.io/v1/namespaces/kube-node-lease/leases"


def now() -> str:
    return datetime.datetime.now(datetime.UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


async def keep_registered(client: Client, name: str, address: str) -> None:
    """Registers the node and then says for ever that it lives."""
    node = await client.create("/api/v1/nodes", _node(name, address))
    owner = {"apiVersion": "v1", "kind": "Node", "name": name, "uid": node["metadata"]["uid"]}
    lease = {
        "apiVersion": "coordination.k8s.io/v1",
        "kind": "Lease",
        "metadata": {"name": name, "ownerReferences": [owner]},
        "spec": {"holderIdentity": name, "leaseDurationSeconds": 40, "renewTime": _precise_now()},
    }
    await client.create(_LEASES, lease)
    while True:
        await client.patch(f"/api/v1/nodes/{name}/status", {"status": {"conditions": _conditions(node)}})
        await client.patch(f"{_LEASES}/{name}", {"spec": {"renewTime": _precise_now()}})
        await asyncio.sleep(_BEAT_S)


def _precise_now() -> str:
    return datetime.datetime.now(datetime.UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ")


def _conditions(node: Object) -> list[Object]:
    healthy = {"MemoryPressure": "False", "DiskPressure": "False", "PIDPressure": "False", "Ready": "True"}
    since = node["metadata"]["creationTimestamp"]
    return [
        {"type": kind, "status": status, "reason": "TestNode", "lastHeartbeatTime": now(), "lastTransitionTime": since}
        for kind, status in healthy.items()
    ]


def _node(name: str, address: str) -> Object:
    room = {"cpu": "64", "memory": "256Gi", "ephemeral-storage": "1Ti", "pods": "110"}
    labels = {"kubernetes.io/hostname": name, "kubernetes.io/os": "linux", "kubernetes.io/arch": "amd64", REAL: "true"}
    return {
        "apiVersion": "v1",
        "kind": "Node",
        "metadata": {"name": name, "labels": labels},
        "spec": {"taints": [{"key": REAL, "value": "true", "effect": "NoSchedule"}]},
        "status": {
            "capacity": room,
            "allocatable": room,
            "addresses": [{"type": "InternalIP", "address": address}, {"type": "Hostname", "address": name}],
            "nodeInfo": {"kubeletVersion": "v1.36.3", "operatingSystem": "linux"},
        },
    }
