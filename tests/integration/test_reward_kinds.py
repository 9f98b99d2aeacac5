"""Reward models that are made of others, through the service's own doors: gRPC, Kafka and a restart."""

import asyncio
import json
import shutil
import uuid
from pathlib import Path
from typing import Any

import grpc
import numpy as np
import pytest
from support.reward_service import RewardClient, details, group, item, reward_service, selector
from support.tiny_models import write_tiny_causal_lm, write_tiny_reward_model

from assay.common.v1 import common_pb2
from assay.reward.v1 import reward_pb2
from assay_data.bag_of_words import BagOfWordsModel
from assay_kit.kafka import EventProducer, KafkaConnection, collect, end_offsets, ensure_topics
from assay_kit.topics import REWARDS_REQUESTED, REWARDS_SCORED

TEXTS = ["Mix flour.", "", "No, I would not.", "Mix flour."]


@pytest.fixture
def home(tmp_path: Path) -> Path:
    """A judge's bench: every family that needs no server, and an ensemble of them all."""
    folder = tmp_path / "home"
    for seed, name in enumerate(("policy", "reference")):
        write_tiny_causal_lm(folder / name, seed=seed)
    write_tiny_reward_model(folder / "rm")
    declare(write_tiny_reward_model(folder / "heads", num_labels=2), "reward_heads.json", {"heads": {"helpful": 0.65, "safe": 0.35}})
    BagOfWordsModel(vocabulary=("flour", "no"), idf=np.ones(2), weights=np.array([1.0, -2.0]), mean=0.0, std=1.0).save(folder / "words")
    declare(folder / "dpo", "implicit_reward.json", {"policy": "../policy", "reference": "../reference", "beta": 0.1})
    names = ("rm", "heads", "words", "dpo")
    declare(folder / "all", "ensemble.json", {"members": [{"name": name, "uri": f"../{name}"} for name in names]})
    return folder


def declare(folder: Path, name: str, content: Any) -> None:
    folder.mkdir(exist_ok=True)
    (folder / name).write_text(json.dumps(content))


def members(score: reward_pb2.Score) -> dict[str, float]:
    return {member.name: member.raw for member in score.members}


async def scores(client: RewardClient, model: str, texts: list[str] = TEXTS) -> list[reward_pb2.Score]:
    return list((await client.reward.ScoreGroup(group(texts, model=selector(model)))).scores)


async def test_every_family_is_loaded_and_an_ensemble_of_all_is_their_mean(tmp_path: Path, home: Path) -> None:
    names = ("rm", "heads", "words", "dpo")
    async with reward_service(tmp_path / "reward") as client:
        kinds = {name: (await client.load(name, home / name)).kind for name in (*names, "all")}
        alone = {name: await scores(client, name) for name in names}
        spent = [(await client.reward.ScoreGroup(group(TEXTS, model=selector(name)))).usage.computed_tokens for name in names]
        reply = await client.reward.ScoreGroup(group(TEXTS, model=selector("all")))
        batch = await client.reward.ScoreBatch(
            reward_pb2.ScoreBatchRequest(model=selector("all"), items=[item("Mix flour."), reward_pb2.ScoreItem(raw_text="no prompt")])
        )
    assert kinds == {
        "rm": "sequence_classifier",
        "heads": "reward_heads",
        "words": "bag_of_words",
        "dpo": "implicit_reward",
        "all": "ensemble",
    }
    for index, score in enumerate(reply.scores):
        values = [alone[name][index].raw for name in names]
        assert members(score) == dict(zip(names, values, strict=True))
        assert score.raw == pytest.approx(np.mean(values), rel=1e-12)
        assert score.stddev == pytest.approx(np.std(values, ddof=1), rel=1e-12)
    helpful, safe = members(alone["heads"][0]).values()
    assert alone["heads"][0].raw == pytest.approx(0.65 * helpful + 0.35 * safe)
    both = members(alone["dpo"][0])
    assert alone["dpo"][0].raw == pytest.approx(0.1 * (both["policy_log_prob"] - both["reference_log_prob"]))
    assert not alone["dpo"][0].HasField("stddev") and alone["dpo"][0].response_tokens > 0
    assert reply.usage.computed_tokens == sum(spent)
    assert batch.results[0].score.raw == reply.scores[0].raw  # alone and in a group
    assert batch.results[1].error.field == "items[1].raw_text" and "member dpo" in batch.results[1].error.message


