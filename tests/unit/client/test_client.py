from __future__ import annotations

import json
import pickle
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import grpc
import pytest
from support.service_thread import served
from support.word_reward import WordReward, reward_door

from assay.training.v1 import training_pb2, training_pb2_grpc
from assay_client import AssayClient, AssayClientError, Endpoints, ItemFailed, Score
from assay_data.conversations import Message
from assay_kit.errors import InvalidArgument, ResourceExhausted, Unavailable
from assay_kit.server import Door

ASK = [{"role": "user", "content": "How was it?"}]


@pytest.fixture
def reward(tmp_path: Path) -> Iterator[tuple[WordReward, str]]:
    servicer = WordReward()
    with served([reward_door(servicer)], tmp_path) as target:
        yield servicer, target


def client(target: str, **more: float) -> AssayClient:
    return AssayClient(Endpoints(reward=target), **more)


def answers(*texts: str) -> list[list[Message]]:
    return [[Message(role="user", content="How was it?"), Message(role="assistant", content=text)] for text in texts]


def test_a_group_is_scored(reward: tuple[WordReward, str]) -> None:
    with client(reward[1]) as assay:
        group = assay.reward.score_group(ASK, ["bad", "good good", "well"], model="words")
    assert [score.value for score in group.scores] == [-1, 2, 0] and group.best_index == 1


def test_scores_of_any_number_come_in_order(reward: tuple[WordReward, str]) -> None:
    with client(reward[1]) as assay:
        scores = list(assay.reward.scores(answers("good", "bad", "good good", "", "bad bad"), batch_size=2))
    assert scores == [1, -1, 2, 0, -2]
    assert reward[0].calls == ["batch"] * 3


def test_an_item_without_a_score_says_why(reward: tuple[WordReward, str]) -> None:
    with client(reward[1]) as assay:
        with pytest.raises(ItemFailed, match="at most 200 characters") as failed:
            list(assay.reward.scores(answers("good", "x" * 201)))
        batch = assay.reward.score_batch(answers("good", "x" * 201, "bad"))
    assert failed.value.code is grpc.StatusCode.INVALID_ARGUMENT and failed.value.violations[0][0] == "items[1].text"
    assert [type(result) for result in batch.results] == [Score, ItemFailed, Score]


def test_an_error_carries_code_message_and_violations(reward: tuple[WordReward, str]) -> None:
    with client(reward[1]) as assay:
        with pytest.raises(AssayClientError) as unknown:
            assay.reward.score_group(ASK, ["good"], model="nobody")
        reward[0].failures = [InvalidArgument.many([("a", "must be 1"), ("b[2].c", "must be set")])]
        with pytest.raises(AssayClientError) as bad:
            assay.reward.list_models()
    assert unknown.value.code is grpc.StatusCode.NOT_FOUND and "there is: words" in unknown.value.message
    assert bad.value.violations == (("a", "must be 1"), ("b[2].c", "must be set"))
    again = pickle.loads(pickle.dumps(bad.value))
    assert (again.code, again.message, again.violations) == (bad.value.code, bad.value.message, bad.value.violations)


def test_a_service_that_is_away_is_waited_for_as_long_as_patience_lasts(tmp_path: Path) -> None:
    servicer = WordReward()
    with served([reward_door(servicer)], tmp_path) as target:
        port = int(target.rpartition(":")[2])
    with client(target) as hasty, pytest.raises(AssayClientError) as away:
        hasty.reward.list_models()
    assert away.value.code is grpc.StatusCode.UNAVAILABLE and f"reward service at {target}" in away.value.message

    found: list[str] = []

    def ask() -> None:
        with client(target, patience_s=30) as patient:
            found.extend(model.name for model in patient.reward.list_models())

    asking = threading.Thread(target=ask)
    asking.start()
    asking.join(2.5)
    assert asking.is_alive() and not found
    with served([reward_door(servicer)], tmp_path, port=port):
        asking.join(20)
        assert found == ["words"]


