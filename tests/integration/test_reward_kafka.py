import asyncio
import json
import math
import os
import signal
import subprocess
import sys
import uuid
from collections.abc import AsyncIterator
from pathlib import Path

import grpc
import pytest
import pytest_asyncio
from support.reward_service import RewardClient, group, reward_service, selector
from support.tiny_models import write_tiny_reward_model

from assay.common.v1 import common_pb2
from assay.reward.v1 import reward_pb2
from assay_kit.kafka import EventProducer, KafkaConnection, Record, collect, end_offsets, ensure_topics
from assay_kit.topics import DEAD_LETTERS, QUALITY_CARDS, REWARDS_REQUESTED, REWARDS_SCORED, Topic


@pytest.fixture(scope="module")
def connection(kafka_bootstrap: str) -> KafkaConnection:
    connection = KafkaConnection(kafka_bootstrap)
    ensure_topics(connection)
    return connection


@pytest.fixture(scope="module")
def model_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_tiny_reward_model(tmp_path_factory.mktemp("models") / "llama", seed=11)


@pytest_asyncio.fixture
async def client(tmp_path: Path, kafka_bootstrap: str, connection: KafkaConnection, model_folder: Path) -> AsyncIterator[RewardClient]:
    async with reward_service(tmp_path / "reward", kafka_bootstrap=kafka_bootstrap) as client:
        await client.load("rm", model_folder)
        yield client


def ask(connection: KafkaConnection, requests: list[tuple[str, reward_pb2.ScoreGroupRequest]]) -> None:
    producer = EventProducer(connection, "test")
    try:
        for key, request in requests:
            producer.send(REWARDS_REQUESTED, key, request)
        producer.flush()
    finally:
        producer.close()


def answers(connection: KafkaConnection, topic: Topic, start: dict[int, int], count: int, wanted: object) -> list[Record]:
    found: list[Record] = []

    def keep(record: Record) -> bool:
        ours = bool(wanted(record))  # type: ignore[operator]
        if ours:
            found.append(record)
        return ours

    return collect(connection, topic, start=start, wanted=keep, until=lambda: len(found) >= count, timeout_s=120)


async def test_the_kafka_door_answers_with_what_the_grpc_door_answers(client: RewardClient, connection: KafkaConnection) -> None:
    run = uuid.uuid4().hex
    texts = [[f"answer {index} of {number} " + "word " * (index * number % 23) for index in range(16)] for number in range(20)]
    requests = [(f"key-{number}", group(texts[number], request_id=f"{run}-{number}")) for number in range(20)]
    start = end_offsets(connection, REWARDS_SCORED)
    await asyncio.to_thread(ask, connection, requests)
    records = await asyncio.to_thread(
        answers, connection, REWARDS_SCORED, start, 20, lambda record: record.message.request_id.startswith(run)
    )
    assert len(records) == 20
    for record in records:
        number = int(record.message.request_id.rpartition("-")[2])
        assert record.key == f"key-{number}".encode()
        reply = await client.reward.ScoreGroup(requests[number][1])
        assert list(record.message.scores) == list(reply.scores)
        assert record.message.best_index == reply.best_index
        assert record.message.provenance == reply.provenance