async def test_models_made_of_others_come_back_after_a_restart_with_the_same_bits(tmp_path: Path, home: Path) -> None:
    async with reward_service(tmp_path / "reward") as client:
        info = await client.load("all", home / "all")
        before = await scores(client, "all")
    async with reward_service(tmp_path / "reward") as client:
        again = (await client.reward.GetModel(reward_pb2.GetModelRequest(model=selector("all")))).model
        assert again.provenance == info.provenance
        assert await scores(client, "all") == before


async def test_an_ensemble_of_which_a_member_has_changed_is_not_loaded_again_under_its_name(tmp_path: Path, home: Path) -> None:
    async with reward_service(tmp_path / "reward") as client:
        before = await client.load("all", home / "all")
    shutil.rmtree(home / "reference")
    write_tiny_causal_lm(home / "reference", seed=99)
    async with reward_service(tmp_path / "reward") as client:
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await scores(client, "all")
        assert caught.value.code() is grpc.StatusCode.FAILED_PRECONDITION and "load it again" in str(caught.value.details())
        after = await client.load("all", home / "all")
        assert after.provenance.fingerprint != before.provenance.fingerprint


@pytest.mark.parametrize(
    ("gone", "code", "said"),
    [("words", grpc.StatusCode.NOT_FOUND, "members[2].uri: "), ("policy", grpc.StatusCode.NOT_FOUND, "members[3]: policy: ")],
)
async def test_an_ensemble_without_a_member_is_refused_by_its_place(
    tmp_path: Path, home: Path, gone: str, code: grpc.StatusCode, said: str
) -> None:
    shutil.rmtree(home / gone)
    async with reward_service(tmp_path / "reward") as client:
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await client.load("all", home / "all")
        assert caught.value.code() is code and details(caught.value)[0]["uri"].startswith(said)
        models = (await client.reward.ListModels(reward_pb2.ListModelsRequest())).models
        assert not models


async def test_a_group_whose_context_is_tokens_has_an_implicit_reward(tmp_path: Path, home: Path) -> None:
    async with reward_service(tmp_path / "reward") as client:
        await client.load("dpo", home / "dpo")
        request = reward_pb2.ScoreGroupRequest(
            context_tokens=common_pb2.TokenSequence(ids=[5, 6, 7]),
            candidates=[reward_pb2.Candidate(tokens=common_pb2.TokenSequence(ids=ids)) for ids in ([8, 9], [8])],
        )
        reply = await client.reward.ScoreGroup(request)
        assert [(score.prompt_tokens, score.response_tokens) for score in reply.scores] == [(3, 2), (3, 1)]
        request.candidates[1].tokens.ClearField("ids")
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await client.reward.ScoreGroup(request)
        assert "candidates[1].tokens" in details(caught.value)[0]


async def test_the_kafka_door_gives_members_and_spread_too(tmp_path: Path, home: Path, kafka_bootstrap: str) -> None:
    connection = KafkaConnection(kafka_bootstrap)
    ensure_topics(connection)
    run = uuid.uuid4().hex
    request = group(TEXTS, model=selector("all"), request_id=run)

    def through_kafka() -> reward_pb2.ScoreGroupResponse:
        start = end_offsets(connection, REWARDS_SCORED)
        producer = EventProducer(connection, "test")
        try:
            producer.send(REWARDS_REQUESTED, "key", request)
            producer.flush()
        finally:
            producer.close()
        found: list[Any] = []

        def ours(record: Any) -> bool:
            if record.message.request_id == run:
                found.append(record.message)
                return True
            return False

        collect(connection, REWARDS_SCORED, start=start, wanted=ours, until=lambda: bool(found), timeout_s=120)
        return found[0]

    async with reward_service(tmp_path / "reward", kafka_bootstrap=kafka_bootstrap) as client:
        await client.load("all", home / "all")
        by_kafka = await asyncio.to_thread(through_kafka)
        by_grpc = await client.reward.ScoreGroup(request)
    assert list(by_kafka.scores) == list(by_grpc.scores) and len(by_kafka.scores[0].members) == 4
