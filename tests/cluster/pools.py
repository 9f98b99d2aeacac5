"""Node pools that KWOK plays: one without GPUs and two with, labelled and tainted as the GPU operator and cloud providers do it."""

from __future__ import annotations

from dataclasses import dataclass, field

from cluster.kubernetes_api import KubernetesApi, Object, condition, until

POOL = "assay/pool"
_GPU_TAINT = {"key": "nvidia.com/gpu", "value": "present", "effect": "NoSchedule"}


@dataclass(frozen=True, kw_only=True)
class Pool:
    """Nodes of one kind."""

    name: str
    nodes: int
    labels: dict[str, str] = field(default_factory=dict)
    devices: int = 0
    """GPUs of each node, or parts of one: offered by the device plugin and, for dynamic resource allocation, by the driver."""
    memory: str = ""
    """Memory of each."""
    taints: tuple[dict[str, str], ...] = ()


POOLS = (
    Pool(name="cpu", nodes=3),
    Pool(
        name="gpu",
        nodes=2,
        labels={"nvidia.com/gpu.present": "true", "nvidia.com/gpu.product": "NVIDIA-H100-80GB-HBM3", "nvidia.com/gpu.count": "8"},
        devices=8,
        memory="80Gi",
        taints=(_GPU_TAINT,),
    ),
    Pool(
        name="mig",
        nodes=1,
        labels={
            "nvidia.com/gpu.present": "true",
            "nvidia.com/gpu.product": "NVIDIA-A100-SXM4-80GB-MIG-1g.10gb",
            "nvidia.com/mig.config": "all-1g.10gb",
            "nvidia.com/mig.strategy": "single",
        },
        devices=7,
        memory="10Gi",
        taints=(_GPU_TAINT,),
    ),
)


def add_pools(api: KubernetesApi) -> None:
    """Adds the nodes of all pools and waits until they are ready."""
    for pool in POOLS:
        for number in range(pool.nodes):
            api.create("/api/v1/nodes", _node(pool, number))
            if pool.devices:
                api.create("/apis/resource.k8s.io/v1/resourceslices", _slice(pool, _name(pool, number)))
    api.create("/apis/resource.k8s.io/v1/deviceclasses", _DEVICE_CLASS)
    wanted = sum(pool.nodes for pool in POOLS)

    def ready() -> bool:
        nodes = api.list("/api/v1/nodes", labelSelector=POOL)
        usable = [node for node in nodes if condition(node, "Ready") == "True" and not _unready(node)]
        return len(usable) == wanted

    until("nodes of all pools are ready", ready)


def pool_of_nodes(api: KubernetesApi) -> dict[str, str]:
    """The pool of each node, by name."""
    return {node["metadata"]["name"]: node["metadata"]["labels"].get(POOL, "") for node in api.list("/api/v1/nodes")}


_DEVICE_CLASS: Object = {
    "apiVersion": "resource.k8s.io/v1",
    "kind": "DeviceClass",
    "metadata": {"name": "gpu.nvidia.com"},
    "spec": {"selectors": [{"cel": {"expression": "device.driver == 'gpu.nvidia.com'"}}]},
}


def _unready(node: Object) -> bool:
    return any(taint["key"].startswith("node.kubernetes.io/") for taint in node["spec"].get("taints", []))


def _name(pool: Pool, number: int) -> str:
    return f"{pool.name}-{number}"


def _node(pool: Pool, number: int) -> Object:
    name = _name(pool, number)
    room = {"cpu": "64", "memory": "512Gi", "ephemeral-storage": "1Ti", "pods": "110"}
    if pool.devices:
        room["nvidia.com/gpu"] = str(pool.devices)
    labels = {
        POOL: pool.name,
        "kubernetes.io/hostname": name,
        "kubernetes.io/os": "linux",
        "kubernetes.io/arch": "amd64",
        "topology.kubernetes.io/region": "test",
        "topology.kubernetes.io/zone": f"test-{'abc'[number % 3]}",
        **pool.labels,
    }
    return {
        "apiVersion": "v1",
        "kind": "Node",
        "metadata": {"name": name, "labels": labels, "annotations": {"kwok.x-k8s.io/node": "fake"}},
        "spec": {"taints": list(pool.taints)},
        "status": {"capacity": room, "allocatable": room, "nodeInfo": {"kubeletVersion": "v1.36.3", "operatingSystem": "linux"}},
    }


def _slice(pool: Pool, node: str) -> Object:
    """What the DRA driver of a node says it has."""
    return {
        "apiVersion": "resource.k8s.io/v1",
        "kind": "ResourceSlice",
        "metadata": {"name": f"{node}-gpu.nvidia.com"},
        "spec": {
            "driver": "gpu.nvidia.com",
            "nodeName": node,
            "pool": {"name": node, "generation": 1, "resourceSliceCount": 1},
            "devices": [
                {
                    "name": f"gpu-{number}",
                    "attributes": {"productName": {"string": pool.labels["nvidia.com/gpu.product"]}, "type": {"string": "gpu"}},
                    "capacity": {"memory": {"value": pool.memory}},
                }
                for number in range(pool.devices)
            ],
        },
    }