async def test_a_message_that_is_wrong_goes_to_the_dead_letters_and_its_neighbours_are_scored(
    client: RewardClient, connection: KafkaConnection
) -> None:
    run = uuid.uuid4().hex
    good = group(["fine"], request_id=f"{run}-good")
    unknown = group(["x"], model=selector("nobody"), request_id=f"{run}-unknown")
    empty = group([], request_id=f"{run}-empty")
    long = group(["word " * 600], request_id=f"{run}-long")
    cardless = group(["x"], request_id=f"{run}-cardless", options=reward_pb2.ScoreOptions(scale=reward_pb2.SCORE_SCALE_CALIBRATED))
    scored, dead = end_offsets(connection, REWARDS_SCORED), end_offsets(connection, DEAD_LETTERS)
    await asyncio.to_thread(ask, connection, [(run, request) for request in (unknown, empty, good, long, cardless)])

    def ours(record: Record) -> bool:
        return bool(record.message.key == run.encode())

    letters = await asyncio.to_thread(answers, connection, DEAD_LETTERS, dead, 4, ours)
    errors = {}
    for letter in letters:
        request = reward_pb2.ScoreGroupRequest.FromString(letter.message.payload)
        errors[request.request_id.rpartition("-")[2]] = letter.message.error
    assert errors["unknown"].startswith("NOT_FOUND: ") and "nobody" in errors["unknown"]
    assert errors["empty"].startswith("INVALID_ARGUMENT: candidates")
    assert errors["long"].startswith("INVALID_ARGUMENT: candidates[0].text")
    assert errors["cardless"].startswith("FAILED_PRECONDITION: ")
    [answer] = await asyncio.to_thread(
        answers, connection, REWARDS_SCORED, scored, 1, lambda record: record.message.request_id.startswith(run)
    )
    assert answer.message.request_id == f"{run}-good"


async def test_a_quality_card_is_carried_wherever_the_model_goes(
    client: RewardClient, connection: KafkaConnection, kafka_bootstrap: str, tmp_path: Path
) -> None:
    measured = write_tiny_reward_model(tmp_path / "measured", seed=12)
    info = await client.load("measured", measured)
    await client.admin.SetAlias(reward_pb2.SetAliasRequest(alias="default", model=selector("measured")))
    card = common_pb2.QualityCard(
        fingerprint=info.provenance.fingerprint,
        model="measured",
        accuracy=common_pb2.Estimate(value=0.71, low=0.68, high=0.74, n=900),
        mean=0.5,
        std=2.0,
        temperature=4.0,
        calibration=common_pb2.Calibration(id="0123abcd"),
        length_slope=common_pb2.Estimate(value=0.25, low=0.2, high=0.3, n=900),
        mean_response_tokens=3.0,
    )
    card.measured_at.GetCurrentTime()
    await asyncio.to_thread(_publish, connection, card)
    async with asyncio.timeout(20):
        while (await client.reward.GetModel(reward_pb2.GetModelRequest())).model.quality_card != card:
            await asyncio.sleep(0.05)
    await _carries(client, card)
    async with reward_service(
        tmp_path / "another", kafka_bootstrap=kafka_bootstrap
    ) as another:  # the compacted topic fills it at the start
        await another.load("other-name", measured)
        await _carries(another, card)
    await asyncio.to_thread(_publish, connection, None, card.fingerprint)
    async with asyncio.timeout(20):
        while (await client.reward.GetModel(reward_pb2.GetModelRequest())).model.HasField("quality_card"):
            await asyncio.sleep(0.05)
    with pytest.raises(grpc.aio.AioRpcError):
        await client.reward.ScoreGroup(group(["x"], options=reward_pb2.ScoreOptions(scale=reward_pb2.SCORE_SCALE_STANDARDIZED)))


async def _carries(client: RewardClient, card: common_pb2.QualityCard) -> None:
    listed = (await client.reward.ListModels(reward_pb2.ListModelsRequest())).models
    assert [model.quality_card for model in listed if "default" in model.aliases] == [card]
    texts = ["one", "two"]
    raw = await client.reward.ScoreGroup(group(texts))
    assert raw.provenance.has_quality_card and (raw.provenance.mean, raw.provenance.std) == (0.5, 2.0)
    assert raw.provenance.calibration_id == "0123abcd"
    for scale, name, expected in (
        (reward_pb2.SCORE_SCALE_STANDARDIZED, "standardized", lambda score: (score.raw - 0.5) / 2.0),
        (reward_pb2.SCORE_SCALE_CALIBRATED, "win_probability", lambda score: 1 / (1 + math.exp(-(score.raw - 0.5) / 4.0))),
        (reward_pb2.SCORE_SCALE_LENGTH_CORRECTED, "length_corrected", lambda score: score.raw - 0.25 * (score.response_tokens - 3)),
    ):
        reply = await client.reward.ScoreGroup(group(texts, options=reward_pb2.ScoreOptions(scale=scale)))
        assert [score.raw for score in reply.scores] == [score.raw for score in raw.scores]
        assert [score.value for score in reply.scores] == pytest.approx([expected(score) for score in raw.scores])
        assert {score.scale for score in reply.scores} == {scale}
        # Whatever the scale asked for, each reply has them all.
        assert [getattr(score, name) for score in raw.scores] == [score.value for score in reply.scores]


