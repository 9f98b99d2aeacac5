"""What the reward client does about failures, against a service whose failures are chosen."""

from __future__ import annotations

import asyncio
import pickle
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import grpc
import pytest
from support.service_thread import served
from support.word_reward import WordReward, reward_door

from assay.jobs.v1 import jobs_pb2
from assay_client import AsyncRewardClient, JobFailed, RewardClient, errors
from assay_kit import errors as kit

ASK = [{"role": "user", "content": "How was it?"}]


@pytest.fixture
def reward(tmp_path: Path) -> Iterator[tuple[WordReward, str]]:
    servicer = WordReward()
    with served([reward_door(servicer)], tmp_path) as target:
        yield servicer, target


def chat(text: str) -> list[dict[str, str]]:
    return [*ASK, {"role": "assistant", "content": text}]


REFUSALS = [
    (kit.InvalidArgument("candidates", "is empty"), errors.InvalidArgument),
    (kit.NotFound("no such model"), errors.NotFound),
    (kit.FailedPrecondition("no quality card"), errors.FailedPrecondition),
]


@pytest.mark.parametrize(("raised", "wanted"), REFUSALS, ids=lambda value: getattr(value, "__name__", ""))
def test_what_time_does_not_heal_is_raised_at_once_by_its_class(
    reward: tuple[WordReward, str], raised: kit.AssayError, wanted: type[errors.AssayClientError]
) -> None:
    reward[0].failures = [raised]
    with RewardClient.connect(reward[1], patience_s=60) as client, pytest.raises(wanted) as error:
        client.score_group(ASK, ["good"])
    assert reward[0].calls == ["group"]
    again = pickle.loads(pickle.dumps(error.value))
    assert type(again) is wanted and str(again) == str(error.value)


def test_no_pause_outlasts_the_callers_deadline(reward: tuple[WordReward, str]) -> None:
    reward[0].failures = [kit.ResourceExhausted("the queue is full", 5.0)]
    with RewardClient.connect(reward[1], patience_s=60) as client:
        started = time.monotonic()
        with pytest.raises(errors.ResourceExhausted) as full:
            client.score_group(ASK, ["good"], timeout_seconds=2)
        assert time.monotonic() - started < 5 and full.value.retry_after_seconds == 5.0
        reward[0].failures = [kit.Unavailable("loading") for _ in range(100)]
        with pytest.raises((errors.Unavailable, errors.DeadlineExceeded)):
            client.score_group(ASK, ["good"], timeout_seconds=1)


def test_each_part_of_a_stream_is_retried_by_itself_and_the_order_kept(reward: tuple[WordReward, str]) -> None:
    reward[0].failures = [kit.ResourceExhausted("full", 0.2), kit.Unavailable("loading"), kit.ResourceExhausted("full", 0.1)]
    with RewardClient.connect(reward[1], patience_s=20) as client:
        scores = [score.raw for score in client.score_stream((chat("good " * (n % 7)) for n in range(40)), batch_size=4, in_flight=3)]
    assert scores == [n % 7 for n in range(40)]
    assert 12 <= len(reward[0].calls) <= 16


def test_a_stream_that_is_left_reads_no_further(reward: tuple[WordReward, str]) -> None:
    read = 0

    def chats() -> Iterator[list[dict[str, str]]]:
        nonlocal read
        while True:
            read += 1
            yield chat("good")

    with RewardClient.connect(reward[1]) as client:
        for _ in client.score_stream(chats(), batch_size=5, in_flight=2):
            break
    assert read == 10


def test_groups_are_cut_to_what_the_service_takes_and_joined(reward: tuple[WordReward, str]) -> None:
    reward[0].max_candidates = 3
    with RewardClient.connect(reward[1]) as client:
        group = client.score_group(ASK, ["bad", "good", "", "", "good good", "", "good good"])
        assert [score.raw for score in group.scores] == [-1, 1, 0, 0, 2, 0, 2] and group.best_index == 4
        assert reward[0].calls == ["group"] * 3
        with pytest.raises(errors.InvalidArgument, match=r"candidates\[5\]") as wrong:
            client.score_group(ASK, ["good", "", "", "", "", "x" * 201])
    assert wrong.value.violations == (("candidates[5].text", "at most 200 characters"),)


def test_scores_of_two_models_are_never_mixed(reward: tuple[WordReward, str]) -> None:
    def chats() -> Iterator[list[dict[str, str]]]:
        for number in range(100):
            if number == 50:
                reward[0].fingerprint = "0" * 64
            yield chat("good")

    with RewardClient.connect(reward[1]) as client, pytest.raises(errors.Aborted, match="name a revision"):
        list(client.score_stream(chats(), batch_size=5, in_flight=1))


class Slow(WordReward):
    """Never answers, and remembers who gave up."""

    def __init__(self) -> None:
        super().__init__()
        self.given_up = 0

    async def ScoreBatch(self, request: Any, context: Any) -> Any:
        self.calls.append("batch")
        try:
            await asyncio.Event().wait()
        finally:
            self.given_up += 1


async def test_cancelling_a_task_cancels_its_calls_at_the_service(tmp_path: Path) -> None:
    servicer = Slow()
    with served([reward_door(servicer)], tmp_path) as target:
        async with AsyncRewardClient.connect(target) as client:
            asking = asyncio.ensure_future(client.score_batch([chat("good")] * 3, batch_size=1))
            while len(servicer.calls) < 3:
                await asyncio.sleep(0.01)
            asking.cancel()
            with pytest.raises(asyncio.CancelledError):
                await asking
            while servicer.given_up < 3:
                await asyncio.sleep(0.01)


def test_failed_jobs_survive_pickling() -> None:
    again = pickle.loads(pickle.dumps(JobFailed(jobs_pb2.Job(id="a", service="training", error="out of memory"))))
    assert again.job.id == "a" and again.code is grpc.StatusCode.ABORTED and "out of memory" in str(again)
