"""The reward client against the real reward service: threads and coroutines, large groups, long streams, deadlines, a full queue."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Iterator
from pathlib import Path

import grpc
import pytest
from support.reward_server import reward_in_thread, write_word_model
from support.tiny_models import write_tiny_reward_model

from assay.reward.v1 import reward_pb2, reward_pb2_grpc
from assay_client import AsyncRewardClient, ItemFailed, RewardClient, Score
from assay_client.errors import DeadlineExceeded, FailedPrecondition, InvalidArgument, ResourceExhausted, error_of
from assay_client.messages import conversation
from assay_client.reward import score_options

ASK = [{"role": "user", "content": "How do I bake bread?"}]
STRANGE = ["", " ", "日本語のパン 🍞", "e\u0301 \u202e \x00", "<|eos|>", "\n\nHuman: x", "a" * 300]


@pytest.fixture(scope="module")
def target(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    folder = tmp_path_factory.mktemp("reward")
    models = {"tiny": write_tiny_reward_model(folder / "tiny"), "words": write_word_model(folder / "words")}
    with reward_in_thread(folder / "service", models, reward_max_candidates=100) as where:
        yield where


def chat(text: str) -> list[dict[str, str]]:
    return [*ASK, {"role": "assistant", "content": text}]


async def test_threads_and_coroutines_get_the_same_scores_in_groups_batches_and_streams(target: str) -> None:
    def from_thread() -> tuple[tuple[Score, ...], ...]:
        with RewardClient.connect(target) as reward:
            group = reward.score_group(ASK, STRANGE)
            batch = reward.score_batch(map(chat, STRANGE), batch_size=3)
            assert group.provenance == batch.provenance and group.provenance.model == "tiny" and group.provenance.fingerprint
            assert group.usage.useful_tokens > 0 and group.usage.batch_sequences >= 1
            return group.scores, batch.results, tuple(reward.score_stream(map(chat, STRANGE), batch_size=2))

    async with AsyncRewardClient.connect(target) as reward:
        group = await reward.score_group(ASK, STRANGE)
        batch = await reward.score_batch(map(chat, STRANGE), batch_size=3)
        stream = tuple([score async for score in reward.score_stream(map(chat, STRANGE), batch_size=2)])
    raw = {tuple(score.raw for score in scores) for scores in (group.scores, batch.results, stream, *await asyncio.to_thread(from_thread))}
    assert len(raw) == 1
    assert group.best_index == max(range(len(STRANGE)), key=lambda index: group.scores[index].raw)
    assert group.scores[-1].response_tokens > group.scores[0].response_tokens and not group.scores[0].truncated


async def test_a_stream_may_come_from_coroutines(target: str) -> None:
    async def chats():
        for number in range(5):
            await asyncio.sleep(0)
            yield chat(f"{number}")

    async with AsyncRewardClient.connect(target) as reward:
        stream = [score async for score in reward.score_stream(chats(), batch_size=2)]
        assert stream == list((await reward.score_batch([chat(f"{number}") for number in range(5)])).results)


def test_ten_thousand_candidates_are_one_group(target: str) -> None:
    texts = [f"answer number {number}" for number in range(10_000)]
    with RewardClient.connect(target) as reward:
        assert reward.get_model("words").max_candidates == 100
        group = reward.score_group(ASK, texts, model="words")
        best = reward.score_group(ASK, [texts[group.best_index]], model="words").scores[0]
        sampled = [reward.score_group(ASK, [texts[index]], model="words").scores[0].raw for index in range(0, 10_000, 997)]
    assert len(group.scores) == 10_000
    assert best.raw == max(score.raw for score in group.scores) == group.scores[group.best_index].raw
    assert [group.scores[index].raw for index in range(0, 10_000, 997)] == sampled
    assert group.best_index == next(index for index, score in enumerate(group.scores) if score.raw == best.raw)


def test_a_candidate_is_named_by_its_place_in_the_whole_group(target: str) -> None:
    texts = ["fine"] * 250
    texts[230] = "word " * 1000
    with RewardClient.connect(target) as reward, pytest.raises(InvalidArgument) as wrong:
        reward.score_group(ASK, texts, model="tiny")
    assert [field for field, _ in wrong.value.violations] == ["candidates[230].text"]


def test_a_hundred_thousand_items_flow_through_with_few_held_and_each_failure_its_own(target: str) -> None:
    read = 0
    broken = {0, 777, 99_999}

    def chats() -> Iterator[list[dict[str, str]]]:
        nonlocal read
        for number in range(100_000):
            read += 1
            yield ASK if number in broken else chat(f"answer {number % 10}")

    held, failed, raw = 0, {}, {}
    with RewardClient.connect(target) as reward:
        stream = reward.score_stream(chats(), model="words", batch_size=1000, in_flight=4)
        for number, result in enumerate(stream):
            held = max(held, read - number)
            if isinstance(result, ItemFailed):
                failed[number] = result.violations[0][0]
            else:
                raw.setdefault(number % 10, set()).add(result.raw)
        expected = [score.raw for score in reward.score_group(ASK, [f"answer {digit}" for digit in range(10)], model="words").scores]
    assert number == 99_999 and held <= 4000
    assert failed == {number: f"items[{number}].conversation.messages[0].role" for number in broken}
    assert [raw[digit] for digit in range(10)] == [{score} for score in expected]


def test_a_deadline_that_is_past_or_too_near_ends_the_call(target: str) -> None:
    with RewardClient.connect(target, patience_s=60) as reward:
        for seconds in (-1.0, 0.0):
            with pytest.raises(DeadlineExceeded, match="nothing was sent"):
                reward.score_group(ASK, ["x"], timeout_seconds=seconds)
        with pytest.raises(DeadlineExceeded):
            reward.score_batch([chat(f"{number} " * 30) for number in range(3000)], model="tiny", batch_size=3000, timeout_seconds=0.2)
        assert reward.score_group(ASK, ["x"]).scores


async def test_a_call_that_was_cancelled_leaves_the_client_and_the_service_well(target: str) -> None:
    async with AsyncRewardClient.connect(target) as reward:
        long = asyncio.ensure_future(reward.score_batch([chat(f"{number} " * 30) for number in range(2000)], batch_size=2000))
        await asyncio.sleep(0.3)
        assert not long.done()
        long.cancel()
        with pytest.raises(asyncio.CancelledError):
            await long
        assert (await reward.score_group(ASK, ["x"], timeout_seconds=20)).scores


async def test_what_cannot_be_is_refused_by_its_class(target: str) -> None:
    async with AsyncRewardClient.connect(target, patience_s=60) as reward:
        with pytest.raises(InvalidArgument, match="candidates"):
            await reward.score_group(ASK, [])
        with pytest.raises(FailedPrecondition):
            await reward.score_group(ASK, ["x"], options=score_options(scale=reward_pb2.SCORE_SCALE_STANDARDIZED))
        assert (await reward.score_batch([])).results == ()


def test_a_full_queue_is_waited_out_as_it_says(tmp_path: Path) -> None:
    texts = [f"{number} " * 40 for number in range(8)]
    with reward_in_thread(tmp_path / "service", {"tiny": write_tiny_reward_model(tmp_path / "tiny")}, reward_queue_candidates=8) as target:
        with grpc.insecure_channel(target) as channel:
            request = reward_pb2.ScoreGroupRequest(conversation=conversation(ASK))
            request.candidates.extend(reward_pb2.Candidate(text=text) for text in texts)
            bare = reward_pb2_grpc.RewardServiceStub(channel).ScoreGroup
            refused = [error_of(call, "") for call in [bare.future(request) for _ in range(16)] if call.exception() is not None]
        assert refused and all(type(error) is ResourceExhausted and error.retry_after_seconds > 0 for error in refused)

        scored: list[tuple[float, ...]] = []

        def ask() -> None:
            with RewardClient.connect(target, patience_s=60) as reward:
                scored.append(tuple(score.raw for score in reward.score_group(ASK, texts).scores))

        asking = [threading.Thread(target=ask) for _ in range(16)]
        for thread in asking:
            thread.start()
        for thread in asking:
            thread.join()
        assert len(scored) == 16 and len(set(scored)) == 1
