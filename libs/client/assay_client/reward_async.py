"""Client of the reward service, for coroutines."""

from __future__ import annotations

from collections.abc import AsyncGenerator, AsyncIterable, AsyncIterator, Awaitable, Callable, Iterable, Sequence
from contextlib import aclosing
from functools import partial
from types import TracebackType
from typing import Any, Self

from assay.reward.v1 import reward_pb2, reward_pb2_grpc
from assay_client.calls import DEFAULT_TIMEOUT_SECONDS, AsyncCaller, Patience
from assay_client.channels import Security
from assay_client.errors import ItemFailed
from assay_client.messages import Turn, conversation, selector
from assay_client.pipeline import in_order_async
from assay_client.reward_requests import (
    BATCH_SIZE,
    IN_FLIGHT,
    BatchReader,
    BatchWriter,
    group_requests,
    joined_batch,
    joined_group,
    moved,
    starts,
)
from assay_client.scores import RenderedPrompt, Score, ScoredBatch, ScoredGroup


class AsyncRewardClient:
    """Scores answers, from coroutines; as `assay_client.reward.RewardClient` in all else. Cancelling a task cancels its calls.

    It may be used on one event loop after another, as each loop has a channel of its own.

    Example:
        >>> import asyncio, os
        >>> async def main():
        ...     async with AsyncRewardClient.connect(os.environ["ASSAY_REWARD_TARGET"], patience_s=10) as reward:
        ...         question = [{"role": "user", "content": "Is the earth flat?"}]
        ...         return await asyncio.gather(*(reward.score_group(question, ["No.", "Yes."]) for _ in range(4)))
        >>> len({group.scores for group in asyncio.run(main())})
        1
    """

    def __init__(self, caller: AsyncCaller) -> None:
        """Takes how the service is called."""
        self._caller = caller
        self._limits: dict[str, int] = {}

    @classmethod
    def connect(
        cls, target: str, *, patience_s: float = 0.0, timeout_s: float = DEFAULT_TIMEOUT_SECONDS, security: Security | None = None
    ) -> Self:
        """A client of its own; arguments as of `RewardClient.connect`. It connects with the first call.

        Example:
            >>> import asyncio, os
            >>> async def main():
            ...     async with AsyncRewardClient.connect(os.environ["ASSAY_REWARD_TARGET"], timeout_s=30) as reward:
            ...         return await reward.list_models()
            >>> len(asyncio.run(main())) >= 1
            True
        """
        return cls(AsyncCaller("reward", target, patience=Patience(seconds=patience_s), timeout_seconds=timeout_s, security=security))

    async def score_group(
        self,
        messages: Sequence[Turn],
        candidates: Sequence[str],
        *,
        model: str = "",
        options: reward_pb2.ScoreOptions | None = None,
        timeout_seconds: float | None = None,
    ) -> ScoredGroup:
        """Scores candidate answers to one conversation; any number of them. As `RewardClient.score_group`.

        Example:
            >>> import asyncio, os
            >>> async def main():
            ...     async with AsyncRewardClient.connect(os.environ["ASSAY_REWARD_TARGET"]) as reward:
            ...         return await reward.score_group([{"role": "user", "content": "Hello?"}], ["Hi!", ""], timeout_seconds=30)
            >>> asyncio.run(main()).best_index in (0, 1)
            True
        """
        limit = await self._max_candidates(model, len(candidates))
        requests = group_requests(messages, candidates, model=model, options=options, max_candidates=limit)

        async def calls() -> AsyncIterator[Callable[[], Awaitable[reward_pb2.ScoreGroupResponse]]]:
            for request, start in zip(requests, starts(requests), strict=True):
                yield partial(self._group, request, start, timeout_seconds)

        return joined_group([response async for response in in_order_async(calls(), IN_FLIGHT)])

    async def score_batch(
        self,
        conversations: Iterable[Sequence[Turn]],
        *,
        model: str = "",
        options: reward_pb2.ScoreOptions | None = None,
        batch_size: int = BATCH_SIZE,
        timeout_seconds: float | None = None,
    ) -> ScoredBatch:
        """Scores unrelated conversations, each ending with the assistant's turn. As `RewardClient.score_batch`.

        Example:
            >>> import asyncio, os
            >>> chat = [{"role": "user", "content": "Hello?"}, {"role": "assistant", "content": "Hi!"}]
            >>> async def main():
            ...     async with AsyncRewardClient.connect(os.environ["ASSAY_REWARD_TARGET"]) as reward:
            ...         return await reward.score_batch([chat] * 3)
            >>> len(set(asyncio.run(main()).results))
            1
        """
        batches = self._batches(conversations, model, options, batch_size, IN_FLIGHT, timeout_seconds)
        return joined_batch([response async for response in batches])

    async def score_stream(
        self,
        conversations: Iterable[Sequence[Turn]] | AsyncIterable[Sequence[Turn]],
        *,
        model: str = "",
        options: reward_pb2.ScoreOptions | None = None,
        batch_size: int = BATCH_SIZE,
        in_flight: int = IN_FLIGHT,
        timeout_seconds: float | None = None,
    ) -> AsyncIterator[Score | ItemFailed]:
        """Scores any number of conversations, in order, while they come. As `RewardClient.score_stream`.

        Example:
            >>> import asyncio, os
            >>> chat = [{"role": "user", "content": "Hello?"}, {"role": "assistant", "content": "Hi!"}]
            >>> async def main():
            ...     async with AsyncRewardClient.connect(os.environ["ASSAY_REWARD_TARGET"]) as reward:
            ...         return [score.raw async for score in reward.score_stream(chat for _ in range(1000))]
            >>> len(asyncio.run(main()))
            1000
        """
        reader = BatchReader()
        async with aclosing(self._batches(conversations, model, options, batch_size, in_flight, timeout_seconds)) as batches:
            async for response in batches:
                for result in reader.results(response):
                    yield result

    async def render_prompt(
        self,
        messages: Sequence[Turn],
        *,
        model: str = "",
        truncation: reward_pb2.TruncationPolicy.ValueType = reward_pb2.TRUNCATION_POLICY_ERROR,
        timeout_seconds: float | None = None,
    ) -> RenderedPrompt:
        """What the model would see of a conversation.

        Example:
            >>> import asyncio, os
            >>> async def main():
            ...     async with AsyncRewardClient.connect(os.environ["ASSAY_REWARD_TARGET"]) as reward:
            ...         return await reward.render_prompt([{"role": "user", "content": "Is the earth flat?"}])
            >>> "Is the earth flat?" in asyncio.run(main()).text
            True
        """
        request = reward_pb2.RenderPromptRequest(model=selector(model), conversation=conversation(messages), truncation=truncation)
        return RenderedPrompt.of(await self._caller.call(self._stub().RenderPrompt, request, timeout_seconds=timeout_seconds))

    async def list_models(self, *, timeout_seconds: float | None = None) -> list[reward_pb2.ModelInfo]:
        """The models that are loaded or loading; `connect` shows it."""
        response = await self._caller.call(self._stub().ListModels, reward_pb2.ListModelsRequest(), timeout_seconds=timeout_seconds)
        return list(response.models)

    async def get_model(self, model: str = "", *, timeout_seconds: float | None = None) -> reward_pb2.ModelInfo:
        """A model, with its quality card where it has one.

        Example:
            >>> import asyncio, os
            >>> async def main():
            ...     async with AsyncRewardClient.connect(os.environ["ASSAY_REWARD_TARGET"]) as reward:
            ...         return (await reward.get_model()).max_candidates
            >>> asyncio.run(main()) >= 1
            True
        """
        request = reward_pb2.GetModelRequest(model=selector(model))
        response: reward_pb2.GetModelResponse = await self._caller.call(self._stub().GetModel, request, timeout_seconds=timeout_seconds)
        return response.model

    async def close(self) -> None:
        """Closes the channel; call it on the loop that used it."""
        await self._caller.close()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        await self.close()

    def _stub(self) -> Any:
        return reward_pb2_grpc.RewardServiceStub(self._caller.channel())

    async def _max_candidates(self, model: str, count: int) -> int:
        if count < 2:
            return 1
        if model not in self._limits:
            self._limits[model] = max(1, (await self.get_model(model)).max_candidates)
        return self._limits[model]

    async def _group(
        self, request: reward_pb2.ScoreGroupRequest, start: int, timeout_seconds: float | None
    ) -> reward_pb2.ScoreGroupResponse:
        with moved("candidates", start):
            response: reward_pb2.ScoreGroupResponse = await self._caller.call(
                self._stub().ScoreGroup, request, timeout_seconds=timeout_seconds
            )
            return response

    def _batches(
        self,
        conversations: Iterable[Sequence[Turn]] | AsyncIterable[Sequence[Turn]],
        model: str,
        options: reward_pb2.ScoreOptions | None,
        batch_size: int,
        in_flight: int,
        timeout_seconds: float | None,
    ) -> AsyncGenerator[reward_pb2.ScoreBatchResponse, None]:
        writer = BatchWriter(model=model, options=options, batch_size=batch_size)
        call = partial(self._caller.call, self._stub().ScoreBatch, timeout_seconds=timeout_seconds)

        async def calls() -> AsyncIterator[Callable[[], Awaitable[reward_pb2.ScoreBatchResponse]]]:
            if isinstance(conversations, AsyncIterable):
                async for messages in conversations:
                    for request in writer.add(messages):
                        yield partial(call, request)
            else:
                for messages in conversations:
                    for request in writer.add(messages):
                        yield partial(call, request)
            for request in writer.rest():
                yield partial(call, request)

        return in_order_async(calls(), in_flight)
