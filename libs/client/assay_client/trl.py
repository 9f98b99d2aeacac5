"""A reward function for TRL that asks the reward service."""

from __future__ import annotations

import asyncio
import itertools
import logging
import time
from collections.abc import Callable, Sequence
from typing import Any

import grpc

from assay.reward.v1 import reward_pb2, reward_pb2_grpc
from assay_client.calls import Patience, channel_options
from assay_client.errors import AssayClientError, error_of, item_failed
from assay_client.messages import Turn, conversation, selector
from assay_client.reward import score_options

logger = logging.getLogger(__name__)

_CALLS_AT_ONCE = 4
_PASSING = (grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.RESOURCE_EXHAUSTED, grpc.StatusCode.DEADLINE_EXCEEDED)


class RemoteReward:
    """An async reward function for TRL's GRPO and RLOO trainers (and those built on them): `reward_funcs=[RemoteReward(...)]`.

    A sample that could not be scored has the reward None, which TRL leaves out of the baseline and gives advantage 0; it is never 0.0.
    The order of the rewards is that of the samples, and equal input gives equal rewards whatever was retried.
    """

    def __init__(
        self,
        target: str,
        model: str = "",
        *,
        patience_s: float = 60.0,
        timeout_s: float = 60.0,
        chunk: int = 64,
        to_conversation: Callable[[str], Sequence[Turn]] | None = None,
        options: reward_pb2.ScoreOptions | None = None,
        expected_fingerprint: str = "",
        max_failed_batches: int = 3,
        name: str = "remote_reward",
    ) -> None:
        """Connects to nothing yet.

        Args:
            target: host:port of the reward service.
            model: `name` or `name@revision`; empty: the alias "default".
            patience_s: longest time that a batch waits for a service that is away or full.
            timeout_s: deadline of each attempt.
            chunk: most samples a call.
            to_conversation: turns of a prompt that is a string; not needed where the dataset is conversational.
            options: see `assay_client.reward.score_options`; default: the raw score, refusing what is too long.
            expected_fingerprint: of the model that passed the gate; another one in an answer ends the training.
            max_failed_batches: after so many batches in a row without any score the training ends.
            name: of the reward in TRL's metrics.
        """
        self.__name__ = name
        self.fingerprint = expected_fingerprint
        """Of the model that scored; known after the first answer."""
        self._target = target
        self._model = model
        self._patience = Patience(seconds=patience_s)
        self._timeout = timeout_s
        self._chunk = chunk
        self._to_conversation = to_conversation
        self._options = score_options() if options is None else options
        self._max_failed_batches = max_failed_batches
        self._failed_batches = 0
        self._stub: reward_pb2_grpc.RewardServiceAsyncStub | None = None
        self._loop: asyncio.AbstractEventLoop | None = None
        self._channel: grpc.aio.Channel | None = None

    async def __call__(
        self,
        prompts: Sequence[str | Sequence[Turn]],
        completions: Sequence[str | Sequence[Turn]],
        **columns: Any,
    ) -> list[float | None]:
        """Scores a generation batch, as TRL calls it.

        Args:
            prompts: one per sample: turns, or a string where `to_conversation` was given.
            completions: one per sample: [the assistant's turn], or a string.
            columns: what else TRL hands over; `log_metric` is used.

        Returns:
            One reward per sample; None where there is none.

        Raises:
            AssayClientError: no score in `max_failed_batches` batches, or a mistake that time does not heal, such as an unknown model.
        """
        started = time.monotonic()
        samples = [(self._turns(prompt), _text(completion)) for prompt, completion in zip(prompts, completions, strict=True)]
        limit = asyncio.Semaphore(_CALLS_AT_ONCE)
        calls = [self._scores(limit, context, texts) for context, texts in self._groups(samples)]
        rewards = [reward for scored in await asyncio.gather(*calls) for reward in scored]
        missing = sum(reward is None for reward in rewards)
        log_metric = columns.get("log_metric")
        if log_metric is not None:
            log_metric(f"{self.__name__}/seconds", time.monotonic() - started)
            log_metric(f"{self.__name__}/missing", float(missing))
        self._failed_batches = self._failed_batches + 1 if rewards and missing == len(rewards) else 0
        if self._failed_batches >= self._max_failed_batches:
            raise AssayClientError(
                grpc.StatusCode.UNAVAILABLE,
                f"no sample of {self._failed_batches} batches in a row could be scored by {self._model or 'default'} at {self._target}; "
                "training on would change nothing. The warnings above say why",
            )
        return rewards

    async def close(self) -> None:
        """Closes the channel; call it on the loop that used it."""
        if self._channel is not None:
            await self._channel.close(None)
            self._channel = self._stub = self._loop = None

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_channel": None, "_stub": None, "_loop": None}

    def _turns(self, prompt: str | Sequence[Turn]) -> Sequence[Turn]:
        if not isinstance(prompt, str):
            return prompt
        if self._to_conversation is None:
            raise ValueError(
                "the prompts are strings, and how to read turns out of them is not guessed: give RemoteReward(to_conversation=...), "
                "or a dataset whose prompts are lists of {'role': …, 'content': …}"
            )
        return self._to_conversation(prompt)

    def _groups(self, samples: Sequence[tuple[Sequence[Turn], str]]) -> list[tuple[Sequence[Turn], list[str]]]:
        """Neighbours with one prompt, at most `chunk` of them together: the service computes what they share once."""
        groups: list[tuple[Sequence[Turn], list[str]]] = []
        for context, same in itertools.groupby(samples, key=lambda sample: sample[0]):
            texts = [text for _, text in same]
            groups += [(context, texts[at : at + self._chunk]) for at in range(0, len(texts), self._chunk)]
        return groups

    async def _scores(self, limit: asyncio.Semaphore, context: Sequence[Turn], texts: Sequence[str]) -> list[float | None]:
        request = reward_pb2.ScoreGroupRequest(
            model=selector(self._model),
            conversation=conversation(context),
            candidates=[reward_pb2.Candidate(text=text) for text in texts],
            options=self._options,
        )
        async with limit:
            try:
                group = await self._call(self._connected().ScoreGroup, request)
            except AssayClientError as error:
                if error.code in _PASSING:
                    logger.warning("%d samples have no reward: %s", len(texts), error)
                    return [None] * len(texts)
                if error.code is not grpc.StatusCode.INVALID_ARGUMENT:
                    raise
                return await self._one_by_one(context, texts, error)
        self._check(group.provenance)
        return [score.value for score in group.scores]

    async def _one_by_one(self, context: Sequence[Turn], texts: Sequence[str], refusal: AssayClientError) -> list[float | None]:
        """A candidate that cannot be scored, for example a too long one, fails its group; as items they fail alone."""
        items = []
        for text in texts:
            whole = conversation(context)
            whole.messages.append(conversation([{"role": "assistant", "content": text}]).messages[0])
            items.append(reward_pb2.ScoreItem(conversation=whole))
        request = reward_pb2.ScoreBatchRequest(model=selector(self._model), items=items, options=self._options)
        try:
            batch = await self._call(self._connected().ScoreBatch, request)
        except AssayClientError as error:
            if error.code not in _PASSING:
                raise
            logger.warning("%d samples have no reward: %s", len(texts), error)
            return [None] * len(texts)
        rewards: list[float | None] = []
        for result in batch.results:
            rewards.append(None if result.HasField("error") else result.score.value)
            if result.HasField("error"):
                logger.warning("a sample has no reward: %s (%s)", item_failed(result.error), refusal.message)
        self._check(batch.provenance)
        return rewards

    async def _call(self, method: Callable[..., Any], request: Any) -> Any:
        pauses = self._patience.pauses()
        while True:
            try:
                return await method(request, timeout=self._timeout)
            except grpc.aio.AioRpcError as failure:
                error = error_of(failure, f"reward service at {self._target}")
            pause = pauses.after(error)
            if pause is None:
                raise error
            await asyncio.sleep(pause)

    def _check(self, provenance: reward_pb2.Provenance) -> None:
        if self.fingerprint and provenance.fingerprint and provenance.fingerprint != self.fingerprint:
            raise AssayClientError(
                grpc.StatusCode.FAILED_PRECONDITION,
                f"the reward model changed under the training: {self._model or 'default'} is now {provenance.fingerprint[:12]}, "
                f"not {self.fingerprint[:12]}; name a revision, as in model='name@revision'",
            )
        self.fingerprint = provenance.fingerprint or self.fingerprint

    def _connected(self) -> reward_pb2_grpc.RewardServiceAsyncStub:
        """The stub on a channel of the running loop: a channel works only on the loop it was made on, and TRL has one of its own."""
        loop = asyncio.get_running_loop()
        if self._stub is None or self._loop is not loop:
            self._channel = grpc.aio.insecure_channel(self._target, options=channel_options())
            self._stub = reward_pb2_grpc.RewardServiceStub(self._channel)
            self._loop = loop
        return self._stub


def _text(completion: str | Sequence[Turn]) -> str:
    if isinstance(completion, str):
        return completion
    if len(completion) != 1:
        raise ValueError(f"a completion is one turn of the assistant, not {len(completion)} turns")
    turn = completion[0]
    return turn["content"] if isinstance(turn, dict) else turn.content  # type: ignore[union-attr]
