"""The reward service as best-of-n needs it."""

from __future__ import annotations

import time
from collections.abc import Sequence

import grpc

from assay.common.v1 import common_pb2
from assay.policy.v1 import policy_pb2
from assay.reward.v1 import reward_pb2, reward_pb2_grpc
from assay_client.calls import AsyncCaller, Patience
from assay_client.channels import Security
from assay_kit.errors import AssayError, DeadlineExceeded, FailedPrecondition, Unavailable


class RewardServiceError(AssayError):
    """The reward service refused; carries its code."""

    def __init__(self, code: grpc.StatusCode, message: str) -> None:
        """Takes code and text."""
        super().__init__(message)
        self.code = code


class RewardClient:
    """Scores answers at the reward service."""

    def __init__(self, target: str, security: Security | None = None) -> None:
        """Takes the target, as `assay_client.channels.target_of` does; empty means there is none. Connects at the first call."""
        self._target = target
        self._channels = AsyncCaller("reward", target, patience=Patience(), security=security)

    async def score(
        self,
        model: common_pb2.ModelSelector,
        prompt: policy_pb2.Prompt,
        answers: Sequence[str],
        *,
        deadline: float | None,
    ) -> reward_pb2.ScoreGroupResponse:
        """Scores answers to one prompt, in their order.

        Args:
            model: the reward model; empty name: the service's default.
            prompt: what is answered.
            answers: their texts.
            deadline: on the clock of `time.monotonic`; None waits for ever.

        Raises:
            FailedPrecondition: no reward service is set.
            Unavailable: it does not answer; names it.
            RewardServiceError: it refuses, with its own code.
        """
        if not self._target:
            raise FailedPrecondition("best-of-n needs the reward service; set ASSAY_REWARD_TARGET to its host:port")
        request = reward_pb2.ScoreGroupRequest(
            model=model,
            conversation=prompt.conversation,
            candidates=[reward_pb2.Candidate(id=str(index), text=text) for index, text in enumerate(answers)],
        )
        timeout = None if deadline is None else max(0.0, deadline - time.monotonic())
        try:
            return await reward_pb2_grpc.RewardServiceStub(self._channels.channel()).ScoreGroup(request, timeout=timeout)
        except grpc.aio.AioRpcError as error:
            text = f"the reward service at {self._target}: {error.details()}"
            if error.code() is grpc.StatusCode.UNAVAILABLE:
                raise Unavailable(text) from error
            if error.code() is grpc.StatusCode.DEADLINE_EXCEEDED:
                raise DeadlineExceeded(text) from error
            raise RewardServiceError(error.code(), text) from error
