"""Metrics that are true at the moment they are asked for: the models, their quality cards, their drift, and the queue."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from assay_kit.errors import Unavailable
from assay_reward import metrics
from assay_reward.cards import QualityCards
from assay_reward.drift import DriftMonitor
from assay_reward.loaded import Entry, State
from assay_reward.result_cache import ResultCache
from assay_reward.scheduler import Scheduler
from assay_reward.shadow import Shadows
from assay_reward.statistics import Estimate
from assay_reward.store import ModelStore

_LABELS = ["model", "revision"]
_INFO_LABELS = [*_LABELS, "kind", "architecture", "dtype", "fingerprint", "calibration_id"]
_SHADOW_LABELS = [*_LABELS, "candidate", "candidate_revision"]


class RewardCollector(Collector):
    """Reads the store, the cards, the window of scores and the scheduler on each scrape; a model that is gone leaves no series behind."""

    def __init__(
        self, *, store: ModelStore, cards: QualityCards, scheduler: Scheduler, drift: DriftMonitor, cache: ResultCache, shadows: Shadows
    ) -> None:
        self._store = store
        self._cards = cards
        self._scheduler = scheduler
        self._drift = drift
        self._cache = cache
        self._shadows = shadows

    def describe(self) -> list[Metric]:
        """Nothing: the registry need not collect once to learn the names."""
        return []

    def collect(self) -> Iterator[Metric]:
        """The families."""
        yield GaugeMetricFamily("assay_reward_queue_candidates", "Candidates waiting or on the device.", value=self._scheduler.held)
        capacity = self._scheduler.limits.candidates
        yield GaugeMetricFamily("assay_reward_queue_capacity", "Most candidates waiting or on the device.", value=capacity)
        tokens, text, wait = self._scheduler.backlog_tokens, self._scheduler.held_text_bytes, self._scheduler.wait_seconds
        yield GaugeMetricFamily("assay_reward_queue_tokens", "Tokens that wait: expected of texts, or queued.", value=tokens)
        yield GaugeMetricFamily("assay_reward_queue_text_bytes", "Bytes of text of the calls that are not done.", value=text)
        yield GaugeMetricFamily(
            "assay_reward_queue_wait_seconds", "Time that all that is admitted should take, by the rates measured.", value=wait
        )
        yield GaugeMetricFamily("assay_reward_cache_entries", "Scores in the result cache.", value=self._cache.entries)
        yield GaugeMetricFamily("assay_reward_cache_bytes", "Room in use of the result cache.", value=self._cache.held_bytes)
        try:
            entries = self._store.entries()
        except Unavailable:
            entries = []
        metrics.forget(self._drift.keep(entries), [entry.name for entry in entries])
        for metric in metrics.OF_MODELS:
            yield from metric.collect()
        yield from self._models(entries)
        yield from self._drifts(entries)
        self._shadows.keep(entries)
        yield from self._comparisons()

    def _models(self, entries: Sequence[Entry]) -> Iterator[Metric]:
        loaded = GaugeMetricFamily("assay_reward_model_ready", "1 for a model that scores, 0 for one that does not.", labels=_LABELS)
        info = GaugeMetricFamily("assay_reward_model_info", "1, with what the model is in the labels.", labels=_INFO_LABELS)
        memory = GaugeMetricFamily("assay_reward_model_memory_bytes", "What the model's weights take in memory.", labels=_LABELS)
        accuracy = _Estimates("assay_reward_model_accuracy", "Accuracy on clean held-out pairs, by the quality card")
        age = GaugeMetricFamily("assay_reward_model_card_age_seconds", "Time since the quality card was measured.", labels=_LABELS)
        for entry in entries:
            labels = [entry.name, entry.revision]
            loaded.add_metric(labels, float(entry.state is State.READY))
            card = self._cards.get(entry.fingerprint)
            if entry.loaded is not None:
                model = entry.loaded.model
                calibration = card.calibration.id if card is not None else ""
                memory.add_metric(labels, entry.loaded.memory_bytes)
                info.add_metric([*labels, model.kind, model.architecture, model.dtype, entry.fingerprint, calibration], 1.0)
            if card is not None:
                measured = card.accuracy
                accuracy.add(labels, Estimate(value=measured.value, low=measured.low, high=measured.high, n=measured.n))
                age.add_metric(labels, time.time() - card.measured_at.ToNanoseconds() / 1e9)
        yield from (loaded, info, memory, *accuracy.families, age)

    def _drifts(self, entries: Sequence[Entry]) -> Iterator[Metric]:
        scores = GaugeMetricFamily("assay_reward_drift_scores", "Scores in the window that drift is told from.", labels=_LABELS)
        psi = GaugeMetricFamily("assay_reward_drift_psi", "Population stability index against the card's sample.", labels=_LABELS)
        psi_critical = GaugeMetricFamily("assay_reward_drift_psi_critical", "What it exceeds in 5 % without drift.", labels=_LABELS)
        ks = GaugeMetricFamily("assay_reward_drift_ks", "Kolmogorov-Smirnov distance from the card's sample.", labels=_LABELS)
        ks_critical = GaugeMetricFamily("assay_reward_drift_ks_critical", "What it exceeds in 5 % without drift.", labels=_LABELS)
        saturation = _Estimates("assay_reward_drift_saturation_ratio", "Share of scores outside the range of the card's sample")
        truncation = _Estimates("assay_reward_drift_truncation_ratio", "Share of inputs of which tokens were dropped")
        length = _Estimates("assay_reward_drift_length_correlation", "Spearman's correlation of raw score and response tokens")
        for entry in entries:
            drift = self._drift.drift(entry, self._cards.get(entry.fingerprint))
            if drift is None:
                continue
            labels = [entry.name, entry.revision]
            scores.add_metric(labels, drift.n)
            truncation.add(labels, drift.truncation)
            length.add(labels, drift.length_correlation)
            saturation.add(labels, drift.saturation)
            for family, value in ((psi, drift.psi), (psi_critical, drift.psi_critical), (ks, drift.ks), (ks_critical, drift.ks_critical)):
                if value is not None:
                    family.add_metric(labels, value)
        yield from (scores, psi, psi_critical, ks, ks_critical, *saturation.families, *truncation.families, *length.families)

    def _comparisons(self) -> Iterator[Metric]:
        calls = CounterMetricFamily("assay_reward_shadow_calls", "Calls drawn for a candidate.", labels=[*_SHADOW_LABELS, "outcome"])
        flips = _Estimates("assay_reward_shadow_flip_rate", "Share of pairs whose order the candidate turns round", _SHADOW_LABELS)
        ranks = _Estimates("assay_reward_shadow_rank_correlation", "Spearman's correlation of the two raw scores", _SHADOW_LABELS)
        apart = _Estimates("assay_reward_shadow_standardized_difference", "Mean absolute difference in spreads", _SHADOW_LABELS)
        best = _Estimates("assay_reward_shadow_best_agreement", "Share of groups whose best answer is the same", _SHADOW_LABELS)
        for shadow in self._shadows.all():
            report = shadow.report()
            labels = [shadow.model.model, shadow.model.revision, shadow.candidate.model, shadow.candidate.revision]
            for outcome, count in (("compared", report.compared), ("skipped", report.skipped), ("failed", report.failed)):
                calls.add_metric([*labels, outcome], count)
            flips.add(labels, report.flip_rate)
            ranks.add(labels, report.rank_correlation)
            apart.add(labels, report.standardized_difference)
            best.add(labels, report.best_agreement)
        yield from (calls, *flips.families, *ranks.families, *apart.families, *best.families)


class _Estimates:
    """A gauge with two more for the bounds of its 95 % interval."""

    def __init__(self, name: str, what: str, labels: Sequence[str] = _LABELS) -> None:
        self.families = (
            GaugeMetricFamily(name, f"{what}.", labels=labels),
            GaugeMetricFamily(f"{name}_low", f"{what}: lower bound of the 95 % interval.", labels=labels),
            GaugeMetricFamily(f"{name}_high", f"{what}: upper bound of the 95 % interval.", labels=labels),
        )

    def add(self, labels: Sequence[str], estimate: Estimate | None) -> None:
        """A model's figure; nothing where it is not defined."""
        if estimate is not None:
            for family, value in zip(self.families, (estimate.value, estimate.low, estimate.high), strict=True):
                family.add_metric(labels, value)
