"""The policy service in this process, behind real gRPC, and as a process of its own."""

import contextlib
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import grpc
from google.rpc import error_details_pb2
from grpc_status import rpc_status

from assay.common.v1 import common_pb2
from assay.policy.v1 import policy_pb2, policy_pb2_grpc
from assay_kit.server import running
from assay_policy.__main__ import app_of
from assay_policy.settings import PolicySettings

_LARGE = [("grpc.max_receive_message_length", 64 * 1024 * 1024), ("grpc.max_send_message_length", 64 * 1024 * 1024)]


@dataclass(frozen=True)
class Stubs:
    target: str
    policy: Any
    admin: Any


@contextlib.asynccontextmanager
async def policy_service(data_dir: Path, **settings: Any) -> AsyncIterator[Stubs]:
    async with (
        running(app_of(PolicySettings(data_dir=data_dir, drain_seconds=1, **settings))) as target,
        grpc.aio.insecure_channel(target, options=_LARGE) as channel,
    ):
        yield Stubs(target, policy_pb2_grpc.PolicyServiceStub(channel), policy_pb2_grpc.PolicyAdminServiceStub(channel))


@dataclass
class PolicyProcess:
    """`python -m assay_policy`, to be killed and started again."""

    data_dir: Path
    environment: dict[str, str]
    process: subprocess.Popen[bytes] | None = None

    def start(self) -> Stubs:
        endpoint = self.data_dir / "endpoint.json"
        endpoint.unlink(missing_ok=True)
        environment = {**os.environ, "OMP_NUM_THREADS": "1", "ASSAY_DATA_DIR": str(self.data_dir), **self.environment}
        with (self.data_dir / "log.txt").open("ab") as log:
            self.process = subprocess.Popen([sys.executable, "-m", "assay_policy"], env=environment, stdout=log, stderr=log)
        until = time.monotonic() + 180
        while not endpoint.exists():
            if self.process.poll() is not None or time.monotonic() > until:
                raise AssertionError((self.data_dir / "log.txt").read_text())
            time.sleep(0.05)
        channel = grpc.insecure_channel(json.loads(endpoint.read_text())["grpc"], options=_LARGE)
        grpc.channel_ready_future(channel).result(timeout=30)
        return Stubs("", policy_pb2_grpc.PolicyServiceStub(channel), policy_pb2_grpc.PolicyAdminServiceStub(channel))

    def kill(self) -> None:
        if self.process is not None and self.process.poll() is None:
            self.process.send_signal(signal.SIGKILL)
            self.process.wait()


@contextlib.contextmanager
def policy_process(data_dir: Path, **environment: str) -> Iterator[PolicyProcess]:
    data_dir.mkdir(parents=True, exist_ok=True)
    process = PolicyProcess(data_dir, environment)
    try:
        yield process
    finally:
        process.kill()


def prompt(text: str, prompt_id: str = "") -> policy_pb2.Prompt:
    message = common_pb2.Message(role=common_pb2.ROLE_USER, content=text)
    return policy_pb2.Prompt(id=prompt_id, conversation=common_pb2.Conversation(messages=[message]))


def generate_request(*texts: str, n: int = 1, model: str = "", request_id: str = "", **sampling: Any) -> policy_pb2.GenerateRequest:
    return policy_pb2.GenerateRequest(
        model=common_pb2.ModelSelector(name=model),
        prompts=[prompt(text, f"p{index}") for index, text in enumerate(texts)],
        n=n,
        sampling=policy_pb2.SamplingOptions(**sampling),
        request_id=request_id,
    )


def violations(error: grpc.RpcError) -> dict[str, str]:
    """Field violations of an INVALID_ARGUMENT."""
    status = rpc_status.from_call(error)
    assert status is not None
    found: dict[str, str] = {}
    for detail in status.details:
        bad = error_details_pb2.BadRequest()
        if detail.Unpack(bad):
            found |= {violation.field: violation.description for violation in bad.field_violations}
    return found
