"""The test node: sees pods that are bound to it, and runs each until it is gone."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Sequence
from pathlib import Path

from cluster.node.client import Client, Object
from cluster.node.dns import Names, serve
from cluster.node.network import PodNetwork
from cluster.node.pods import Host, Pod
from cluster.node.registration import keep_registered

logger = logging.getLogger(__name__)


class Agent:
    """One node with its pods."""

    def __init__(self, client: Client, *, name: str, network: PodNetwork, folder: Path) -> None:
        self._client = client
        self._name = name
        self._network = network
        self._services: dict[str, Object] = {}
        self._pods: dict[str, tuple[Pod, asyncio.Task[None]]] = {}
        self._host = Host(client=client, network=network, folder=folder, linked_services=self._linked_services)

    async def run(self) -> None:
        """Runs for ever."""
        names = Names()
        await serve(names, self._network.address)
        async with asyncio.TaskGroup() as group:
            group.create_task(names.follow(self._client))
            group.create_task(self._follow_services())
            group.create_task(keep_registered(self._client, self._name, self._network.address))
            group.create_task(self._follow_pods())

    async def _follow_services(self) -> None:
        async for kind, one in self._client.watch("/api/v1/services"):
            if kind == "DELETED":
                self._services.pop(one["metadata"]["uid"], None)
            elif kind != "SYNCED":
                self._services[one["metadata"]["uid"]] = one

    def _linked_services(self, namespace: str) -> Sequence[Object]:
        return [one for one in self._services.values() if one["metadata"]["namespace"] == namespace]

    async def _follow_pods(self) -> None:
        async for kind, one in self._client.watch("/api/v1/pods", fieldSelector=f"spec.nodeName={self._name}"):
            if kind == "SYNCED":
                for uid in self._pods.keys() - one["present"]:
                    self._pods[uid][1].cancel()
                continue
            uid = one["metadata"]["uid"]
            if kind == "DELETED":
                if uid in self._pods:
                    self._pods[uid][1].cancel()
            elif uid in self._pods:
                self._pods[uid][0].see(one)
            elif one["status"].get("phase") not in ("Succeeded", "Failed") or "deletionTimestamp" in one["metadata"]:
                pod = Pod(self._host, one)
                task = asyncio.create_task(self._run(pod, one["metadata"]["name"]))
                task.add_done_callback(lambda _, uid=uid: self._pods.pop(uid, None))
                self._pods[uid] = (pod, task)

    async def _run(self, pod: Pod, name: str) -> None:
        try:
            await pod.run()
        except Exception:
            logger.exception("pod %s could not be run to its end", name)
