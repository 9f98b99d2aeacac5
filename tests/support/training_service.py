"""The training service for tests, and a reward service with quality cards beside it, both behind real gRPC servers."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import grpc

from assay.common.v1 import common_pb2
from assay.jobs.v1 import jobs_pb2, jobs_pb2_grpc
from assay.reward.v1 import reward_pb2, reward_pb2_grpc
from assay.training.v1 import training_pb2, training_pb2_grpc
from assay_kit.kafka import Record
from assay_kit.server import running
from assay_reward.app import reward_app
from assay_reward.settings import RewardSettings
from assay_training.__main__ import app_of
from assay_training.settings import TrainingSettings


@dataclass
class Rewards:
    """A reward service."""

    target: str
    cards: Any
    stub: Any
    admin: Any

    async def load(self, name: str, folder: Path) -> reward_pb2.ModelInfo:
        response = await self.admin.LoadModel(reward_pb2.LoadModelRequest(name=name, uri=str(folder)))
        return response.model

    def give_card(self, fingerprint: str, *, low: float, mean: float = 0.0, std: float = 1.0) -> None:
        """Hands the service a card as its follower of the topic would."""
        accuracy = common_pb2.Estimate(value=low + 0.05, low=low, high=low + 0.1, n=400)
        card = common_pb2.QualityCard(fingerprint=fingerprint, accuracy=accuracy, mean=mean, std=std, temperature=1.0)
        self.cards.take(Record(topic="cards", partition=0, offset=0, key=fingerprint.encode(), message=card, headers={}))


@asynccontextmanager
async def rewards(data_dir: Path) -> AsyncIterator[Rewards]:
    app = reward_app(RewardSettings(data_dir=data_dir, drain_seconds=1))
    async with running(app) as target, grpc.aio.insecure_channel(target) as channel:
        yield Rewards(
            target=target,
            cards=app.doors[0].servicer._cards,
            stub=reward_pb2_grpc.RewardServiceStub(channel),
            admin=reward_pb2_grpc.ModelAdminServiceStub(channel),
        )


class Training:
    """The services of a training server over one channel."""

    def __init__(self, channel: grpc.aio.Channel) -> None:
        self.stub = training_pb2_grpc.TrainingServiceStub(channel)
        self.jobs = jobs_pb2_grpc.JobServiceStub(channel)

    async def create(self, **fields: Any) -> jobs_pb2.Job:
        response = await self.stub.CreateTrainingJob(training_pb2.CreateTrainingJobRequest(**fields), timeout=30)
        return response.job

    async def follow(self, job_id: str) -> AsyncIterator[jobs_pb2.WatchJobResponse]:
        async for answer in self.jobs.WatchJob(jobs_pb2.WatchJobRequest(id=job_id), timeout=250):
            yield answer

    async def ended(self, job_id: str) -> tuple[list[jobs_pb2.JobEvent], jobs_pb2.Job]:
        """All events of a job, and the job as it ended."""
        answers = [answer async for answer in self.follow(job_id)]
        return [answer.event for answer in answers[:-1]], answers[-1].job


@asynccontextmanager
async def training_service(data_dir: Path, **settings: Any) -> AsyncIterator[Training]:
    app = app_of(TrainingSettings(data_dir=data_dir, drain_seconds=5, **settings))
    async with running(app) as target, grpc.aio.insecure_channel(target) as channel:
        yield Training(channel)
