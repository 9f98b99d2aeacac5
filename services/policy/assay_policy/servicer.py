"""The gRPC door: translate, validate, delegate."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from concurrent.futures import Future
from typing import Any, TypeAlias, TypeVar

import grpc

from assay.policy.v1 import policy_pb2, policy_pb2_grpc
from assay_kit.errors import InvalidArgument
from assay_policy import messages
from assay_policy.catalogue import Catalogue, Policy
from assay_policy.engine import Asked, Engine
from assay_policy.generation import Outcome, Scoring, Ticket
from assay_policy.messages import Limits
from assay_policy.reward_client import RewardClient

T = TypeVar("T")
Context: TypeAlias = grpc.aio.ServicerContext[Any, Any]


class PolicyServicer(policy_pb2_grpc.PolicyServiceServicer):
    """assay.policy.v1.PolicyService."""

    def __init__(self, *, engine: Engine, catalogue: Catalogue, rewards: RewardClient, limits: Limits) -> None:
        """Takes its parts."""
        self._engine = engine
        self._catalogue = catalogue
        self._rewards = rewards
        self._limits = limits

    async def Generate(self, request: policy_pb2.GenerateRequest, context: Context) -> policy_pb2.GenerateResponse:
        """Answers to every prompt, in request order."""
        asked = messages.asked_from(request, self._limits)
        policy, outcomes = await self._outcomes(asked, _ticket(context))
        generations = [messages.to_generation(asked, index, outcomes[index], policy) for index in range(len(asked.prompts))]
        return policy_pb2.GenerateResponse(generations=generations, request_id=request.request_id)

    async def GenerateStream(
        self, request: policy_pb2.GenerateStreamRequest, context: Context
    ) -> AsyncIterator[policy_pb2.GenerateStreamResponse]:
        """The same, each prompt as soon as it is there."""
        asked = messages.asked_from(request.request, self._limits)
        loop = asyncio.get_running_loop()
        ready: asyncio.Queue[tuple[int, Outcome] | None] = asyncio.Queue()
        ticket = _ticket(context)

        def emit(index: int, outcome: Outcome) -> None:
            loop.call_soon_threadsafe(ready.put_nowait, (index, outcome))

        policy, future = self._engine.generate(asked, ticket, emit)
        future.add_done_callback(lambda _: loop.call_soon_threadsafe(ready.put_nowait, None))
        try:
            while (item := await ready.get()) is not None:
                yield policy_pb2.GenerateStreamResponse(generation=messages.to_generation(asked, *item, policy))
            future.result()
        finally:
            ticket.abandon()

    async def BestOfN(self, request: policy_pb2.BestOfNRequest, context: Context) -> policy_pb2.BestOfNResponse:
        """The best of n answers by the reward service."""
        asked = messages.best_of_from(request, self._limits)
        ticket = _ticket(context)
        _, outcomes = await self._outcomes(asked, ticket)
        outcome = outcomes[0]
        if outcome.error is not None:
            raise _of_field(outcome.error, "prompt") if isinstance(outcome.error, InvalidArgument) else outcome.error
        texts = [answer.text for answer in outcome.answers]
        scored = await self._rewards.score(request.reward_model, request.prompt, texts, deadline=ticket.deadline)
        everything = [
            policy_pb2.ScoredCompletion(completion=messages.to_completion(answer), score=score.raw)
            for answer, score in zip(outcome.answers, scored.scores, strict=True)
        ]
        return policy_pb2.BestOfNResponse(
            best=everything[scored.best_index],
            all=everything if request.include_all else [],
            kl=messages.kl_of_best_of(request.n),
            reward_model_fingerprint=scored.provenance.fingerprint,
        )

    async def ComputeLogProbs(self, request: policy_pb2.ComputeLogProbsRequest, context: Context) -> policy_pb2.ComputeLogProbsResponse:
        """Log-probabilities of given answers."""
        ticket = _ticket(context)
        scoring = Scoring(items=messages.scoring_items_from(request), ticket=ticket)
        future = self._engine.log_probs(request.model.name, request.model.revision, scoring)
        sums = await _result(future, ticket)
        return policy_pb2.ComputeLogProbsResponse(log_probs=sums)

    async def ListModels(self, request: policy_pb2.ListModelsRequest, context: Context) -> policy_pb2.ListModelsResponse:
        """The models by name."""
        return policy_pb2.ListModelsResponse(models=[messages.to_info(policy) for policy in self._catalogue.all()])

    async def GetModel(self, request: policy_pb2.GetModelRequest, context: Context) -> policy_pb2.GetModelResponse:
        """One model."""
        policy = self._catalogue.get(request.model.name, request.model.revision)
        return policy_pb2.GetModelResponse(model=messages.to_info(policy))

    async def _outcomes(self, asked: Asked, ticket: Ticket) -> tuple[Policy, dict[int, Outcome]]:
        outcomes: dict[int, Outcome] = {}
        policy, future = self._engine.generate(asked, ticket, outcomes.__setitem__)
        await _result(future, ticket)
        return policy, outcomes


class PolicyAdminServicer(policy_pb2_grpc.PolicyAdminServiceServicer):
    """assay.policy.v1.PolicyAdminService."""

    def __init__(self, catalogue: Catalogue) -> None:
        """Takes the models."""
        self._catalogue = catalogue

    async def LoadModel(self, request: policy_pb2.LoadModelRequest, context: Context) -> policy_pb2.LoadModelResponse:
        """Loads a model; answers when it is ready."""
        messages.check_name(request.name)
        if not request.uri:
            raise InvalidArgument("uri", "empty; a folder, a hub id or http(s)://host:port is wanted")
        policy = await asyncio.to_thread(
            self._catalogue.load,
            request.name,
            request.uri,
            kind=messages.kind_from(request.backend),
            served_model=request.served_model,
            revision=request.revision,
        )
        return policy_pb2.LoadModelResponse(model=messages.to_info(policy))

    async def UnloadModel(self, request: policy_pb2.UnloadModelRequest, context: Context) -> policy_pb2.UnloadModelResponse:
        """Unloads a model after its calls in flight."""
        await asyncio.to_thread(self._catalogue.unload, request.model.name, request.model.revision)
        return policy_pb2.UnloadModelResponse()


def _ticket(context: Context) -> Ticket:
    left = context.time_remaining()
    return Ticket(None if left is None else time.monotonic() + left)


async def _result(future: Future[T], ticket: Ticket) -> T:
    """The result; a caller who goes away takes the work with it."""
    try:
        return await asyncio.wrap_future(future)
    except asyncio.CancelledError:
        ticket.abandon()
        raise


def _of_field(error: InvalidArgument, field: str) -> InvalidArgument:
    return InvalidArgument.many([(f"{field}.{own}", description) for own, description in error.violations])
