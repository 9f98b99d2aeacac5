"""Metrics that are true at the moment they are asked for: the models, their quality cards, and the queue."""

from __future__ import annotations

import time
from collections.abc import Iterator

from prometheus_client.core import GaugeMetricFamily
from prometheus_client.registry import Collector

from assay_kit.errors import Unavailable
from assay_reward.cards import QualityCards
from assay_reward.loaded import State
from assay_reward.scheduler import Scheduler
from assay_reward.store import ModelStore

_LABELS = ["model", "revision"]


class RewardCollector(Collector):
    """Reads the store, the cards and the scheduler on each scrape, so that a model that is gone leaves no series behind."""

    def __init__(self, *, store: ModelStore, cards: QualityCards, scheduler: Scheduler) -> None:
        self._store = store
        self._cards = cards
        self._scheduler = scheduler

    def describe(self) -> list[GaugeMetricFamily]:
        """Nothing: the registry need not collect once to learn the names."""
        return []

    def collect(self) -> Iterator[GaugeMetricFamily]:
        """The families."""
        yield GaugeMetricFamily("assay_reward_queue_candidates", "Candidates waiting or on the device.", value=self._scheduler.held)
        yield GaugeMetricFamily("assay_reward_queue_capacity", "Most candidates waiting or on the device.", value=self._scheduler.capacity)
        loaded = GaugeMetricFamily("assay_reward_model_ready", "1 for a model that scores, 0 for one that does not.", labels=_LABELS)
        accuracy = GaugeMetricFamily(
            "assay_reward_model_accuracy", "Accuracy on clean held-out pairs, by the quality card.", labels=_LABELS
        )
        low = GaugeMetricFamily("assay_reward_model_accuracy_low", "Lower bound of its 95 % interval.", labels=_LABELS)
        high = GaugeMetricFamily("assay_reward_model_accuracy_high", "Upper bound of its 95 % interval.", labels=_LABELS)
        age = GaugeMetricFamily("assay_reward_model_card_age_seconds", "Time since the quality card was measured.", labels=_LABELS)
        try:
            entries = self._store.entries()
        except Unavailable:
            entries = []
        for entry in entries:
            labels = [entry.name, entry.revision]
            loaded.add_metric(labels, float(entry.state is State.READY))
            card = self._cards.get(entry.fingerprint)
            if card is not None:
                accuracy.add_metric(labels, card.accuracy.value)
                low.add_metric(labels, card.accuracy.low)
                high.add_metric(labels, card.accuracy.high)
                age.add_metric(labels, time.time() - card.measured_at.ToNanoseconds() / 1e9)
        yield from (loaded, accuracy, low, high, age)