def _publish(connection: KafkaConnection, card: common_pb2.QualityCard | None, key: str = "") -> None:
    producer = EventProducer(connection, "test")
    try:
        producer.send(QUALITY_CARDS, key or (card.fingerprint if card else ""), card)
        producer.flush()
    finally:
        producer.close()


def _start(data_dir: Path, bootstrap: str) -> tuple[subprocess.Popen[bytes], str]:
    (data_dir / "endpoint.json").unlink(missing_ok=True)
    environment = {**os.environ, "ASSAY_DATA_DIR": str(data_dir), "ASSAY_KAFKA_BOOTSTRAP": bootstrap, "HF_HUB_OFFLINE": "1"}
    process = subprocess.Popen([sys.executable, "-m", "assay_reward"], env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)
    assert process.stderr is not None
    for line in process.stderr:  # the service says when it is ready
        if b"reward is ready at" in line:
            return process, json.loads((data_dir / "endpoint.json").read_text())["grpc"]
    raise AssertionError(f"the service ended with {process.wait()} before it was ready")


def _end(process: subprocess.Popen[bytes], how: signal.Signals) -> int:
    process.send_signal(how)
    assert process.stderr is not None
    process.stderr.read()
    return process.wait(30)


async def test_after_kill_9_the_models_are_back_and_what_was_asked_meanwhile_is_answered_once(
    tmp_path: Path, connection: KafkaConnection, kafka_bootstrap: str, model_folder: Path
) -> None:
    run = uuid.uuid4().hex
    process, target = await asyncio.to_thread(_start, tmp_path / "reward", kafka_bootstrap)
    try:
        async with grpc.aio.insecure_channel(target) as channel:
            client = RewardClient(channel)
            await client.load("rm", model_folder)
            before = await client.reward.ScoreGroup(group(["one", "two"]))
        start = end_offsets(connection, REWARDS_SCORED)
        texts = [[f"{number} {index} " + "w " * 40 for index in range(8)] for number in range(150)]  # more than one transaction takes
        requests = [(str(number), group(texts[number], request_id=f"{run}-{number}")) for number in range(150)]
        await asyncio.to_thread(ask, connection, requests)
        await asyncio.to_thread(answers, connection, REWARDS_SCORED, start, 1, lambda record: record.message.request_id.startswith(run))
        assert _end(process, signal.SIGKILL) == -signal.SIGKILL
        process, target = await asyncio.to_thread(_start, tmp_path / "reward", kafka_bootstrap)
        async with grpc.aio.insecure_channel(target) as channel:
            client = RewardClient(channel)
            after = await client.reward.ScoreGroup(group(["one", "two"]))
            assert list(after.scores) == list(before.scores)
            assert after.provenance == before.provenance
        records = await asyncio.to_thread(
            answers, connection, REWARDS_SCORED, start, 150, lambda record: record.message.request_id.startswith(run)
        )
        assert sorted(int(record.message.request_id.rpartition("-")[2]) for record in records) == list(range(150))
        assert _end(process, signal.SIGTERM) == 0
    finally:
        if process.poll() is None:
            process.kill()
            process.wait(10)
