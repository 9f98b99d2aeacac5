"""One object for all five services."""

from __future__ import annotations

from functools import cached_property
from types import TracebackType
from typing import Literal, Self

from assay_client.calls import DEFAULT_TIMEOUT_SECONDS, Caller, Patience
from assay_client.channels import Security
from assay_client.cleaning import CleaningClient
from assay_client.endpoints import Endpoints
from assay_client.evaluation import EvaluationClient
from assay_client.jobs import JobsClient
from assay_client.policy import PolicyClient
from assay_client.reward import RewardClient
from assay_client.training import TrainingClient

JobOwner = Literal["cleaning", "training", "evaluation"]


class AssayClient:
    """Clients of the five services, each connected when it is first used. Threads may share it."""

    def __init__(
        self,
        endpoints: Endpoints,
        *,
        patience_s: float = 0.0,
        timeout_s: float = DEFAULT_TIMEOUT_SECONDS,
        security: Security | None = None,
    ) -> None:
        """Connects to nothing yet.

        Args:
            endpoints: where the services are.
            patience_s: longest time that a service which is UNAVAILABLE is waited for; 0: gRPC's own short retry.
            timeout_s: deadline of a call that has no other default.
            security: TLS and token, the same for all services; None: neither.
        """
        self._endpoints = endpoints
        self._patience = Patience(seconds=patience_s)
        self._timeout = timeout_s
        self._security = security
        self._callers: dict[str, Caller] = {}

    @cached_property
    def cleaning(self) -> CleaningClient:
        """The cleaning service."""
        return CleaningClient(self._caller("cleaning"))

    @cached_property
    def reward(self) -> RewardClient:
        """The reward service."""
        return RewardClient(self._caller("reward"))

    @cached_property
    def policy(self) -> PolicyClient:
        """The policy service."""
        return PolicyClient(self._caller("policy"))

    @cached_property
    def training(self) -> TrainingClient:
        """The training service."""
        return TrainingClient(self._caller("training"))

    @cached_property
    def evaluation(self) -> EvaluationClient:
        """The evaluation service."""
        return EvaluationClient(self._caller("evaluation"))

    def jobs(self, service: JobOwner) -> JobsClient:
        """The jobs of a service."""
        return JobsClient(self._caller(service))

    def close(self) -> None:
        """Closes the channels."""
        for caller in self._callers.values():
            caller.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.close()

    def _caller(self, service: str) -> Caller:
        if service not in self._callers:
            made = Caller(
                service,
                self._endpoints.target(service),
                patience=self._patience,
                timeout_seconds=self._timeout,
                security=self._security,
            )
            if self._callers.setdefault(service, made) is not made:
                made.close()
        return self._callers[service]
