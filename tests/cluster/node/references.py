"""What pod specs point at: ConfigMaps, Secrets, the pod's own fields; and quantities."""

from __future__ import annotations

import base64
import math
import re
from typing import Any

from cluster.node.client import Client, Object

_SUFFIXES = {"m": 1e-3, "k": 1e3, "M": 1e6, "G": 1e9, "T": 1e12, "Ki": 2**10, "Mi": 2**20, "Gi": 2**30, "Ti": 2**40}


class NotThere(Exception):
    """Something that the pod needs does not exist yet; a kubelet tries again."""


async def config_map(client: Client, namespace: str, name: str, *, optional: bool) -> dict[str, bytes]:
    """The content of a ConfigMap by key."""
    found = await _find(client, f"/api/v1/namespaces/{namespace}/configmaps/{name}", optional=optional)
    texts = {key: text.encode() for key, text in (found.get("data") or {}).items()}
    return texts | {key: base64.b64decode(text) for key, text in (found.get("binaryData") or {}).items()}


async def secret(client: Client, namespace: str, name: str, *, optional: bool) -> dict[str, bytes]:
    """The content of a Secret by key."""
    found = await _find(client, f"/api/v1/namespaces/{namespace}/secrets/{name}", optional=optional)
    return {key: base64.b64decode(text) for key, text in (found.get("data") or {}).items()}


async def _find(client: Client, path: str, *, optional: bool) -> Object:
    found = await client.find(path)
    if found is None and not optional:
        raise NotThere(f"{path} does not exist")
    return found or {}


def field(pod: Object, path: str, *, address: str, node_address: str) -> str:
    """A field of the downward API."""
    meta, spec = pod["metadata"], pod["spec"]
    keyed = re.fullmatch(r"metadata\.(labels|annotations)\['(.+)'\]", path)
    if keyed:
        return str(meta.get(keyed[1], {}).get(keyed[2], ""))
    if path in ("metadata.labels", "metadata.annotations"):
        return "".join(f'{key}="{text}"\n' for key, text in sorted(meta.get(path.partition(".")[2], {}).items()))
    known: dict[str, Any] = {
        "metadata.name": meta["name"],
        "metadata.namespace": meta["namespace"],
        "metadata.uid": meta["uid"],
        "spec.nodeName": spec["nodeName"],
        "spec.serviceAccountName": spec.get("serviceAccountName", "default"),
        "status.podIP": address,
        "status.podIPs": address,
        "status.hostIP": node_address,
    }
    return str(known[path])


def resource(container: Object, reference: Object) -> str:
    """A resource of the container, in the unit that is asked for, rounded up."""
    kind, _, name = reference["resource"].partition(".")
    amount = quantity(container.get("resources", {}).get(kind, {})[name])
    unit = quantity(reference.get("divisor", "0")) or 1.0
    return str(math.ceil(amount / unit))


def quantity(text: str) -> float:
    """The number that a quantity such as "250m" or "2Gi" stands for."""
    number, suffix = re.fullmatch(r"([0-9.]+(?:e[0-9]+)?)([A-Za-z]*)", str(text)).groups()  # type: ignore[union-attr]
    return float(number) * (_SUFFIXES[suffix] if suffix else 1)
