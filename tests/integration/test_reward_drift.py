"""Drift through the real doors: a quality card over Kafka, traffic over gRPC, figures from a scrape."""

import asyncio
import urllib.request
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import numpy as np
from prometheus_client import start_http_server
from prometheus_client.parser import text_string_to_metric_families
from support.reward_service import RewardClient, group, reward_service, selector
from support.tiny_models import write_tiny_reward_model

from assay.common.v1 import common_pb2
from assay.reward.v1 import reward_pb2
from assay_kit.kafka import EventProducer, KafkaConnection, ensure_topics
from assay_kit.topics import QUALITY_CARDS

OF_A_MODEL = "assay_reward_"


@asynccontextmanager
async def metrics_page() -> AsyncIterator[str]:
    server, _ = start_http_server(0, "127.0.0.1")
    try:
        yield f"http://127.0.0.1:{server.server_port}/metrics"
    finally:
        server.shutdown()


async def scrape(url: str, model: str) -> dict[str, float]:
    """Values by name and, where a model has several series of it, the last of them; histograms by their count."""
    page = await asyncio.to_thread(lambda: urllib.request.urlopen(url, timeout=10).read().decode())
    return {
        sample.name: sample.value
        for family in text_string_to_metric_families(page)
        for sample in family.samples
        if sample.labels.get("model") == model and sample.name.startswith(OF_A_MODEL)
    }


def answers(n: int, seed: int) -> list[str]:
    rng = np.random.default_rng(seed)
    return [" ".join(rng.choice(["flour", "water", "bake", "rise", "salt"], size=rng.integers(3, 12))) for _ in range(n)]


async def scores(client: RewardClient, texts: list[str]) -> list[float]:
    replies = [await client.reward.ScoreGroup(group(texts[at : at + 200])) for at in range(0, len(texts), 200)]
    return [score.raw for reply in replies for score in reply.scores]


def publish(connection: KafkaConnection, card: common_pb2.QualityCard) -> None:
    producer = EventProducer(connection, "test")
    try:
        producer.send(QUALITY_CARDS, card.fingerprint, card)
        producer.flush()
    finally:
        producer.close()


async def test_traffic_like_the_reference_shows_no_drift_and_other_traffic_does(tmp_path: Path, kafka_bootstrap: str) -> None:
    connection = KafkaConnection(kafka_bootstrap)
    await asyncio.to_thread(ensure_topics, connection)
    folder = write_tiny_reward_model(tmp_path / "model", seed=31)
    settings = {"kafka_bootstrap": kafka_bootstrap, "reward_drift_scores": 400}
    async with reward_service(tmp_path / "reward", **settings) as client, metrics_page() as url:
        info = await client.load("drifting", folder)
        sample = await scores(client, answers(400, seed=1))
        before = await scrape(url, "drifting")
        assert before["assay_reward_drift_scores"] == 400
        assert before["assay_reward_drift_truncation_ratio"] == 0.0 < before["assay_reward_drift_truncation_ratio_high"] < 0.02
        assert "assay_reward_drift_psi" not in before and "assay_reward_model_accuracy" not in before
        card = common_pb2.QualityCard(
            fingerprint=info.provenance.fingerprint,
            model="drifting",
            accuracy=common_pb2.Estimate(value=0.71, low=0.68, high=0.74, n=900),
            reference_quantiles=np.quantile(sample, np.linspace(0, 1, 101)),
            reference_scores=len(sample),
        )
        card.measured_at.GetCurrentTime()
        await asyncio.to_thread(publish, connection, card)
        async with asyncio.timeout(20):
            while not (await client.reward.GetModel(reward_pb2.GetModelRequest())).model.HasField("quality_card"):
                await asyncio.sleep(0.05)
        texts = answers(400, seed=2)
        found = await scores(client, texts)
        like = await scrape(url, "drifting")
        assert like["assay_reward_drift_psi"] < 0.1
        assert like["assay_reward_drift_ks"] < 1.2 * like["assay_reward_drift_ks_critical"]
        assert like["assay_reward_drift_saturation_ratio"] < 0.03
        # A policy that has learnt to please the model: only answers above the median of what it was measured on.
        pleasing = [text for text, score in zip(texts, found, strict=True) if score > np.median(sample)]
        await scores(client, (3 * pleasing)[:400])
        other = await scrape(url, "drifting")
        assert other["assay_reward_drift_psi"] > 0.25 > other["assay_reward_drift_psi_critical"]
        assert other["assay_reward_drift_ks"] > other["assay_reward_drift_ks_critical"]
        assert other["assay_reward_score_count"] == 1200
        assert (other["assay_reward_model_accuracy"], other["assay_reward_model_accuracy_low"]) == (0.71, 0.68)
        assert 0 <= other["assay_reward_model_card_age_seconds"] < 300


async def test_a_model_that_is_unloaded_or_replaced_leaves_no_series(tmp_path: Path) -> None:
    first, second = (write_tiny_reward_model(tmp_path / str(seed), seed=seed) for seed in (32, 33))
    async with reward_service(tmp_path / "reward") as client, metrics_page() as url:
        revisions = []
        for folder in (first, second):
            revisions.append((await client.load("passing", folder)).revision)
            await client.reward.ScoreGroup(group(["one", "two", "three"], model=selector("passing")))
        page = await asyncio.to_thread(lambda: urllib.request.urlopen(url, timeout=10).read().decode())
        assert revisions[0] not in page
        assert f'assay_reward_score_count{{model="passing",revision="{revisions[1]}"}} 3.0' in page
        assert 'assay_reward_candidates_total{door="grpc",model="passing"} 6.0' in page
        assert (await scrape(url, "passing"))["assay_reward_model_info"] == 1.0
        await client.admin.UnloadModel(reward_pb2.UnloadModelRequest(model=selector("passing")))
        assert await scrape(url, "passing") == {}
