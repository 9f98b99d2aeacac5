"""The result cache through the real door."""

from pathlib import Path

import pytest
from support.reward_service import RewardClient, group, item, reward_service, selector
from support.tiny_models import write_tiny_reward_model

from assay.reward.v1 import reward_pb2

TEXTS = ["Mix flour.", "No.", "Bake it for an hour.", "Mix flour."]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_tiny_reward_model(tmp_path_factory.mktemp("model"))


def told(reply: reward_pb2.ScoreGroupResponse) -> list[tuple[float, bool]]:
    return [(score.raw, score.from_cache) for score in reply.scores]


async def scored(client: RewardClient, texts: list[str], **fields: object) -> reward_pb2.ScoreGroupResponse:
    return await client.reward.ScoreGroup(group(texts, **fields))


async def test_nothing_is_kept_unless_asked_for(tmp_path: Path, folder: Path) -> None:
    async with reward_service(tmp_path / "reward") as client:
        await client.load("rm", folder)
        first, second = await scored(client, TEXTS), await scored(client, TEXTS)
    assert told(first) == told(second)
    assert not any(score.from_cache for score in second.scores)
    assert second.usage.computed_tokens == first.usage.computed_tokens > 0


async def test_what_was_computed_comes_back_to_the_bit_and_costs_no_device(tmp_path: Path, folder: Path) -> None:
    async with reward_service(tmp_path / "reward", reward_cache_mib=1) as client:
        await client.load("rm", folder)
        first, second = await scored(client, TEXTS), await scored(client, TEXTS[::-1])
        assert not any(score.from_cache for score in first.scores)
        assert [score.raw for score in second.scores] == [score.raw for score in first.scores][::-1]
        assert all(score.from_cache for score in second.scores)
        assert second.usage.computed_tokens == second.usage.batch_sequences == 0 and second.usage.useful_tokens == first.usage.useful_tokens
        assert [score.response_tokens for score in second.scores] == [score.response_tokens for score in first.scores][::-1]
        mixed = await scored(client, ["something new", *TEXTS[:1]])
        assert [score.from_cache for score in mixed.scores] == [False, True]
        # A batch's item with the same text is the same input; a group with another question is not.
        batch = await client.reward.ScoreBatch(reward_pb2.ScoreBatchRequest(items=[item(TEXTS[0])]))
        assert batch.results[0].score.from_cache and batch.results[0].score.raw == first.scores[0].raw
        other = await client.reward.ScoreGroup(group(TEXTS[:1], "Another question?"))
        assert not other.scores[0].from_cache and other.scores[0].raw != first.scores[0].raw


async def test_the_cache_goes_by_the_weights_not_by_the_name(tmp_path: Path, folder: Path) -> None:
    another = write_tiny_reward_model(tmp_path / "another", seed=1)
    async with reward_service(tmp_path / "reward", reward_cache_mib=1) as client:
        await client.load("rm", folder)
        before = await scored(client, TEXTS)
        await client.load("same", folder)
        same = await scored(client, TEXTS, model=selector("same"))
        assert all(score.from_cache for score in same.scores)
        await client.load("rm", another)
        replaced = await scored(client, TEXTS, model=selector("rm"))
        assert not any(score.from_cache for score in replaced.scores)
        assert [score.raw for score in replaced.scores] != [score.raw for score in before.scores]
