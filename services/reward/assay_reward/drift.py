"""Whether a model's traffic still looks like what it was measured on.

The request path only notes each score in a bounded window; figures are computed when somebody asks for them. Scores of one call are
alike, so intervals and critical values are those of as many independent scores as the window is worth (`effective_size`).
"""

from __future__ import annotations

import itertools
import threading
from collections import deque
from collections.abc import Collection, Iterable
from dataclasses import dataclass
from typing import Literal

import numpy as np
from scipy.stats import chi2

from assay.common.v1 import common_pb2
from assay_reward.engine import Scored
from assay_reward.loaded import Entry, LoadedModel
from assay_reward.statistics import CONFIDENCE, Estimate, Floats, effective_size, rank_correlation, rate

PSI_BINS = 10


@dataclass(frozen=True, kw_only=True)
class Key:
    """A model's content under its name: other weights never share a window."""

    model: str
    revision: str
    fingerprint: str


@dataclass(frozen=True, kw_only=True)
class Reference:
    """The raw scores that a model was measured on, as its card tells them.

    Attributes:
        quantiles: At equal steps of probability from 0 to 1, not descending; at least two.
        n: Size of the sample.
    """

    quantiles: Floats
    n: int


@dataclass(frozen=True, kw_only=True)
class Drift:
    """A window of traffic; what needs a reference is None without one.

    Attributes:
        n: Scores in the window.
        effective_n: How many independent scores they are worth.
        truncation: Share of inputs of which tokens were dropped.
        length_correlation: Spearman's of raw score and response tokens.
        saturation: Share of scores outside the range of the reference.
        psi: Population stability index over ten bins of equal reference share; by custom 0.1 is worth a look and 0.25 a drift.
        psi_critical: What `psi` exceeds in 5 % of windows without drift: the chi-square quantile times
            1/effective n + 1/reference (Yurdakul 2018).
        ks: Two-sample Kolmogorov-Smirnov distance; 0..1.
        ks_critical: What `ks` exceeds in 5 % of windows without drift.
    """

    n: int
    effective_n: float
    truncation: Estimate
    length_correlation: Estimate | None
    saturation: Estimate | None = None
    psi: float | None = None
    psi_critical: float | None = None
    ks: float | None = None
    ks_critical: float | None = None


class DriftMonitor:
    """The newest scores of each model, in memory; safe between threads."""

    def __init__(self, *, window: int) -> None:
        """Takes the number of scores kept of each model; > 0."""
        self._window = window
        self._lock = threading.Lock()
        self._windows: dict[Key, deque[tuple[float, int, bool, int]]] = {}
        self._calls = itertools.count()

    def observe(self, loaded: LoadedModel, scored: Iterable[Scored]) -> None:
        """Notes the scores of a call."""
        key = _key(loaded)
        call = next(self._calls)
        noted = [(one.raw, one.prepared.response_tokens, one.prepared.tokens_dropped > 0, call) for one in scored]
        with self._lock:
            window = self._windows.get(key)
            if window is None:
                window = self._windows[key] = deque(maxlen=self._window)
            window.extend(noted)

    def drift(self, entry: Entry, card: common_pb2.QualityCard | None) -> Drift | None:
        """The figures of a model; None where it has scored nothing."""
        if entry.loaded is None:
            return None
        with self._lock:
            noted = list(self._windows.get(_key(entry.loaded), ()))
        if not noted:
            return None
        raw, tokens, truncated, calls = zip(*noted, strict=True)
        scores = np.array(raw, dtype=np.float64)
        effective = effective_size(scores, np.array(calls, dtype=np.int64))
        return drift_of(scores, np.array(tokens, dtype=np.float64), sum(truncated), reference_of(card), effective_n=effective)

    def keep(self, entries: Collection[Entry]) -> set[tuple[str, str]]:
        """Forgets what is not among these; returns name and revision of what was forgotten."""
        there = {_key(entry.loaded) for entry in entries if entry.loaded is not None}
        with self._lock:
            gone = self._windows.keys() - there
            for key in gone:
                del self._windows[key]
            left = {(key.model, key.revision) for key in self._windows}
        return {(key.model, key.revision) for key in gone} - left


