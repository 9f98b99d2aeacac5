"""Names of services for the pods of the test node, as CoreDNS gives them.

`<service>.<namespace>.svc[.cluster.local]` gives the addresses of the pods that are ready, `<hostname>.<service>.…` that of one pod. That
is so for a ClusterIP service as well, since there is no kube-proxy here that would lead its address to them. All other names do not exist.
"""

from __future__ import annotations

import asyncio
import socket
import struct
from typing import Any

from cluster.node.client import Client, Object

_TTL_S = 1
_A, _IN = 1, 1
_NO_ERROR, _NO_SUCH_NAME = 0, 3
_ZONE = ".cluster.local"


class Names:
    """What every service name stands for now, from the API server's EndpointSlices."""

    def __init__(self) -> None:
        self._services: set[tuple[str, str]] = set()
        self._slices: dict[str, Object] = {}

    async def follow(self, client: Client) -> None:
        """Keeps itself up to date, for ever."""
        await asyncio.gather(self._follow_services(client), self._follow_slices(client))

    def lookup(self, name: str) -> list[str] | None:
        """The addresses, perhaps none; None where there is no such name."""
        labels = name.lower().rstrip(".").removesuffix(_ZONE).split(".")
        if labels[-1] != "svc" or len(labels) not in (3, 4):
            return None
        *host, service, namespace, _ = labels
        if (namespace, service) not in self._services:
            return None
        found = [
            address
            for one in self._slices.values()
            if (one["metadata"]["namespace"], one["metadata"].get("labels", {}).get("kubernetes.io/service-name")) == (namespace, service)
            for endpoint in one.get("endpoints") or []
            if endpoint.get("conditions", {}).get("ready", True) and (not host or endpoint.get("hostname") == host[0])
            for address in endpoint["addresses"]
        ]
        return None if host and not found else sorted(set(found))

    async def _follow_services(self, client: Client) -> None:
        async for kind, one in client.watch("/api/v1/services"):
            if kind == "SYNCED":
                continue
            key = (one["metadata"]["namespace"], one["metadata"]["name"])
            (self._services.discard if kind == "DELETED" else self._services.add)(key)

    async def _follow_slices(self, client: Client) -> None:
        async for kind, one in client.watch("/apis/discovery.k8s.io/v1/endpointslices"):
            if kind == "SYNCED":
                self._slices = {uid: kept for uid, kept in self._slices.items() if uid in one["present"]}
            elif kind == "DELETED":
                self._slices.pop(one["metadata"]["uid"], None)
            else:
                self._slices[one["metadata"]["uid"]] = one


class _Answers(asyncio.DatagramProtocol):
    def __init__(self, names: Names) -> None:
        self._names = names

    def connection_made(self, transport: Any) -> None:
        self._transport = transport

    def datagram_received(self, data: bytes, addr: Any) -> None:
        self._transport.sendto(answer(data, self._names), addr)


async def serve(names: Names, address: str) -> asyncio.DatagramTransport:
    """Answers on port 53 of the address."""
    transport, _ = await asyncio.get_running_loop().create_datagram_endpoint(lambda: _Answers(names), local_addr=(address, 53))
    return transport


def answer(query: bytes, names: Names) -> bytes:
    """The reply to a query of one question, as all resolvers send them."""
    ident, flags = struct.unpack("!HH", query[:4])
    labels, at = [], 12
    while query[at]:
        labels.append(query[at + 1 : at + 1 + query[at]].decode("ascii", "replace"))
        at += 1 + query[at]
    kind, family = struct.unpack("!HH", query[at + 1 : at + 5])
    found = names.lookup(".".join(labels))
    addresses = (found or []) if (kind, family) == (_A, _IN) else []
    code = _NO_SUCH_NAME if found is None else _NO_ERROR
    header = struct.pack("!HHHHHH", ident, 0x8400 | (flags & 0x0100) | 0x0080 | code, 1, len(addresses), 0, 0)
    records = [struct.pack("!HHHIH", 0xC00C, _A, _IN, _TTL_S, 4) + socket.inet_aton(one) for one in addresses]
    return header + query[12 : at + 5] + b"".join(records)
