"""Quality cards: made from a benchmark, kept by fingerprint, newest first."""

from __future__ import annotations

import hashlib
import json
import threading
from typing import Any

from google.protobuf.timestamp_pb2 import Timestamp

from assay.common.v1 import common_pb2
from assay_evaluation.metrics import CARDS


def make_card(model: dict[str, Any], *, data: common_pb2.Artifact, measured_at: Timestamp) -> common_pb2.QualityCard:
    """The card of one model.

    Args:
        model: The model's entry of a leaderboard (`ModelBenchmark.as_dict`).
        data: What it was measured on.
        measured_at: When.
    """
    card = common_pb2.QualityCard(
        fingerprint=model["fingerprint"],
        model=model["name"],
        accuracy=_estimate(model["accuracy"]),
        ties=model["ties"],
        length_correlation=model["length_correlation"],
        mean=model["mean"],
        std=model["std"],
        temperature=model["temperature"],
        expected_calibration_error=model["expected_calibration_error"],
        subsets={name: _estimate(subset) for name, subset in model["subsets"].items() if subset["value"] < model["accuracy"]["value"]},
        data=data,
        measured_at=measured_at,
        mean_response_tokens=model["reference"]["mean_response_tokens"],
        reference_quantiles=model["reference"]["quantiles"],
        reference_scores=model["reference"]["scores"],
    )
    if model["reference"]["length_slope"] is not None:
        card.length_slope.CopyFrom(_estimate(model["reference"]["length_slope"]))
    if model["on_policy_rank_correlation"] is not None:
        card.on_policy_rank_correlation.CopyFrom(_estimate(model["on_policy_rank_correlation"]))
    calibration = model["calibration"]
    card.calibration.CopyFrom(
        common_pb2.Calibration(
            id=calibration_id(card),
            temperature=_estimate(calibration["temperature"]),
            folds=calibration["folds"],
            log_loss=_estimate(calibration["log_loss"]),
            uncalibrated_log_loss=_estimate(calibration["uncalibrated_log_loss"]),
            log_loss_gain=_estimate(calibration["log_loss_gain"]),
            expected_calibration_error=calibration["expected_calibration_error"],
            uncalibrated_expected_calibration_error=calibration["uncalibrated_expected_calibration_error"],
        )
    )
    return card


def calibration_id(card: common_pb2.QualityCard) -> str:
    """Names the figures that derived scores use: the same figures have the same id, any other figure another."""
    slope = card.length_slope.value if card.HasField("length_slope") else None
    figures = [card.fingerprint, card.mean, card.std, card.temperature, slope, card.mean_response_tokens]
    return hashlib.sha256(json.dumps(figures).encode()).hexdigest()[:32]


class CardStore:
    """The newest card of each fingerprint, as the compacted topic tells them; safe between threads."""

    def __init__(self) -> None:
        self._cards: dict[str, common_pb2.QualityCard] = {}
        self._lock = threading.Lock()

    def put(self, card: common_pb2.QualityCard) -> None:
        """Takes a card in place of an older one of the same fingerprint."""
        with self._lock:
            self._cards[card.fingerprint] = card
            CARDS.set(len(self._cards))

    def get(self, fingerprint: str) -> common_pb2.QualityCard | None:
        """The card of a model, or None."""
        with self._lock:
            return self._cards.get(fingerprint)

    def all(self) -> list[common_pb2.QualityCard]:
        """All cards, newest first; equals by fingerprint."""
        with self._lock:
            cards = list(self._cards.values())
        return sorted(cards, key=lambda card: (-card.measured_at.ToNanoseconds(), card.fingerprint))


def _estimate(figures: dict[str, Any]) -> common_pb2.Estimate:
    return common_pb2.Estimate(value=figures["value"], low=figures["low"], high=figures["high"], n=figures["n"])