def reference_of(card: common_pb2.QualityCard | None) -> Reference | None:
    """The reference sample of a card that has one."""
    if card is None or len(card.reference_quantiles) < 2 or card.reference_scores == 0:
        return None
    return Reference(quantiles=np.array(card.reference_quantiles), n=int(card.reference_scores))


def drift_of(
    raw: Floats, response_tokens: Floats, truncated: int, reference: Reference | None, *, effective_n: float | None = None
) -> Drift:
    """The figures of a window.

    Args:
        raw: Raw scores, shape (n,); n > 0.
        response_tokens: Length of each response, shape (n,).
        truncated: Inputs of which tokens were dropped.
        reference: What the scores are held against.
        effective_n: How many independent scores they are worth; n by default.
    """
    n = int(raw.size)
    worth = float(n) if effective_n is None else effective_n
    truncation = rate(truncated, n, worth)
    if truncation is None:
        raise ValueError("there is no drift of no scores")
    correlation = rank_correlation(raw, response_tokens, worth)
    if reference is None:
        return Drift(n=n, effective_n=worth, truncation=truncation, length_correlation=correlation)
    outside = (raw < reference.quantiles[0]) | (raw > reference.quantiles[-1])
    psi, bins = stability_index(raw, reference)
    share = 1 / worth + 1 / reference.n
    return Drift(
        n=n,
        effective_n=worth,
        truncation=truncation,
        length_correlation=correlation,
        saturation=rate(int(outside.sum()), n, worth),
        psi=psi,
        psi_critical=float(chi2.ppf(CONFIDENCE, bins - 1)) * share if bins > 1 else 0.0,
        ks=distance(raw, reference),
        ks_critical=float(np.sqrt(-np.log((1 - CONFIDENCE) / 2) / 2 * share)),
    )


def stability_index(raw: Floats, reference: Reference) -> tuple[float, int]:
    """Population stability index, and the number of its bins: fewer than ten where the reference has few different values.

    Half a score is added to each bin of the window, so that an empty bin gives a number.
    """
    deciles = np.quantile(reference.quantiles, np.linspace(0.0, 1.0, PSI_BINS + 1))
    edges = np.unique(deciles[1:-1])
    edges = edges[edges < reference.quantiles[-1]]
    bins = edges.size + 1
    expected = np.diff(np.concatenate([[0.0], _reference_share(reference, edges, "right"), [1.0]]))
    counts = np.bincount(np.searchsorted(edges, raw, side="left"), minlength=bins)
    actual = (counts + 0.5) / (raw.size + 0.5 * bins)
    return float(np.sum((actual - expected) * np.log(actual / expected))), bins


def distance(raw: Floats, reference: Reference) -> float:
    """Kolmogorov-Smirnov distance of the window from the reference, whose distribution runs straight between its quantiles."""
    ordered = np.sort(raw)
    points = np.concatenate([ordered, reference.quantiles])
    below = np.searchsorted(ordered, points, side="left") / ordered.size - _reference_share(reference, points, "left")
    up_to = np.searchsorted(ordered, points, side="right") / ordered.size - _reference_share(reference, points, "right")
    return float(max(np.abs(below).max(), np.abs(up_to).max()))


def _reference_share(reference: Reference, points: Floats, side: Literal["left", "right"]) -> Floats:
    """Share of the reference at or below ("right") or below ("left") each point; a value that several quantiles share is a jump."""
    quantiles = reference.quantiles
    levels = np.linspace(0.0, 1.0, quantiles.size)
    first, beyond = np.searchsorted(quantiles, points, side="left"), np.searchsorted(quantiles, points, side="right")
    at = np.minimum(first, quantiles.size - 1) if side == "left" else np.maximum(beyond - 1, 0)
    return np.where(beyond > first, levels[at], np.interp(points, quantiles, levels))


def _key(loaded: LoadedModel) -> Key:
    return Key(model=loaded.name, revision=loaded.revision, fingerprint=loaded.fingerprint.fingerprint)
