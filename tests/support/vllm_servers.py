"""vLLM's pooling servers: the real program where it is installed, and a stand-in on loopback that speaks its wire.

What a stand-in scores is a function of the token ids, so that tests can foretell it, and every request is kept.
"""

import json
import math
import os
import shutil
import signal
import socket
import subprocess
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from support.generation_servers import Behaviour, _Handler, _serving

REPOSITORY = Path(__file__).parents[2]
SERVED_MODEL = "rm"
READY_SECONDS = 300


def score_of(ids: Sequence[int]) -> float:
    """What a stand-in gives: between -3 and 3, by every id and its place."""
    return 3 * math.sin(sum((place + 1) * token for place, token in enumerate(ids)))


@dataclass
class Vllm(Behaviour):
    """How a stand-in behaves."""

    serves: str = SERVED_MODEL
    max_model_len: int = 512
    healthy: bool = True
    """Whether /health says so; where it does not, nothing else is answered either."""
    failures: list[int] = field(default_factory=list)
    """Statuses of the first answers to /classify."""
    off_by: float = 0.0
    """Added to each score, as by another checkpoint."""
    knows_use_activation: bool = True
    """Releases that do not know the field put a sigmoid on, whatever they are told."""
    labels: int = 1
    holds: threading.Event | None = None
    """Answers to /classify wait for it."""
    api_key: str = ""
    at_once: int = 0
    """Tokens that are being scored."""
    most_at_once: int = 0
    lock: threading.Lock = field(default_factory=threading.Lock)

    def asked(self) -> list[list[list[int]]]:
        """Token ids of each request to /classify that wanted raw scores of other than probes."""
        return [body["input"] for body in self.bodies("/classify") if not body["use_activation"] and not _is_probe(body["input"])]


def _is_probe(sequences: list[list[int]]) -> bool:
    return len(sequences) == 4 and all(len(ids) == 24 for ids in sequences)


class _VllmHandler(_Handler):
    behaviour: Vllm
    text_paths = ()

    def get(self, path: str) -> tuple[int, Any]:
        vllm = self.behaviour
        if not vllm.healthy:
            return 503, {}
        if self._is_stranger():
            return 401, {"error": "Unauthorized"}
        if path == "/v1/models":
            return 200, {"object": "list", "data": [{"id": vllm.serves, "object": "model", "max_model_len": vllm.max_model_len}]}
        return (200, {"version": "0.32.0"}) if path == "/version" else (200, {}) if path == "/health" else (404, {})

    def post(self, path: str, body: dict[str, Any]) -> tuple[int, Any]:
        vllm = self.behaviour
        if not vllm.healthy:
            return 503, _error(503, "not now")
        if self._is_stranger():
            return 401, {"error": "Unauthorized"}
        if body["model"] != vllm.serves:
            return 404, _error(404, f"The model `{body['model']}` does not exist.")
        sequences = body["input"]
        tokens = sum(len(ids) for ids in sequences)
        if max(len(ids) for ids in sequences) > vllm.max_model_len:
            return 400, _error(400, f"This model's maximum context length is {vllm.max_model_len} tokens.")
        if not _is_probe(sequences):
            with vllm.lock:
                vllm.at_once += tokens
                vllm.most_at_once = max(vllm.most_at_once, vllm.at_once)
                failure = vllm.failures.pop(0) if vllm.failures else None
            if vllm.holds is not None:
                vllm.holds.wait(60)
            with vllm.lock:
                vllm.at_once -= tokens
            if failure is not None:
                return failure, _error(failure, "not now")
        active = body["use_activation"] or not vllm.knows_use_activation
        scores = [score_of(ids) + vllm.off_by for ids in sequences]
        data = [
            {
                "index": index,
                "label": "LABEL_0",
                "probs": [1 / (1 + math.exp(-score)) if active else score] * vllm.labels,
                "num_classes": vllm.labels,
            }
            for index, score in enumerate(scores)
        ]
        usage = {"prompt_tokens": tokens, "total_tokens": tokens, "completion_tokens": 0, "prompt_tokens_details": None}
        return 200, {"id": "classify-x", "object": "list", "created": 1, "model": vllm.serves, "data": data, "usage": usage}

    def _is_stranger(self) -> bool:
        key = self.behaviour.api_key
        return bool(key) and self.path != "/health" and self.headers.get("authorization") != f"Bearer {key}"


def _error(code: int, message: str) -> dict[str, Any]:
    return {"error": {"message": message, "type": "Error", "param": None, "code": code}}


def vllm_stand_in(behaviour: Vllm):
    """Serves while open; gives its address."""
    return _serving(_VllmHandler, behaviour)


def declared(folder: Path, checkpoint: Path, *servers: str, **fields: Any) -> Path:
    """Writes a folder that declares a model on servers; returns it."""
    folder.mkdir(parents=True, exist_ok=True)
    declaration = {"servers": servers, "served_model": SERVED_MODEL, "checkpoint": str(checkpoint), "dtype": "float32", **fields}
    (folder / "vllm_server.json").write_text(json.dumps(declaration))
    return folder


def vllm_program() -> str:
    """The real program, or a skip that says how to get it."""
    wanted = os.environ.get("ASSAY_VLLM", "")
    here = REPOSITORY / ".tools" / "vllm" / "bin" / "vllm"
    found = wanted or (str(here) if here.exists() else shutil.which("vllm"))
    if not found:
        pytest.skip("vLLM is not installed; `make vllm` does, or ASSAY_VLLM names its program")
    return found


class VllmProcess:
    """`vllm serve` on a CPU."""

    def __init__(self, checkpoint: Path, log: Path) -> None:
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            self.port = free.getsockname()[1]
        self.address = f"http://127.0.0.1:{self.port}"
        self._log = log
        options = ["--runner", "pooling", "--host", "127.0.0.1", "--port", str(self.port), "--dtype", "float32", "--enforce-eager"]
        environment = {
            **os.environ,
            "HF_HUB_OFFLINE": "1",
            "VLLM_NO_USAGE_STATS": "1",
            "DO_NOT_TRACK": "1",
            "VLLM_CPU_KVCACHE_SPACE": "1",
            "VLLM_CPU_OMP_THREADS_BIND": "nobind",
            "OMP_NUM_THREADS": "1",
            "OMP_WAIT_POLICY": "PASSIVE",
        }
        with log.open("wb") as out:
            self._process = subprocess.Popen(
                [vllm_program(), "serve", str(checkpoint), "--served-model-name", SERVED_MODEL, *options],
                env=environment,
                stdout=out,
                stderr=out,
                start_new_session=True,
            )

    def wait(self) -> None:
        """Until it is healthy."""
        until = time.monotonic() + READY_SECONDS
        while True:
            assert self._process.poll() is None and time.monotonic() < until, self._log.read_text()[-5000:]
            try:
                with urllib.request.urlopen(f"{self.address}/health", timeout=5):
                    return
            except (urllib.error.URLError, OSError):
                time.sleep(0.25)

    def kill(self) -> None:
        """Ends it and its workers at once."""
        if self._process.poll() is None:
            os.killpg(self._process.pid, signal.SIGKILL)
        self._process.wait()


@contextmanager
def vllm_serving(checkpoint: Path, logs: Path, count: int) -> Iterator[list[VllmProcess]]:
    """So many servers while open, unless they are killed before."""
    processes: list[VllmProcess] = []
    try:
        for number in range(count):
            processes.append(VllmProcess(checkpoint, logs / f"vllm-{number}.txt"))
        for process in processes:
            process.wait()
        yield processes
    finally:
        for process in processes:
            process.kill()
