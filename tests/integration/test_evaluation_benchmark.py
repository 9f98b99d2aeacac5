"""A benchmark through the real doors: a real broker, the reward service as a process of its own, quality cards back to it."""

import asyncio
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import grpc
import pytest
from support.evaluation_service import Stubs, evaluation_service

from assay.common.v1 import common_pb2
from assay.evaluation.v1 import evaluation_pb2
from assay.jobs.v1 import jobs_pb2
from assay.reward.v1 import reward_pb2, reward_pb2_grpc
from assay_cli.ports import free_ports
from assay_data.bag_of_words import fit_bag_of_words
from assay_data.conversations import PreferencePair, prompt_key
from assay_data.generated import generate_pairs
from assay_data.pairs import read_pairs, write_pairs
from assay_kit.kafka import KafkaConnection, ensure_topics

CLEAN = ("SAME",)


class RewardProcess:
    """`python -m assay_reward` at one address, to be killed and started again."""

    def __init__(self, folder: Path, bootstrap: str) -> None:
        (port,) = free_ports(1)
        self.folder, self.target = folder, f"127.0.0.1:{port}"
        folder.mkdir()
        self.environment = {
            **os.environ,
            "OMP_NUM_THREADS": "1",
            "ASSAY_DATA_DIR": str(folder),
            "ASSAY_GRPC_PORT": str(port),
            "ASSAY_KAFKA_BOOTSTRAP": bootstrap,
        }
        self.process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        with (self.folder / "log.txt").open("ab") as log:
            self.process = subprocess.Popen([sys.executable, "-m", "assay_reward"], env=self.environment, stdout=log, stderr=log)

    def kill(self) -> None:
        if self.process is not None and self.process.poll() is None:
            self.process.send_signal(signal.SIGKILL)
            self.process.wait()

    def ready(self) -> None:
        with grpc.insecure_channel(self.target) as channel:
            grpc.channel_ready_future(channel).result(timeout=60)
            stub = reward_pb2_grpc.RewardServiceStub(channel)
            until = time.monotonic() + 60
            while True:
                try:
                    stub.ListModels(reward_pb2.ListModelsRequest(), timeout=10, wait_for_ready=True)
                    return
                except grpc.RpcError:
                    if time.monotonic() > until:
                        raise AssertionError((self.folder / "log.txt").read_text()) from None
                    time.sleep(0.2)


