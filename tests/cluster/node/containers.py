"""One container of a pod over all its lives: started, probed, started again, asked to go."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import signal
import time
from collections.abc import Awaitable, Callable

from cluster.node.client import Object
from cluster.node.probes import ProbeFailed, check, run_hook
from cluster.node.processes import ContainerProcess
from cluster.node.references import NotThere
from cluster.node.registration import now

logger = logging.getLogger(__name__)

_SHORTEST_PAUSE_S, _LONGEST_PAUSE_S = 1.0, 10.0  # a kubelet's are ten times as long
_STABLE_S = 60.0


class Container:
    """Keeps a container as its pod wants it and knows its status."""

    def __init__(
        self,
        spec: Object,
        *,
        policy: str,
        start: Callable[[Object], Awaitable[ContainerProcess]],
        address: str,
        grace_s: float,
        changed: Callable[[], None],
    ) -> None:
        self.spec = spec
        self.name: str = spec["name"]
        self.process: ContainerProcess | None = None
        self.ready = False
        self.started = False
        self.restarts = 0
        self.state: Object = {"waiting": {"reason": "ContainerCreating"}}
        self.code: int | None = None
        """Exit code of the container that is not started again."""
        self._last: Object = {}
        self._policy = policy
        self._start = start
        self._address = address
        self._grace_s = grace_s
        self._changed = changed
        self._ending = False

    def status(self) -> Object:
        running = {"containerID": f"process://{self.process.pid}"} if self.process is not None else {}
        return {
            "name": self.name,
            "image": self.spec["image"],
            "imageID": self.spec["image"],
            "ready": self.ready,
            "started": self.started,
            "restartCount": self.restarts,
            "state": self.state,
            "lastState": self._last,
            **running,
        }

    async def keep(self) -> int:
        """Runs it until it has ended for good; gives its exit code."""
        pause = _SHORTEST_PAUSE_S
        while True:
            began = time.monotonic()
            code = await self._run_once()
            if self._ending or self._policy == "Never" or (self._policy == "OnFailure" and code == 0):
                self.code = code
                self._changed()
                return code
            self._last = self.state
            self.restarts += 1
            pause = _SHORTEST_PAUSE_S if time.monotonic() - began > _STABLE_S else pause
            self._be({"waiting": {"reason": "CrashLoopBackOff", "message": f"exit code {code}"}})
            await asyncio.sleep(pause)
            pause = min(_LONGEST_PAUSE_S, pause * 2)

    async def end(self, deadline: float) -> bool:
        """Runs preStop, asks it to go, and kills it when `deadline` has passed. Gives whether it had to be killed."""
        self._ending = True
        process = self.process
        if process is None or process.ended.is_set():
            return False
        hook = self.spec.get("lifecycle", {}).get("preStop")
        if hook is not None:
            hooking = asyncio.create_task(run_hook(hook, self.spec, process, self._address, deadline - time.monotonic()))
            await asyncio.wait([hooking, asyncio.create_task(process.ended.wait())], return_when=asyncio.FIRST_COMPLETED)
            hooking.cancel()
        process.signal(signal.SIGTERM)
        try:
            await asyncio.wait_for(process.ended.wait(), max(0.0, deadline - time.monotonic()))
        except TimeoutError:
            process.signal(signal.SIGKILL)
            await process.ended.wait()
            return True
        return False

    async def _run_once(self) -> int:
        while True:
            try:
                self.process = await self._start(self.spec)
                break
            except NotThere as missing:
                self._be({"waiting": {"reason": "CreateContainerConfigError", "message": str(missing)}})
                await asyncio.sleep(1)
        process, began = self.process, now()
        self.started = "startupProbe" not in self.spec
        self.ready = self.started and "readinessProbe" not in self.spec
        self._be({"running": {"startedAt": began}})
        probing = asyncio.create_task(self._probe(process))
        await process.ended.wait()
        probing.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await probing
        assert process.code is not None
        code = process.code if process.code >= 0 else 128 - process.code
        self.process, self.ready, self.started = None, False, False
        ended = {"exitCode": code, "reason": "Completed" if code == 0 else "Error", "startedAt": began, "finishedAt": now()}
        self._be({"terminated": ended})
        return code

    async def _probe(self, process: ContainerProcess) -> None:
        startup = self.spec.get("startupProbe")
        if startup is not None and not await self._wait_until_started(startup, process):
            return
        self.started = True
        async with asyncio.TaskGroup() as group:
            if "readinessProbe" in self.spec:
                group.create_task(self._watch_readiness(self.spec["readinessProbe"], process))
            else:
                self._be_ready(True)
            if "livenessProbe" in self.spec:
                group.create_task(self._watch_liveness(self.spec["livenessProbe"], process))

    async def _wait_until_started(self, probe: Object, process: ContainerProcess) -> bool:
        await asyncio.sleep(probe.get("initialDelaySeconds", 0))
        for _ in range(probe.get("failureThreshold", 3)):
            try:
                await check(probe, self.spec, process, self._address)
                return True
            except ProbeFailed as why:
                logger.debug("%s has not started: %s", self.name, why)
            await asyncio.sleep(probe.get("periodSeconds", 10))
        await self._restart(process, "its startup probe failed")
        return False

    async def _watch_readiness(self, probe: Object, process: ContainerProcess) -> None:
        await asyncio.sleep(probe.get("initialDelaySeconds", 0))
        good = bad = 0
        while True:
            try:
                await check(probe, self.spec, process, self._address)
                good, bad = good + 1, 0
            except ProbeFailed as why:
                logger.debug("%s is not ready: %s", self.name, why)
                good, bad = 0, bad + 1
            if good >= probe.get("successThreshold", 1):
                self._be_ready(True)
            elif bad >= probe.get("failureThreshold", 3):
                self._be_ready(False)
            # A kubelet, too, asks more often until a container is ready.
            await asyncio.sleep(probe.get("periodSeconds", 10) if self.ready else min(1, probe.get("periodSeconds", 10)))

    async def _watch_liveness(self, probe: Object, process: ContainerProcess) -> None:
        await asyncio.sleep(probe.get("initialDelaySeconds", 0))
        bad = 0
        while not self._ending:
            try:
                await check(probe, self.spec, process, self._address)
                bad = 0
            except ProbeFailed as why:
                bad += 1
                if bad >= probe.get("failureThreshold", 3):
                    await self._restart(process, f"its liveness probe failed: {why}")
                    return
            await asyncio.sleep(probe.get("periodSeconds", 10))

    async def _restart(self, process: ContainerProcess, why: str) -> None:
        if self._ending:
            return
        logger.warning("%s is started again, as %s", self.name, why)
        process.signal(signal.SIGTERM)
        try:
            await asyncio.wait_for(process.ended.wait(), self._grace_s)
        except TimeoutError:
            process.signal(signal.SIGKILL)

    def _be_ready(self, ready: bool) -> None:
        if ready != self.ready:
            self.ready = ready
            self._changed()

    def _be(self, state: Object) -> None:
        self.state = state
        self._changed()
