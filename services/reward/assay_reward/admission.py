"""Who is let in: bounds on what is held, and whether a caller's deadline can be met."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from assay_reward.fair_queue import AGED_SHARE, Standing
from assay_reward.inputs import Priority
from assay_reward.models.base import RewardModel

_FORGETTING = 0.9
"""What a batch leaves of the weight of those before it."""
_TOKENS_PER_BYTE = 0.25
"""Of text, until a model's own are measured; about right for English."""


@dataclass(frozen=True, kw_only=True)
class Limits:
    """Most that is held at a time. One call alone is let in whatever it holds: the size of a message bounds it."""

    candidates: int
    """Waiting or on the device."""
    tokens: int
    """Tokenised or about to be."""
    text_bytes: int
    """Of the texts of calls that are not done."""


@dataclass(frozen=True, kw_only=True)
class Demand:
    """What a call asks of the device."""

    model: RewardModel
    candidates: int
    """> 0"""
    text_bytes: int = 0
    """Of all candidates with their conversations; four a token id."""
    standing: Standing = field(default_factory=Standing)


class Rate:
    """What was measured of one model: tokens a second, and tokens a byte of text. Long batches weigh more than short ones."""

    def __init__(self) -> None:
        self._tokens = 0.0
        self._seconds = 0.0
        self._made_tokens = 0.0
        self._made_bytes = 0.0

    @property
    def tokens_per_second(self) -> float:
        """0 before the first batch."""
        return self._tokens / self._seconds if self._seconds else 0.0

    def ran(self, tokens: int, seconds: float) -> None:
        """A batch was computed."""
        self._tokens = _FORGETTING * self._tokens + tokens
        self._seconds = _FORGETTING * self._seconds + max(seconds, 1e-6)

    def tokenized(self, text_bytes: int, tokens: int) -> None:
        """Text became tokens that must be computed."""
        self._made_bytes = _FORGETTING * self._made_bytes + text_bytes
        self._made_tokens = _FORGETTING * self._made_tokens + tokens

    def expected_tokens(self, candidates: int, text_bytes: int) -> int:
        """Tokens that texts will be; at least one a candidate."""
        ratio = self._made_tokens / self._made_bytes if self._made_bytes else _TOKENS_PER_BYTE
        return max(candidates, round(text_bytes * ratio))

    def seconds(self, tokens: float) -> float:
        """Time of the device for tokens; 0 before the first batch."""
        return tokens * self._seconds / self._tokens if self._tokens else 0.0


class Backlog:
    """Tokens that wait for one model, by priority and caller: those expected of admitted texts, and those queued."""

    def __init__(self) -> None:
        self._lanes: dict[Priority, dict[str, int]] = {priority: {} for priority in Priority}

    @property
    def tokens(self) -> int:
        """All of them."""
        return sum(sum(lane.values()) for lane in self._lanes.values())

    def add(self, standing: Standing, tokens: int) -> None:
        """Adds tokens, or takes them off where negative."""
        lane = self._lanes[standing.priority]
        left = lane.get(standing.caller, 0) + tokens
        if left > 0:
            lane[standing.caller] = left
        else:
            lane.pop(standing.caller, None)

    def before(self, standing: Standing, tokens: int) -> float:
        """Tokens that the queue computes until `tokens` more of this caller are done, themselves not counted.

        Callers of one priority take turns, so that of each other caller at most as many go before as this one has.
        """
        lane = self._lanes[standing.priority]
        own = lane.get(standing.caller, 0)
        higher = sum(_total(other) for priority, other in self._lanes.items() if priority.value < standing.priority.value)
        alike = sum(min(theirs, own + tokens) for caller, theirs in lane.items() if caller != standing.caller)
        ahead = higher + own + alike
        lower = sum(_total(other) for priority, other in self._lanes.items() if priority.value > standing.priority.value)
        return ahead + min(lower, (ahead + tokens) * AGED_SHARE / (1 - AGED_SHARE))

    def at_most(self, priority: Priority) -> int:
        """Tokens of a priority and of those above it."""
        return sum(_total(lane) for other, lane in self._lanes.items() if other.value <= priority.value)


def _total(lane: Mapping[str, int]) -> int:
    return sum(lane.values())