@pytest.fixture(scope="module")
def reward(kafka_bootstrap: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[RewardProcess]:
    ensure_topics(KafkaConnection(kafka_bootstrap))
    process = RewardProcess(tmp_path_factory.mktemp("stack") / "reward", kafka_bootstrap)
    process.start()
    try:
        process.ready()
        yield process
    finally:
        process.kill()


@pytest.fixture(scope="module")
def held_out(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Pairs of the generated set whose recorded preference is right, not used for fitting."""
    path = tmp_path_factory.mktemp("data") / "held_out.jsonl"
    write_pairs(str(path), [pair for pair in generate_pairs(400, seed=5) if pair.metadata["planted_category"] in CLEAN])
    return path


@pytest.fixture(scope="module")
def models(reward: RewardProcess, tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """Loads a model fitted on right labels and one fitted on labels turned round; name -> fingerprint."""
    folder = tmp_path_factory.mktemp("models")
    pairs = [pair for pair in generate_pairs(500, seed=6) if pair.metadata["planted_category"] in CLEAN]
    fitted = {"right": fit_bag_of_words(pairs), "turned": fit_bag_of_words([pair.turned_round() for pair in pairs])}
    fingerprints = {}
    with grpc.insecure_channel(reward.target) as channel:
        admin = reward_pb2_grpc.ModelAdminServiceStub(channel)
        for name, model in fitted.items():
            model.save(folder / name)
            loaded = admin.LoadModel(reward_pb2.LoadModelRequest(name=name, uri=str(folder / name)), timeout=60).model
            fingerprints[name] = loaded.provenance.fingerprint
    return fingerprints


def request(job_id: str, held_out: Path, **fields: object) -> evaluation_pb2.CreateBenchmarkJobRequest:
    names = {"reward_models": ["right", "turned"], "publish_cards": True, **fields}
    return evaluation_pb2.CreateBenchmarkJobRequest(job_id=job_id, data_uri=str(held_out), **names)  # type: ignore[arg-type]


async def run(service: Stubs, asked: evaluation_pb2.CreateBenchmarkJobRequest) -> jobs_pb2.Job:
    await service.evaluation.CreateBenchmarkJob(asked)
    return await service.ended(asked.job_id)


async def test_a_benchmark_tells_right_from_turned_round_and_its_cards_reach_the_reward_service(
    tmp_path: Path, kafka_bootstrap: str, reward: RewardProcess, models: dict[str, str], held_out: Path
) -> None:
    settings = {"kafka_bootstrap": kafka_bootstrap, "reward_target": reward.target}
    async with evaluation_service(tmp_path / "evaluation", **settings) as service:
        job = await run(service, request("both-ways", held_out, output_uri=str(tmp_path / "out")))
        assert job.state == jobs_pb2.JOB_STATE_SUCCEEDED, job.error
        board = json.loads((tmp_path / "out/benchmark.json").read_text())
        right, turned = board["models"]
        assert (right["name"], turned["name"]) == ("right", "turned")
        assert right["accuracy"]["low"] > 0.6
        assert turned["accuracy"]["high"] < 0.4
        assert right["accuracy"]["n"] == board["n"] == sum(1 for _ in held_out.open())
        assert board["tests"][0]["corrected_p_value"] < 0.001
        same_figures(board, tmp_path / "out", read_pairs(str(held_out)), models)

        async with grpc.aio.insecure_channel(reward.target) as channel:
            stub = reward_pb2_grpc.RewardServiceStub(channel)
            shown = await stub.GetModel(reward_pb2.GetModelRequest(model=common_pb2.ModelSelector(name="right")))
        assert shown.model.quality_card.accuracy.value == pytest.approx(right["accuracy"]["value"])
        assert shown.model.quality_card.data.rows == board["n"]
        assert shown.model.provenance.calibration_id == shown.model.quality_card.calibration.id != ""
        assert shown.model.quality_card.calibration.temperature.n == board["n"] == right["calibration"]["n"]
        assert shown.model.quality_card.reference_scores == 2 * board["n"]
        assert list(shown.model.quality_card.reference_quantiles) == right["reference"]["quantiles"]

        for name, fingerprint in models.items():
            got = await card(service, fingerprint)
            assert got.model == name
        listed = await service.evaluation.ListQualityCards(evaluation_pb2.ListQualityCardsRequest(page_size=1))
        assert len(listed.cards) == 1
        assert listed.next_page_token
        rest = await service.evaluation.ListQualityCards(evaluation_pb2.ListQualityCardsRequest(page_token=listed.next_page_token))
        assert listed.cards[0].fingerprint not in {one.fingerprint for one in rest.cards}
        assert models["turned"] in {one.fingerprint for one in (*listed.cards, *rest.cards)}


def same_figures(board: dict[str, Any], out: Path, pairs: Iterator[PreferencePair], fingerprints: dict[str, str]) -> None:
    """scores.jsonl has a line a model and pair, in the order of the pairs, from which the board's figures follow."""
    rows = [json.loads(line) for line in (out / "scores.jsonl").read_text().splitlines()]
    ids = [(pair.id, prompt_key(pair)) for pair in pairs]
    assert len(rows) == len(ids) * len(fingerprints)
    for measured in board["models"]:
        mine = [row for row in rows if row["model"] == measured["name"]]
        assert [(row["id"], row["prompt_id"]) for row in mine] == ids
        assert {row["fingerprint"] for row in mine} == {fingerprints[measured["name"]]}
        ties = sum(row["chosen"] == row["rejected"] for row in mine)
        wins = sum(row["chosen"] > row["rejected"] for row in mine)
        assert measured["ties"] == ties
        assert measured["accuracy"]["value"] == pytest.approx((wins + ties / 2) / len(mine), abs=1e-4)
    assert sorted(path.name for path in out.iterdir()) == ["benchmark.json", "scores.jsonl"]


async def test_a_reward_service_killed_in_the_middle_changes_no_figure(
    tmp_path: Path, kafka_bootstrap: str, reward: RewardProcess, models: dict[str, str], held_out: Path
) -> None:
    settings = {"kafka_bootstrap": kafka_bootstrap, "reward_target": reward.target}
    async with evaluation_service(tmp_path / "evaluation", **settings) as service:
        undisturbed = await run(service, request("undisturbed", held_out, publish_cards=False))
        reward.kill()
        await service.evaluation.CreateBenchmarkJob(request("disturbed", held_out, publish_cards=False))
        await asyncio.sleep(1)
        reward.start()
        disturbed = await service.ended("disturbed")
        assert disturbed.state == jobs_pb2.JOB_STATE_SUCCEEDED, disturbed.error
        assert dict(disturbed.result)["models"] == dict(undisturbed.result)["models"]


async def test_a_model_that_is_not_loaded_fails_the_benchmark_and_is_named(
    tmp_path: Path, kafka_bootstrap: str, reward: RewardProcess, models: dict[str, str], held_out: Path
) -> None:
    settings = {"kafka_bootstrap": kafka_bootstrap, "reward_target": reward.target}
    async with evaluation_service(tmp_path / "evaluation", **settings) as service:
        job = await run(service, request("unknown", held_out, reward_models=["wrong"], limit=3))
        assert job.state == jobs_pb2.JOB_STATE_FAILED
        assert "wrong" in job.error and "right" in job.error


async def card(service: Stubs, fingerprint: str) -> common_pb2.QualityCard:
    """The card as the evaluation service has it, once its follower has read it."""
    for _ in range(100):
        try:
            return (await service.evaluation.GetQualityCard(evaluation_pb2.GetQualityCardRequest(fingerprint=fingerprint))).card
        except grpc.aio.AioRpcError as error:
            assert error.code() == grpc.StatusCode.NOT_FOUND
            await asyncio.sleep(0.1)
    raise AssertionError(f"no card for {fingerprint} after ten seconds")
