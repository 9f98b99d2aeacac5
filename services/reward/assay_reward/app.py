"""The reward service, put together."""

from __future__ import annotations

import logging

import torch
from prometheus_client import REGISTRY
from transformers.utils import logging as transformers_logging

from assay.inference.v2 import open_inference_pb2_grpc
from assay.reward.v1 import reward_pb2_grpc
from assay_kit.kafka import KafkaConnection, TopicFollower
from assay_kit.server import App, Door, Worker
from assay_kit.topics import QUALITY_CARDS
from assay_reward.admin_servicer import ModelAdminServicer
from assay_reward.admission import Limits
from assay_reward.cards import QualityCards
from assay_reward.doors.http_routes import http_door
from assay_reward.doors.open_inference import SERVICE_NAME, OpenInferenceServicer
from assay_reward.drift import DriftMonitor
from assay_reward.exposition import RewardCollector
from assay_reward.memory_budget import MemoryBudget
from assay_reward.models import LoadOptions
from assay_reward.remote import RemoteWork
from assay_reward.result_cache import ResultCache
from assay_reward.scheduler import Scheduler
from assay_reward.scoring import Scoring
from assay_reward.servicer import RewardServicer
from assay_reward.settings import RewardSettings
from assay_reward.shadow import Shadows
from assay_reward.shadow_worker import ShadowWorker
from assay_reward.store import ModelStore
from assay_reward.tokenizing import Tokenizing
from assay_reward.worker import score_worker

logger = logging.getLogger(__name__)

CARDS_SECONDS = 10.0
"""Longest wait at the start for the quality cards there are; without a broker the service starts without them."""
_BATCH_TOKENS = {"cpu": 4096, "cuda": 16_384}
"""By device. A CPU is busy with some hundred tokens, and a larger batch only makes who is more urgent wait; a GPU needs some thousands."""


def reward_app(settings: RewardSettings) -> App:
    """Wires the parts; nothing starts."""
    torch.set_num_threads(settings.threads)
    transformers_logging.disable_progress_bar()
    cards = QualityCards()
    options = load_options(settings)
    scheduler = Scheduler(
        limits=Limits(
            candidates=settings.reward_queue_candidates,
            tokens=settings.reward_queue_tokens,
            text_bytes=settings.reward_queue_mib * 1024 * 1024,
        ),
        batch_tokens=settings.reward_batch_tokens or _BATCH_TOKENS[options.device],
    )
    tokenizing = Tokenizing(threads=settings.threads)
    remote = RemoteWork(capacity=settings.reward_queue_candidates)
    store = ModelStore(
        remembered=settings.data_dir / "models.json",
        cache=settings.data_dir / "fetched-models",
        options=options,
        budget=MemoryBudget(max_bytes=settings.reward_memory_mib * 1024 * 1024, evict=settings.reward_evict),
    )
    drift = DriftMonitor(window=settings.reward_drift_scores)
    cache = ResultCache(max_bytes=settings.reward_cache_mib * 1024 * 1024)
    shadows = Shadows()
    scoring = Scoring(
        store=store,
        cards=cards,
        scheduler=scheduler,
        tokenizing=tokenizing,
        remote=remote,
        drift=drift,
        cache=cache,
        shadows=shadows,
        max_candidates=settings.reward_max_candidates,
        max_text_bytes=settings.reward_max_text_bytes,
    )
    collector = RewardCollector(store=store, cards=cards, scheduler=scheduler, drift=drift, cache=cache, shadows=shadows)
    connection = KafkaConnection.from_settings(settings) if settings.kafka_bootstrap else None
    follower = TopicFollower(connection, QUALITY_CARDS, cards.take) if connection else None
    workers: list[Worker] = [ShadowWorker(shadows=shadows, scoring=scoring)]
    if connection:
        workers.append(score_worker(connection, scoring, drain_seconds=settings.drain_seconds))
    http = http_door(settings, scoring)
    if http is not None:
        workers.append(http)

    def startup() -> None:
        REGISTRY.register(collector)
        tokenizing.start()
        scheduler.start()
        remote.start()
        if follower is not None:
            follower.start()
        store.restore()
        store.preload(settings.reward_preload)
        if follower is not None and not follower.caught_up(CARDS_SECONDS):
            logger.warning("the quality cards are not all read after %g s; they follow when Kafka answers", CARDS_SECONDS)

    def shutdown() -> None:
        if follower is not None:
            follower.stop()
        tokenizing.stop()
        scheduler.stop()
        remote.stop()
        REGISTRY.unregister(collector)

    return App(
        name="reward",
        settings=settings,
        doors=[
            Door(
                add=reward_pb2_grpc.add_RewardServiceServicer_to_server,
                servicer=RewardServicer(
                    scoring=scoring,
                    store=store,
                    cards=cards,
                    scheduler=scheduler,
                    tokenizing=tokenizing,
                    stream_batches=settings.reward_stream_batches,
                ),
                service_name="assay.reward.v1.RewardService",
            ),
            Door(
                add=reward_pb2_grpc.add_ModelAdminServiceServicer_to_server,
                servicer=ModelAdminServicer(store=store, cards=cards, shadows=shadows, max_candidates=scoring.max_candidates),
                service_name="assay.reward.v1.ModelAdminService",
            ),
            Door(
                add=open_inference_pb2_grpc.add_GRPCInferenceServiceServicer_to_server,
                servicer=OpenInferenceServicer(scoring=scoring, store=store, cards=cards),
                service_name=SERVICE_NAME,
            ),
        ],
        workers=workers,
        startup=startup,
        draining=http.drain if http is not None else None,
        shutdown=shutdown,
        addresses=lambda: {} if http is None else {"http": http.url},
    )


def load_options(settings: RewardSettings) -> LoadOptions:
    """How models are put on this machine."""
    device = settings.reward_device
    if device == "auto":
        device = "cuda" if torch.cuda.is_available() else "cpu"
    return LoadOptions(
        device=device,
        dtype=settings.reward_dtype,
        max_input_tokens=settings.reward_max_input_tokens,
        cache=settings.data_dir / "fetched-models",
        judge_concurrency=settings.reward_judge_concurrency,
        judge_timeout_seconds=settings.reward_judge_timeout_seconds,
    )
