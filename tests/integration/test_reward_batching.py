"""The queue of the reward service through its door: shared batches, fair turns, deadlines, and calls that go away."""

import asyncio
import time
from collections.abc import AsyncIterator
from pathlib import Path

import grpc
import pytest
import pytest_asyncio
from prometheus_client import REGISTRY
from support.reward_service import RewardClient, details, group, item, reward_service, selector
from support.tiny_models import write_tiny_reward_model

from assay.reward.v1 import reward_pb2

BULK = reward_pb2.ScoreOptions(priority=reward_pb2.PRIORITY_BULK)


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_tiny_reward_model(tmp_path_factory.mktemp("models") / "llama")


@pytest_asyncio.fixture
async def client(tmp_path: Path, model: Path) -> AsyncIterator[RewardClient]:
    async with reward_service(tmp_path / "reward", reward_batch_tokens=1024) as client:
        await client.load("rm", model)
        yield client


def large(number: int = 0, **fields: object) -> reward_pb2.ScoreGroupRequest:
    """A group that keeps the device busy for many batches."""
    return group([f"answer {index} " + "word " * 20 for index in range(120)], question=f"Question {number}?", **fields)


def sample(name: str, **labels: str) -> float:
    return REGISTRY.get_sample_value(name, labels) or 0.0


async def begun(condition: object) -> None:
    async with asyncio.timeout(60):
        while not condition():  # type: ignore[operator]
            await asyncio.sleep(0.005)


async def test_calls_of_several_callers_share_batches_and_their_costs_sum_to_what_was_computed(client: RewardClient) -> None:
    computed = "assay_reward_tokens_total"
    before = sample(computed, model="rm", kind="computed")
    first = asyncio.ensure_future(client.reward.ScoreGroup(large()))
    await begun(lambda: sample("assay_reward_queue_tokens") > 0)
    small = [client.reward.ScoreGroup(group([f"short {index}"], question=f"{index}?")) for index in range(20)]
    replies = await asyncio.gather(*small)
    await first
    assert max(reply.usage.batch_sequences for reply in replies) > 1
    alone = [await client.reward.ScoreGroup(group([f"short {index}"], question=f"{index}?")) for index in range(20)]
    for shared, single in zip(replies, alone, strict=True):
        assert shared.scores[0].raw == pytest.approx(single.scores[0].raw, rel=1e-5)
        assert shared.usage.useful_tokens == single.usage.useful_tokens
    every = [*replies, *alone, first.result()]
    assert sample(computed, model="rm", kind="computed") - before == sum(reply.usage.computed_tokens for reply in every)


async def test_a_caller_who_floods_does_not_keep_another_waiting(client: RewardClient) -> None:
    flood = [asyncio.ensure_future(client.reward.ScoreGroup(large(number), metadata=[("x-assay-caller", "flood")])) for number in range(8)]
    await begun(lambda: sample("assay_reward_queue_candidates") > 360)
    await client.reward.ScoreGroup(group(["quick"]), metadata=[("x-assay-caller", "other")])
    assert sum(call.done() for call in flood) <= 2
    await asyncio.gather(*flood)


async def test_a_deadline_that_cannot_be_met_is_refused_at_once_with_the_time_to_come_again(client: RewardClient) -> None:
    await client.reward.ScoreGroup(large())  # the rate is measured
    flood = [asyncio.ensure_future(client.reward.ScoreGroup(large(number))) for number in range(10)]
    await begun(lambda: sample("assay_reward_queue_wait_seconds") > 0.6)
    before = sample("assay_reward_rejected_total", reason="deadline")
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await client.reward.ScoreGroup(large(99), timeout=0.4)
    assert caught.value.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
    retry = details(caught.value)[1]
    assert retry is not None and 0.05 <= retry <= 30
    assert sample("assay_reward_rejected_total", reason="deadline") == before + 120
    for call in flood:
        call.cancel()


async def test_calls_that_go_away_never_reach_the_device(client: RewardClient) -> None:
    running = asyncio.ensure_future(client.reward.ScoreGroup(large()))
    await begun(lambda: sample("assay_reward_queue_tokens") > 0)
    gone = [client.reward.ScoreGroup(large(number, options=BULK)) for number in range(5)]
    waiting = [asyncio.ensure_future(call) for call in gone]  # type: ignore[arg-type]
    await begun(lambda: sample("assay_reward_queue_candidates") > 360)
    before, computed = sample("assay_reward_dropped_total", reason="cancelled"), sample("assay_reward_batch_sequences_sum")
    for call in gone:
        call.cancel()
    await asyncio.gather(*waiting, return_exceptions=True)
    await running
    await begun(lambda: sample("assay_reward_queue_candidates") == 0)
    assert sample("assay_reward_dropped_total", reason="cancelled") > before
    assert sample("assay_reward_batch_sequences_sum") - computed <= 120 + 64  # at most one batch of theirs had begun
    assert sample("assay_reward_queue_tokens") == sample("assay_reward_queue_text_bytes") == 0


async def test_a_stream_larger_than_the_queue_waits_for_room_instead_of_being_refused(tmp_path: Path, model: Path) -> None:
    async with reward_service(tmp_path / "reward", reward_queue_candidates=20) as client:
        await client.load("rm", model)
        batches = [
            reward_pb2.ScoreStreamRequest(
                batch=reward_pb2.ScoreBatchRequest(items=[item(f"answer {index} {place}") for place in range(15)], request_id=str(index))
            )
            for index in range(40)
        ]
        replies = [reply async for reply in client.reward.ScoreStream(iter(batches))]
        assert {reply.request_id for reply in replies} == {str(index) for index in range(40)}
        assert all(len(reply.batch.results) == 15 for reply in replies)


async def test_two_models_take_turns(client: RewardClient, model: Path) -> None:
    await client.load("other", model)
    first = [asyncio.ensure_future(client.reward.ScoreGroup(large(number))) for number in range(6)]
    await begun(lambda: sample("assay_reward_queue_candidates") > 360)
    await client.reward.ScoreGroup(group(["quick"], model=selector("other")))
    assert sum(call.done() for call in first) <= 3
    await asyncio.gather(*first)


async def test_a_large_call_does_not_hold_up_a_small_one_at_the_tokenizer(client: RewardClient) -> None:
    items = [item(f"answer {index} " + "word " * 100) for index in range(1000)]
    bulk = asyncio.ensure_future(client.reward.ScoreBatch(reward_pb2.ScoreBatchRequest(items=items, options=BULK)))
    await begun(lambda: sample("assay_reward_queue_candidates") >= 1000)
    started = time.monotonic()
    await client.reward.ScoreGroup(group(["quick"]))
    assert not bulk.done() and time.monotonic() - started < 60
    bulk.cancel()


async def test_metrics_tell_of_queue_batches_and_refusals(client: RewardClient) -> None:
    before = sample("assay_reward_batch_tokens_count")
    await client.reward.ScoreGroup(group(["one", "two"]))
    assert sample("assay_reward_batch_tokens_count") == before + 1
    for name in ("queue_tokens", "queue_text_bytes", "queue_candidates"):
        assert sample(f"assay_reward_{name}") == 0
    assert sample("assay_reward_batch_sequences_count") >= 1 and sample("assay_reward_compute_seconds_count") >= 1
