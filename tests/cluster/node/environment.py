"""The environment of a container, as a kubelet puts it together."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence

from cluster.node.client import Client, Object
from cluster.node.references import NotThere, config_map, field, resource, secret


async def environment_of(
    client: Client, pod: Object, container: Object, *, services: Sequence[Object], address: str, node_address: str
) -> dict[str, str]:
    """All variables but those of the image. `services` are the links: the Services whose addresses the container is told.

    Raises:
        NotThere: a ConfigMap, a Secret or a key of one is missing.
    """
    namespace = pod["metadata"]["namespace"]
    found = {"HOSTNAME": pod["metadata"]["name"]}
    for service in services:
        found |= service_links(service)
    for source in container.get("envFrom", []):
        content = await _content(client, namespace, source)
        found |= {source.get("prefix", "") + key: text.decode() for key, text in content.items()}
    for variable in container.get("env", []):
        source = variable.get("valueFrom")
        if source is None:
            found[variable["name"]] = expanded(variable.get("value", ""), found)
        elif "fieldRef" in source:
            found[variable["name"]] = field(pod, source["fieldRef"]["fieldPath"], address=address, node_address=node_address)
        elif "resourceFieldRef" in source:
            found[variable["name"]] = resource(container, source["resourceFieldRef"])
        else:
            reference = source.get("configMapKeyRef") or source["secretKeyRef"]
            content = await _content(client, namespace, {kind.replace("Key", ""): one for kind, one in source.items()})
            if reference["key"] in content:
                found[variable["name"]] = content[reference["key"]].decode()
            elif not reference.get("optional", False):
                raise NotThere(f"{reference['name']} has no key {reference['key']}")
    return found


def expanded(text: str, variables: Mapping[str, str]) -> str:
    """`$(NAME)` becomes the variable where there is one; `$$(NAME)` stays `$(NAME)`."""

    def one(match: re.Match[str]) -> str:
        return match[0][1:] if match[0].startswith("$$") else variables.get(match[1], match[0])

    return re.sub(r"\$?\$\(([A-Za-z0-9_.-]+)\)", one, text)


def service_links(service: Object) -> dict[str, str]:
    """The variables that tell a container of a Service with an address, in the manner of Docker's links."""
    address = service["spec"].get("clusterIP", "None")
    if address in ("", "None") or not service["spec"].get("ports"):
        return {}
    name = service["metadata"]["name"].upper().replace("-", "_")
    ports = service["spec"]["ports"]
    first = ports[0]
    found = {f"{name}_SERVICE_HOST": address, f"{name}_SERVICE_PORT": str(first["port"])}
    found |= {f"{name}_SERVICE_PORT_{port['name'].upper().replace('-', '_')}": str(port["port"]) for port in ports if port.get("name")}
    found[f"{name}_PORT"] = f"tcp://{address}:{first['port']}"
    for port in ports:
        prefix = f"{name}_PORT_{port['port']}_TCP"
        found |= {prefix: f"tcp://{address}:{port['port']}", f"{prefix}_PROTO": "tcp"}
        found |= {f"{prefix}_PORT": str(port["port"]), f"{prefix}_ADDR": address}
    return found


async def _content(client: Client, namespace: str, source: Object) -> dict[str, bytes]:
    if "configMapRef" in source:
        reference = source["configMapRef"]
        return await config_map(client, namespace, reference["name"], optional=reference.get("optional", False))
    reference = source["secretRef"]
    return await secret(client, namespace, reference["name"], optional=reference.get("optional", False))
