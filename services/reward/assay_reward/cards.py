"""Quality cards by fingerprint: what was measured about a model, wherever it is loaded from and whatever it is called."""

from __future__ import annotations

import itertools
import logging
import math
import threading

from assay.common.v1 import common_pb2
from assay_kit.kafka import Record

logger = logging.getLogger(__name__)


class QualityCards:
    """The newest card of each model, in memory; the compacted topic fills it again after a restart."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._cards: dict[str, common_pb2.QualityCard] = {}

    def get(self, fingerprint: str) -> common_pb2.QualityCard | None:
        """The card of a model, or None where nothing was measured."""
        with self._lock:
            return self._cards.get(fingerprint)

    def take(self, record: Record) -> None:
        """Keeps the card of a record of the topic; a deletion removes it. A card that cannot be true is logged and left."""
        if record.message is None:
            with self._lock:
                self._cards.pop(record.key.decode("utf-8", "replace"), None)
            return
        card: common_pb2.QualityCard = record.message
        fault = _fault(card)
        if fault:
            logger.error("the quality card at offset %d is left aside: %s", record.offset, fault)
            return
        with self._lock:
            self._cards[card.fingerprint] = card
        logger.info("quality card of %s (%s): accuracy %.3f", card.model, card.fingerprint[:12], card.accuracy.value)


def _fault(card: common_pb2.QualityCard) -> str:
    if not card.fingerprint:
        return "fingerprint is empty; it is the card's key"
    for name in ("mean", "std", "temperature", "mean_response_tokens"):
        if not math.isfinite(getattr(card, name)):
            return f"{name} is {getattr(card, name)}; a finite number is wanted"
    if card.std < 0 or card.temperature < 0:
        return f"std is {card.std} and temperature {card.temperature}; neither is below 0"
    if card.HasField("length_slope") and not math.isfinite(card.length_slope.value):
        return f"length_slope is {card.length_slope.value}; a finite number is wanted"
    if any(not math.isfinite(value) for value in card.reference_quantiles):
        return "reference_quantiles holds a number that is not finite"
    if any(after < before for before, after in itertools.pairwise(card.reference_quantiles)):
        return "reference_quantiles descends; quantiles never do"
    return ""