def test_patience_ends(reward: tuple[WordReward, str]) -> None:
    reward[0].failures = [Unavailable("loading") for _ in range(1000)]
    with client(reward[1], patience_s=1.5) as assay:
        started = time.monotonic()
        with pytest.raises(AssayClientError, match="loading"):
            assay.reward.list_models()
    assert 0.2 < time.monotonic() - started < 6


def test_a_full_service_is_asked_again_when_it_said(reward: tuple[WordReward, str]) -> None:
    reward[0].failures = [ResourceExhausted("the queue is full", 0.5), ResourceExhausted("the queue is full", 0.5)]
    with client(reward[1]) as assay:
        started = time.monotonic()
        assert assay.reward.score_group(ASK, ["good"]).scores[0].value == 1
    assert 1.0 <= time.monotonic() - started < 5
    reward[0].failures = [ResourceExhausted("the queue is full", 3600)]
    with client(reward[1]) as assay, pytest.raises(AssayClientError) as full:
        assay.reward.list_models()
    assert full.value.code is grpc.StatusCode.RESOURCE_EXHAUSTED and full.value.retry_after_seconds == 3600


def test_a_wrong_turn_is_named_before_anything_is_sent(reward: tuple[WordReward, str]) -> None:
    with client(reward[1]) as assay, pytest.raises(ValueError, match=r"messages\[1\]"):
        assay.reward.score_group([*ASK, {"role": "bot", "content": "Fine"}], ["good"])
    assert reward[0].calls == []


class Trainer(training_pb2_grpc.TrainingServiceServicer):
    """Remembers what it was asked for."""

    def __init__(self) -> None:
        self.asked: list[training_pb2.CreateTrainingJobRequest] = []

    async def CreateTrainingJob(
        self, request: training_pb2.CreateTrainingJobRequest, context: object
    ) -> training_pb2.CreateTrainingJobResponse:
        self.asked.append(request)
        response = training_pb2.CreateTrainingJobResponse()
        response.job.id = request.job_id or "made"
        return response


def test_each_kind_of_training_is_asked_for_as_itself(tmp_path: Path) -> None:
    trainer = Trainer()
    door = Door(
        add=training_pb2_grpc.add_TrainingServiceServicer_to_server, servicer=trainer, service_name="assay.training.v1.TrainingService"
    )
    with served([door], tmp_path) as target, AssayClient(Endpoints(training=target)) as assay:
        for spec in (training_pb2.SftSpec(), training_pb2.RewardModelSpec(), training_pb2.DpoSpec(beta=0.3), training_pb2.PpoSpec()):
            assert assay.training.create_training_job(spec, "file:///out", seed=7, job_id="j").id == "j"
    assert [request.WhichOneof("spec") for request in trainer.asked] == ["sft", "reward_model", "dpo", "ppo"]
    assert trainer.asked[2].dpo.beta == 0.3 and trainer.asked[2].seed == 7 and trainer.asked[2].output_uri == "file:///out"


def test_endpoints_are_read_from_the_environment_and_from_a_local_stack(tmp_path: Path) -> None:
    found = Endpoints.from_environment({"ASSAY_REWARD_TARGET": "reward:1", "ASSAY_POLICY_TARGET": "policy:2"})
    assert found == Endpoints(reward="reward:1", policy="policy:2")
    with pytest.raises(AssayClientError, match="ASSAY_TRAINING_TARGET"):
        found.target("training")
    with pytest.raises(FileNotFoundError, match="assay up"):
        Endpoints.from_folder(tmp_path)
    (tmp_path / "endpoints.json").write_text(json.dumps({"reward": {"grpc": "127.0.0.1:5", "pid": 7}, "policy": "127.0.0.1:6"}))
    assert Endpoints.from_folder(tmp_path) == Endpoints(reward="127.0.0.1:5", policy="127.0.0.1:6")


def test_the_client_is_light() -> None:
    heavy = ("torch", "trl", "transformers", "datasets", "verl", "kafka", "dbos")
    code = (
        f"import sys, assay_client.datasets, assay_client.trl, assay_client.verl; print([name for name in {heavy} if name in sys.modules])"
    )
    assert subprocess.check_output([sys.executable, "-c", code], text=True).strip() == "[]"
