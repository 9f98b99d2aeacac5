"""The volumes of a pod as folders of this machine."""

from __future__ import annotations

import os
import shutil
from collections.abc import Mapping
from pathlib import Path

from cluster.node.client import Client, Object
from cluster.node.references import NotThere, config_map, field, secret


async def volumes_of(client: Client, pod: Object, folder: Path, *, address: str, node_address: str) -> dict[str, Path]:
    """The folder of each volume, by name. What is made for the pod lies under `folder`; ConfigMaps and Secrets are read once.

    Raises:
        NotThere: something that a volume is made of is missing, or a claim is not bound.
    """
    found = {}
    for volume in pod["spec"].get("volumes", []):
        name = volume["name"]
        if "persistentVolumeClaim" in volume:
            found[name] = await _claimed(client, pod["metadata"]["namespace"], volume["persistentVolumeClaim"]["claimName"])
            give(found[name], pod)
            continue
        found[name] = folder / name
        found[name].mkdir(parents=True, exist_ok=True)
        if "emptyDir" in volume:
            found[name].chmod(0o777)
        else:
            content = await _content(client, pod, volume, address=address, node_address=node_address)
            mode = _mode(volume)
            for path, data in content.items():
                _write(found[name] / path, data, mode)
        give(found[name], pod)
    return found


def give(folder: Path, pod: Object) -> None:
    """Lets the pod's fsGroup at a volume; without one it stays root's."""
    group = pod["spec"].get("securityContext", {}).get("fsGroup")
    if group is None:
        return
    for path in (folder, *folder.rglob("*")):
        if path.is_symlink():
            continue
        os.chown(path, -1, group)
        mode = path.stat().st_mode
        path.chmod(mode | 0o2070 if path.is_dir() else mode | (mode & 0o700) >> 3)


def remove(folder: Path) -> None:
    """Removes what was made for a pod."""
    shutil.rmtree(folder, ignore_errors=True)


async def _claimed(client: Client, namespace: str, name: str) -> Path:
    claim = await client.find(f"/api/v1/namespaces/{namespace}/persistentvolumeclaims/{name}")
    if claim is None or claim["status"].get("phase") != "Bound":
        raise NotThere(f"claim {name} is not bound")
    volume = await client.find(f"/api/v1/persistentvolumes/{claim['spec']['volumeName']}")
    if volume is None:
        raise NotThere(f"claim {name} has lost its volume")
    return Path(volume["spec"]["hostPath"]["path"])


async def _content(client: Client, pod: Object, volume: Object, *, address: str, node_address: str) -> dict[str, bytes]:
    if "projected" in volume:
        merged: dict[str, bytes] = {}
        for source in volume["projected"]["sources"]:
            merged |= await _content(client, pod, source, address=address, node_address=node_address)
        return merged
    namespace = pod["metadata"]["namespace"]
    if "downwardAPI" in volume:
        items = volume["downwardAPI"].get("items", [])
        paths = {item["path"]: item["fieldRef"]["fieldPath"] for item in items}
        return {at: field(pod, path, address=address, node_address=node_address).encode() for at, path in paths.items()}
    if "serviceAccountToken" in volume:
        return await _token(client, pod, volume["serviceAccountToken"])
    if "configMap" in volume:
        source = volume["configMap"]
        content = await config_map(client, namespace, source["name"], optional=source.get("optional", False))
    elif "secret" in volume:
        source = volume["secret"]
        name = source.get("secretName") or source["name"]
        content = await secret(client, namespace, name, optional=source.get("optional", False))
    else:
        raise ValueError(f"the test node knows no volume of this kind: {sorted(volume)}")
    return _chosen(content, source)


def _chosen(content: Mapping[str, bytes], source: Object) -> dict[str, bytes]:
    items = source.get("items")
    if items is None:
        return dict(content)
    missing = [item["key"] for item in items if item["key"] not in content]
    if missing and not source.get("optional", False):
        raise NotThere(f"no key {missing[0]}")
    return {item["path"]: content[item["key"]] for item in items if item["key"] in content}


async def _token(client: Client, pod: Object, source: Object) -> dict[str, bytes]:
    meta = pod["metadata"]
    account = pod["spec"].get("serviceAccountName", "default")
    bound = {"apiVersion": "v1", "kind": "Pod", "name": meta["name"], "uid": meta["uid"]}
    wanted = {"expirationSeconds": source.get("expirationSeconds", 3600), "boundObjectRef": bound}
    if source.get("audience"):
        wanted["audiences"] = [source["audience"]]
    request = {"apiVersion": "authentication.k8s.io/v1", "kind": "TokenRequest", "spec": wanted}
    answer = await client.create(f"/api/v1/namespaces/{meta['namespace']}/serviceaccounts/{account}/token", request)
    return {source["path"]: answer["status"]["token"].encode()}


def _mode(volume: Object) -> int:
    source = volume.get("secret") or volume.get("configMap") or volume.get("projected") or volume.get("downwardAPI") or {}
    return int(source.get("defaultMode", 0o644))


def _write(path: Path, data: bytes, mode: int) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(data)
    path.chmod(mode)
