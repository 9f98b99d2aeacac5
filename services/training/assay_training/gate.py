"""The gate: nothing is optimised against a reward model that was not measured, or was measured and found too weak."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import grpc

from assay.reward.v1 import reward_pb2
from assay_client.channels import Security
from assay_client.client import AssayClient
from assay_client.endpoints import Endpoints
from assay_client.errors import AssayClientError
from assay_kit.errors import AssayError, FailedPrecondition, NotFound, Unavailable
from assay_training.metrics import GATE_REFUSALS
from assay_training.spec import Gate

COIN = 0.5
"""Least lower bound of the accuracy where the gate has 0: better than a coin."""

Lookup = Callable[[str], reward_pb2.ModelInfo]
"""Finds a reward model by name; raises AssayError."""


@dataclass(frozen=True, kw_only=True)
class Verdict:
    """What the gate found."""

    fingerprint: str
    """Of the reward model."""
    accuracy: dict[str, float] | None
    """value, low, high and n by the quality card; None without a card."""
    passed: bool
    override_reason: str
    """Why training goes on all the same; empty when the gate passed."""
    mean: float
    """Mean raw score by the quality card; 0 without one."""
    std: float
    """Standard deviation of the raw score by the quality card; 1 without one."""

    def as_proto_json(self) -> dict[str, Any]:
        """assay.training.v1.GateVerdict as JSON."""
        verdict: dict[str, Any] = {"fingerprint": self.fingerprint, "passed": self.passed, "override_reason": self.override_reason}
        return verdict if self.accuracy is None else {**verdict, "accuracy": dict(self.accuracy)}


def reward_service(target: str, security: Security | None = None) -> Lookup:
    """Asks a reward service.

    Args:
        target: its host:port; empty where the service was not told.
        security: TLS to it; None: plaintext.
    """

    def look_up(name: str) -> reward_pb2.ModelInfo:
        if not target:
            raise FailedPrecondition("the gate has nobody to ask: set ASSAY_REWARD_TARGET to host:port of the reward service")
        try:
            with AssayClient(Endpoints(reward=target), timeout_s=20.0, security=security) as client:
                return client.reward.get_model(name)
        except AssayClientError as error:
            raise _as_own(error) from error

    return look_up


def judge(gate: Gate, look_up: Lookup) -> Verdict:
    """Decides whether a reward model may be optimised against.

    Raises:
        FailedPrecondition: it may not; says what was found, the bar, and how to go on all the same.
        NotFound: the reward service has no such model.
        Unavailable: the reward service is away.
    """
    bar = gate.min_accuracy_low or COIN
    model = look_up(gate.reward_model)
    fingerprint = model.provenance.fingerprint
    card = model.quality_card if model.HasField("quality_card") else None
    passed = card is not None and card.accuracy.low >= bar
    if not passed and not gate.override_reason:
        GATE_REFUSALS.inc()
        raise FailedPrecondition(_refusal(gate.reward_model, fingerprint, card, bar))
    estimate = None if card is None else card.accuracy
    return Verdict(
        fingerprint=fingerprint,
        accuracy=None if estimate is None else {"value": estimate.value, "low": estimate.low, "high": estimate.high, "n": int(estimate.n)},
        passed=passed,
        override_reason="" if passed else gate.override_reason,
        mean=card.mean if card is not None else 0.0,
        std=card.std if card is not None and card.std > 0 else 1.0,
    )


def _refusal(name: str, fingerprint: str, card: Any, bar: float) -> str:
    if card is None:
        found = "has no quality card: nobody measured how good it is"
        cure = "Measure it with a benchmark job of the evaluation service (assay bench)"
    else:
        accuracy = card.accuracy
        found = (
            f"has an accuracy of {accuracy.value:.3f}, 95 % interval {accuracy.low:.3f} to {accuracy.high:.3f}, n {accuracy.n}; "
            f"the lower bound is below the bar"
        )
        cure = "Use a better reward model or lower gate.min_accuracy_low"
    return (
        f"gate: reward model {name!r} ({fingerprint[:12]}) {found}. The bar is a lower bound of at least {bar:g}. {cure}, "
        "or set gate.override_reason to train all the same; the reason is recorded in the job's result and the policy's lineage."
    )


def _as_own(error: AssayClientError) -> AssayError:
    message = f"gate.reward_model: {error.message}"
    if error.code is grpc.StatusCode.NOT_FOUND:
        return NotFound(message)
    if error.code in (grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.RESOURCE_EXHAUSTED, grpc.StatusCode.DEADLINE_EXCEEDED):
        return Unavailable(message)
    return FailedPrecondition(message)
