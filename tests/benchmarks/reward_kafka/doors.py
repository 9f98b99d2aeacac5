"""Both doors, driven and timed alike: by when each answer came, those of the beginning left out."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from dataclasses import dataclass, field

import grpc
import numpy as np
from benchmarks.reward_kafka.requests import Requests
from kafka.structs import TopicPartition

from assay.reward.v1 import reward_pb2, reward_pb2_grpc
from assay_kit.kafka import EventProducer, KafkaConnection, end_offsets
from assay_kit.topics import REWARDS_REQUESTED, REWARDS_SCORED

_WARM_UP = 0.05
_CALL_SECONDS = 600.0
IN_FLIGHT = 64
"""gRPC calls under way at a time."""
_SILENCE_SECONDS = 120.0
_FLUSH_EVERY = 5_000


class Lost(RuntimeError):
    """Answers do not come, or came twice."""


@dataclass(kw_only=True)
class Answers:
    """What came back, and when."""

    count: int
    scores: dict[int, list[float]] = field(default_factory=dict)
    times: list[float] = field(default_factory=list)
    twice: int = 0

    def take(self, number: int, scores: list[float]) -> None:
        """One answer."""
        if number in self.scores:
            self.twice += 1
            return
        self.scores[number] = scores
        self.times.append(time.perf_counter())

    @property
    def complete(self) -> bool:
        """Whether all are there."""
        return len(self.scores) == self.count

    def candidates_per_second(self) -> float:
        """Between the answer that ends the warm-up and the last."""
        first = int(len(self.times) * _WARM_UP)
        late = sorted(self.times)
        # Answers come in transactions: those of one moment with the first are not part of what came after it.
        after = int(np.searchsorted(late, late[first], side="right"))
        group = sum(map(len, self.scores.values())) / len(self.scores)
        return float((len(late) - after) * group / (late[-1] - late[first]))

    def largest_difference(self, other: Answers) -> float:
        """Of any score from the other door's, relative to the larger of score and spread."""
        ours = np.concatenate([self.scores[number] for number in range(self.count)])
        theirs = np.concatenate([other.scores[number] for number in range(self.count)])
        return float(np.max(np.abs(ours - theirs) / np.maximum(np.abs(theirs), np.std(theirs))))


def publish(connection: KafkaConnection, requests: Requests) -> None:
    """Queues all requests; returns when the broker has them."""
    producer = EventProducer(connection, "benchmark")
    try:
        for number, request in enumerate(requests):
            producer.send(REWARDS_REQUESTED, request.request_id, request)
            if number % _FLUSH_EVERY == _FLUSH_EVERY - 1:
                producer.flush(120)
        producer.flush(120)
    finally:
        producer.close()


class Reader:
    """Reads the answers of a run as anyone downstream does: committed ones alone."""

    def __init__(self, connection: KafkaConnection) -> None:
        """Stands at the end of the topic as it is."""
        self._consumer = connection.consumer(client_id="benchmark-reader")
        ends = {TopicPartition(REWARDS_SCORED.name, number): offset for number, offset in end_offsets(connection, REWARDS_SCORED).items()}
        self._consumer.assign(list(ends))
        for partition, offset in ends.items():
            self._consumer.seek(partition, offset)

    def read(self, requests: Requests) -> Answers:
        """Waits for all answers.

        Raises:
            Lost: none came for two minutes, or one came twice.
        """
        answers = Answers(count=requests.count)
        until = time.monotonic() + _SILENCE_SECONDS
        while not answers.complete:
            if time.monotonic() > until:
                raise Lost(f"{len(answers.scores)} of {requests.count} requests are answered, and nothing came for {_SILENCE_SECONDS:g} s")
            for records in self._consumer.poll(timeout_ms=200).values():
                for record in records:
                    until = time.monotonic() + _SILENCE_SECONDS
                    reply = reward_pb2.ScoreGroupResponse.FromString(record.value)
                    number = requests.number(reply.request_id)
                    if number is not None:
                        answers.take(number, [score.raw for score in reply.scores])
        self._consumer.poll(timeout_ms=1000)
        if answers.twice:
            raise Lost(f"{answers.twice} answers came twice")
        return answers

    def close(self) -> None:
        """Disconnects."""
        self._consumer.close()


async def call(target: str, requests: Requests) -> Answers:
    """The same messages as calls of `ScoreGroup`, `IN_FLIGHT` at a time."""
    answers = Answers(count=requests.count)
    waiting = iter(enumerate(requests))
    async with grpc.aio.insecure_channel(target) as channel:
        stub = reward_pb2_grpc.RewardServiceStub(channel)

        async def caller() -> None:
            for number, request in waiting:
                reply = await stub.ScoreGroup(request, timeout=_CALL_SECONDS)
                answers.take(number, [score.raw for score in reply.scores])

        await asyncio.gather(*(caller() for _ in range(IN_FLIGHT)))
    return answers


async def stream(target: str, requests: Requests) -> Answers:
    """The same texts in one `ScoreStream`, as fast as it takes them."""
    answers = Answers(count=requests.count)

    async def sent() -> AsyncIterator[reward_pb2.ScoreStreamRequest]:
        for request in requests.streamed():
            yield request

    async with grpc.aio.insecure_channel(target) as channel:
        stub = reward_pb2_grpc.RewardServiceStub(channel)
        async for reply in stub.ScoreStream(sent(), timeout=24 * 3600):
            if reply.HasField("error"):
                raise Lost(f"a batch of the stream has no scores: {reply.error.message}")
            number = requests.number(reply.request_id)
            assert number is not None
            answers.take(number, [result.score.raw for result in reply.batch.results])
    return answers
