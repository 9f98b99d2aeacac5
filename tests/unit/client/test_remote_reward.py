from __future__ import annotations

import asyncio
import pickle
from collections.abc import Iterator
from pathlib import Path

import grpc
import pytest
from support.service_thread import served
from support.word_reward import WordReward, reward_door

from assay_client import AssayClientError
from assay_client.trl import RemoteReward, SyncRemoteReward
from assay_kit.errors import ResourceExhausted, Unavailable


@pytest.fixture
def reward(tmp_path: Path) -> Iterator[tuple[WordReward, str]]:
    servicer = WordReward()
    with served([reward_door(servicer)], tmp_path) as target:
        yield servicer, target


def ask(text: str) -> list[dict[str, str]]:
    return [{"role": "user", "content": text}]


def say(text: str) -> list[dict[str, str]]:
    return [{"role": "assistant", "content": text}]


async def test_rewards_come_in_the_order_of_the_samples_one_call_a_prompt(reward: tuple[WordReward, str]) -> None:
    remote = RemoteReward(reward[1], "words")
    prompts = [ask("a"), ask("a"), ask("b"), ask("b"), ask("a")]
    texts = ["good", "bad", "good good", "", "bad bad"]
    logged: dict[str, float] = {}
    rewards = await remote(prompts, [say(text) for text in texts], completion_ids=[], log_metric=logged.__setitem__)
    assert rewards == [1, -1, 2, 0, -2]
    assert reward[0].calls == ["group"] * 3
    assert remote.fingerprint == "f" * 64
    assert logged["remote_reward/missing"] == 0 and logged["remote_reward/seconds"] > 0
    await remote.close()


async def test_large_groups_are_asked_in_chunks(reward: tuple[WordReward, str]) -> None:
    remote = RemoteReward(reward[1], chunk=3)
    assert await remote([ask("a")] * 7, [say("good " * count) for count in range(7)]) == [0, 1, 2, 3, 4, 5, 6]
    assert reward[0].calls == ["group"] * 3
    await remote.close()


async def test_strings_are_read_by_the_caller_never_guessed(reward: tuple[WordReward, str]) -> None:
    remote = RemoteReward(reward[1], to_conversation=lambda prompt: ask(prompt.removeprefix("\n\nHuman: ")))
    assert await remote(["\n\nHuman: Hi"], ["good"]) == [1]
    await remote.close()
    with pytest.raises(ValueError, match="to_conversation"):
        await RemoteReward(reward[1])(["\n\nHuman: Hi"], ["good"])


async def test_a_sample_that_cannot_be_scored_has_none_and_its_neighbours_their_scores(reward: tuple[WordReward, str]) -> None:
    remote = RemoteReward(reward[1])
    assert await remote([ask("a")] * 3, [say("good"), say("x" * 201), say("bad")]) == [1, None, -1]
    await remote.close()


async def test_retries_change_no_reward(reward: tuple[WordReward, str]) -> None:
    reward[0].failures = [Unavailable("loading"), ResourceExhausted("full", 0.1), Unavailable("loading")]
    remote = RemoteReward(reward[1], patience_s=20)
    assert await remote([ask(str(n)) for n in range(4)], [say("good " * n) for n in range(4)]) == [0, 1, 2, 3]
    await remote.close()


async def test_an_absent_service_gives_none_and_after_a_while_ends_the_training(reward: tuple[WordReward, str]) -> None:
    reward[0].failures = [Unavailable("loading") for _ in range(200)]
    remote = RemoteReward(reward[1], patience_s=0, max_failed_batches=2)
    assert await remote([ask("a")] * 2, [say("good"), say("bad")]) == [None, None]
    with pytest.raises(AssayClientError, match="2 batches in a row"):
        await remote([ask("a")], [say("good")])
    reward[0].failures = []
    assert await remote([ask("a")], [say("good")]) == [1]
    await remote.close()


async def test_a_mistake_that_time_does_not_heal_ends_the_training_at_once(reward: tuple[WordReward, str]) -> None:
    remote = RemoteReward(reward[1], "nobody")
    with pytest.raises(AssayClientError, match="there is: words") as unknown:
        await remote([ask("a")], [say("good")])
    assert unknown.value.code is grpc.StatusCode.NOT_FOUND
    await remote.close()


async def test_a_model_that_changes_under_the_training_ends_it(reward: tuple[WordReward, str]) -> None:
    remote = RemoteReward(reward[1])
    assert await remote([ask("a")], [say("good")]) == [1]
    reward[0].fingerprint = "0" * 64
    with pytest.raises(AssayClientError, match="changed under the training"):
        await remote([ask("a")], [say("good")])
    await remote.close()


def test_it_works_on_one_loop_after_another_and_after_pickling(reward: tuple[WordReward, str]) -> None:
    remote = RemoteReward(reward[1])

    async def once(function: RemoteReward) -> list[float | None]:
        rewards = await function([ask("a")], [say("good")])
        await function.close()
        return rewards

    assert asyncio.run(once(remote)) == [1]
    assert asyncio.run(once(remote)) == [1]
    assert asyncio.run(once(pickle.loads(pickle.dumps(remote)))) == [1]


async def test_the_plain_function_gives_the_same_also_where_a_loop_runs_and_after_pickling(reward: tuple[WordReward, str]) -> None:
    plain = SyncRemoteReward(reward[1], patience_s=20, chunk=2)
    reward[0].failures = [Unavailable("loading")]
    asked = ([ask("a")] * 3, [say("good"), say("x" * 201), say("bad")])
    assert plain(*asked) == [1, None, -1]
    plain.close()
    again = pickle.loads(pickle.dumps(plain))
    assert again(*asked) == plain(*asked) == [1, None, -1]
    again.close()
    plain.close()
    with pytest.raises(AssayClientError, match="there is: words"):
        SyncRemoteReward(reward[1], "nobody")(*asked)
