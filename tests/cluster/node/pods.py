"""A pod on the test node, from its first status to its removal."""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from cluster.node.client import Client, Object
from cluster.node.containers import Container
from cluster.node.environment import environment_of, expanded
from cluster.node.network import PodNetwork
from cluster.node.processes import ContainerProcess, Launch, Mount, Sandbox
from cluster.node.references import NotThere
from cluster.node.registration import now
from cluster.node.volumes import remove, volumes_of

logger = logging.getLogger(__name__)

_PATH = f"{Path(sys.prefix) / 'bin'}:/usr/local/bin:/usr/bin:/bin"


@dataclass(frozen=True, kw_only=True)
class Host:
    """What the pods of a node share."""

    client: Client
    network: PodNetwork
    folder: Path
    """For volumes and logs."""
    linked_services: Callable[[str], Sequence[Object]]
    """The services whose addresses a container in that namespace is told."""


class Pod:
    """Runs one pod; `see` tells it of each change, `run` returns when it is gone."""

    def __init__(self, host: Host, pod: Object) -> None:
        self._host = host
        self._pod = pod
        self._meta = pod["metadata"]
        self._spec = pod["spec"]
        self._path = f"/api/v1/namespaces/{self._meta['namespace']}/pods/{self._meta['name']}"
        self._folder = host.folder / "pods" / self._meta["uid"]
        self._asked_to_go = asyncio.Event()
        self._changed = asyncio.Event()
        self._inits: list[Container] = []
        self._containers: list[Container] = []
        self._sandbox: Sandbox | None = None
        self._address = ""
        self._volumes: dict[str, Path] = {}
        self._phase = "Pending"
        self._initialized = False
        self._since: dict[tuple[str, str], str] = {}
        self._began = now()
        self.see(pod)

    def see(self, pod: Object) -> None:
        self._pod = pod
        if "deletionTimestamp" in pod["metadata"]:
            self._asked_to_go.set()

    async def run(self) -> None:
        reporting = asyncio.create_task(self._report_changes())
        living = asyncio.create_task(self._live())
        going = asyncio.create_task(self._asked_to_go.wait())
        try:
            await asyncio.wait([living, going], return_when=asyncio.FIRST_COMPLETED)
            if living.done():
                living.result()
            await going
            await self._end(living)
        finally:
            for task in (living, going, reporting):
                task.cancel()
            await asyncio.gather(living, going, reporting, return_exceptions=True)
            if self._sandbox is not None:
                await self._sandbox.close()
            if self._address:
                self._host.network.release(self._address)
            remove(self._folder)
        with contextlib.suppress(Exception):
            await self._host.client.patch(f"{self._path}/status", {"status": self._status()})
        await self._host.client.delete_now(self._path, self._meta["uid"])

    async def _live(self) -> None:
        """Sandbox, volumes, init containers, containers; returns when all have ended for good."""
        self._folder.mkdir(parents=True)
        self._sandbox = await Sandbox.open(self._spec.get("hostname") or self._meta["name"])
        self._address = await self._host.network.connect(self._sandbox.pid)
        policy = self._spec.get("restartPolicy", "Always")
        for spec in self._spec.get("initContainers", []):
            self._inits.append(self._container(spec, "Never" if policy == "Never" else "OnFailure"))
        self._containers = [self._container(spec, policy) for spec in self._spec["containers"]]
        self._changed.set()
        self._volumes = await self._make_volumes()
        for init in self._inits:
            if await init.keep() != 0:
                self._be("Failed")
                return
        self._initialized = True
        self._be("Running")
        codes = await asyncio.gather(*(container.keep() for container in self._containers))
        if not self._asked_to_go.is_set():
            self._be("Failed" if any(codes) else "Succeeded")

    def _container(self, spec: Object, policy: str) -> Container:
        return Container(spec, policy=policy, start=self._start, address=self._address, grace_s=self._grace_s, changed=self._changed.set)

    @property
    def _grace_s(self) -> float:
        meta = self._pod["metadata"]
        return float(meta.get("deletionGracePeriodSeconds", self._spec.get("terminationGracePeriodSeconds", 30)))

    async def _end(self, living: asyncio.Task[None]) -> None:
        began = time.monotonic()
        grace = self._grace_s
        running = [one for one in (*self._inits, *self._containers) if one.process is not None]
        killed = await asyncio.gather(*(one.end(began + grace) for one in running))
        if running:  # so that their last states are known
            await asyncio.wait([living], timeout=5)
        self._note(
            {
                "pod": self._meta["name"],
                "namespace": self._meta["namespace"],
                "seconds": round(time.monotonic() - began, 2),
                "grace": grace,
                "killed": [one.name for one, dead in zip(running, killed, strict=True) if dead],
                "codes": {one.name: one.code for one in running},
            }
        )

    def _note(self, line: Object) -> None:
        with (self._host.folder / "ends.jsonl").open("a") as file:
            file.write(json.dumps(line) + "\n")

    async def _make_volumes(self) -> dict[str, Path]:
        while True:
            try:
                return await volumes_of(
                    self._host.client,
                    self._pod,
                    self._folder / "volumes",
                    address=self._address,
                    node_address=self._host.network.address,
                )
            except NotThere as missing:
                logger.info("%s waits: %s", self._meta["name"], missing)
                await asyncio.sleep(0.5)

    async def _start(self, spec: Object) -> ContainerProcess:
        namespace = self._meta["namespace"]
        links = self._host.linked_services(namespace) if self._spec.get("enableServiceLinks", True) else []
        environment = {"PATH": _PATH, "HOME": "/"} | await environment_of(
            self._host.client, self._pod, spec, services=links, address=self._address, node_address=self._host.network.address
        )
        command = [expanded(word, environment) for word in (*spec.get("command", []), *spec.get("args", []))]
        assert command, f"container {spec['name']} names no command, and its image is not looked at here"
        pod_security, own_security = self._spec.get("securityContext", {}), spec.get("securityContext", {})
        user = own_security.get("runAsUser", pod_security.get("runAsUser", 0))
        group = own_security.get("runAsGroup", pod_security.get("runAsGroup", 0))
        groups = [*pod_security.get("supplementalGroups", []), *([pod_security["fsGroup"]] if "fsGroup" in pod_security else [])]
        launch = Launch(
            command=command,
            environment=environment,
            folder=spec.get("workingDir", ""),
            user=user,
            group=group,
            groups=groups,
            read_only=own_security.get("readOnlyRootFilesystem", False),
            mounts=[self._mount(one) for one in spec.get("volumeMounts", [])],
            files=self._files(user, group),
        )
        assert self._sandbox is not None
        logs = self._host.folder / "logs"
        logs.mkdir(exist_ok=True)
        return await ContainerProcess.start(self._sandbox, launch, log=logs / f"{namespace}_{self._meta['name']}_{spec['name']}.log")

    def _mount(self, wanted: Object) -> Mount:
        source = self._volumes[wanted["name"]]
        if "subPath" in wanted:
            source = source / wanted["subPath"]
            if not source.exists():
                source.mkdir(parents=True)
                source.chmod(0o2777)
        return Mount(source=source, path=wanted["mountPath"], read_only=wanted.get("readOnly", False))

    def _files(self, user: int, group: int) -> dict[str, str]:
        namespace, name = self._meta["namespace"], self._spec.get("hostname") or self._meta["name"]
        searched = f"{namespace}.svc.cluster.local svc.cluster.local cluster.local"
        resolver = f"nameserver {self._host.network.address}\nsearch {searched}\noptions ndots:5 timeout:1\n"
        return {
            "/etc/resolv.conf": resolver,
            "/etc/hosts": f"127.0.0.1 localhost\n{self._address} {name}\n",
            "/etc/hostname": f"{name}\n",
            # The image's user, as its Dockerfile makes it.
            "/etc/passwd": f"root:x:0:0:root:/root:/bin/sh\nassay:x:{user}:{group}::/:/bin/sh\n",
        }

    def _be(self, phase: str) -> None:
        self._phase = phase
        self._changed.set()

    async def _report_changes(self) -> None:
        while True:
            await self._changed.wait()
            self._changed.clear()
            if await self._host.client.patch(f"{self._path}/status", {"status": self._status()}) is None:
                return

    def _status(self) -> Object:
        ready = self._phase == "Running" and all(one.ready for one in self._containers)
        own = {"Initialized": self._initialized, "ContainersReady": ready, "Ready": ready, "PodReadyToStartContainers": bool(self._address)}
        of_others = [one for one in self._pod.get("status", {}).get("conditions", []) if one["type"] not in own]
        return {
            "phase": self._phase,
            "conditions": of_others + [self._condition(kind, met) for kind, met in own.items()],
            "startTime": self._began,
            "hostIP": self._host.network.address,
            **({"podIP": self._address, "podIPs": [{"ip": self._address}]} if self._address else {}),
            "initContainerStatuses": [one.status() for one in self._inits],
            "containerStatuses": [one.status() for one in self._containers],
        }

    def _condition(self, kind: str, met: bool) -> Object:
        status = "True" if met else "False"
        return {"type": kind, "status": status, "lastTransitionTime": self._since.setdefault((kind, status), now())}
