"""The reward service for tests: in this process behind a real gRPC server, and requests to it."""

from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import grpc
from google.rpc import error_details_pb2
from grpc_status import rpc_status

from assay.common.v1 import common_pb2
from assay.reward.v1 import reward_pb2, reward_pb2_grpc
from assay_kit.server import running
from assay_reward.app import reward_app
from assay_reward.settings import RewardSettings

USER, ASSISTANT = common_pb2.ROLE_USER, common_pb2.ROLE_ASSISTANT


class RewardClient:
    """Both services over one channel."""

    def __init__(self, channel: grpc.aio.Channel, target: str = "") -> None:
        self.channel = channel
        self.target = target
        self.reward = reward_pb2_grpc.RewardServiceStub(channel)
        self.admin = reward_pb2_grpc.ModelAdminServiceStub(channel)

    async def load(self, name: str, folder: Path) -> reward_pb2.ModelInfo:
        response = await self.admin.LoadModel(reward_pb2.LoadModelRequest(name=name, uri=str(folder)))
        return response.model


@asynccontextmanager
async def reward_service(data_dir: Path, **settings: Any) -> AsyncIterator[RewardClient]:
    app = reward_app(RewardSettings(data_dir=data_dir, **settings))
    async with running(app) as target, grpc.aio.insecure_channel(target) as channel:
        yield RewardClient(channel, target)


def conversation(*turns: tuple[int, str]) -> common_pb2.Conversation:
    return common_pb2.Conversation(messages=[common_pb2.Message(role=role, content=content) for role, content in turns])


def group(texts: Sequence[str], question: str = "How do I bake bread?", **fields: Any) -> reward_pb2.ScoreGroupRequest:
    candidates = [reward_pb2.Candidate(id=f"c{index}", text=text) for index, text in enumerate(texts)]
    return reward_pb2.ScoreGroupRequest(conversation=conversation((USER, question)), candidates=candidates, **fields)


def item(text: str, question: str = "How do I bake bread?", id: str = "") -> reward_pb2.ScoreItem:
    return reward_pb2.ScoreItem(id=id, conversation=conversation((USER, question), (ASSISTANT, text)))


def selector(name: str, revision: str = "") -> common_pb2.ModelSelector:
    return common_pb2.ModelSelector(name=name, revision=revision)


def details(error: grpc.aio.AioRpcError) -> tuple[dict[str, str], float | None]:
    """Field violations by field, and the seconds of RetryInfo."""
    violations: dict[str, str] = {}
    retry: float | None = None
    status = rpc_status.from_call(error)
    for detail in status.details if status else ():
        bad, info = error_details_pb2.BadRequest(), error_details_pb2.RetryInfo()
        if detail.Unpack(bad):
            violations |= {violation.field: violation.description for violation in bad.field_violations}
        if detail.Unpack(info):
            retry = info.retry_delay.ToNanoseconds() / 1e9
    return violations, retry
