"""Reward functions for TRL that ask the reward service: `RemoteReward` for the trainer's event loop, `SyncRemoteReward` for its thread."""

from __future__ import annotations

import asyncio
import itertools
import logging
import threading
import time
from collections.abc import Callable, Sequence
from typing import Any

import grpc

from assay.reward.v1 import reward_pb2
from assay_client.channels import Security
from assay_client.errors import AssayClientError, FailedPrecondition, InvalidArgument, ItemFailed, Unavailable
from assay_client.messages import Turn, text_of
from assay_client.reward_async import AsyncRewardClient
from assay_client.reward_requests import score_options
from assay_client.scores import Provenance

logger = logging.getLogger(__name__)

_CALLS_AT_ONCE = 4
_PASSING = (grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.RESOURCE_EXHAUSTED, grpc.StatusCode.DEADLINE_EXCEEDED)


class RemoteReward:
    """An async reward function for TRL's GRPO and RLOO trainers (and those built on them): `reward_funcs=[RemoteReward(...)]`.

    A sample that could not be scored has the reward None, which TRL leaves out of the baseline and gives advantage 0; it is never 0.0.
    The order of the rewards is that of the samples, and equal input gives equal rewards whatever was retried.

    Example:
        >>> import asyncio, os
        >>> reward = RemoteReward(os.environ["ASSAY_REWARD_TARGET"], patience_s=120)
        >>> question = [{"role": "user", "content": "Is the earth flat?"}]
        >>> rewards = asyncio.run(reward([question, question], [[{"role": "assistant", "content": text}] for text in ("No.", "Yes.")]))
        >>> len(rewards), None in rewards
        (2, False)
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
        security: Security | None = None,
    ) -> None:
        """Connects to nothing yet.

        Args:
            target: of the reward service, as `RewardClient.connect` takes it.
            model: `name` or `name@revision`; empty: the alias "default".
            patience_s: longest time that a batch waits for a service that is away or full.
            timeout_s: deadline of each attempt.
            chunk: most samples a call.
            to_conversation: turns of a prompt that is a string; not needed where the dataset is conversational.
            options: see `assay_client.reward.score_options`; default: the raw score, refusing what is too long.
            expected_fingerprint: of the model that passed the gate; another one in an answer ends the training.
            max_failed_batches: after so many batches in a row without any score the training ends.
            name: of the reward in TRL's metrics.
            security: TLS and token; None: neither.
        """
        self.__name__ = name
        self.fingerprint = expected_fingerprint
        """Of the model that scored; known after the first answer."""
        self._target = target
        self._model = model
        self._client = AsyncRewardClient.connect(target, patience_s=patience_s, timeout_s=timeout_s, security=security)
        self._chunk = chunk
        self._to_conversation = to_conversation
        self._options = score_options() if options is None else options
        self._max_failed_batches = max_failed_batches
        self._failed_batches = 0

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
        samples = [(self._turns(prompt), text_of(completion)) for prompt, completion in zip(prompts, completions, strict=True)]
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
            raise Unavailable(
                grpc.StatusCode.UNAVAILABLE,
                f"no sample of {self._failed_batches} batches in a row could be scored by {self._model or 'default'} at {self._target}; "
                "training on would change nothing. The warnings above say why",
            )
        return rewards

    async def close(self) -> None:
        """Closes the channel; call it on the loop that used it."""
        await self._client.close()

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
        async with limit:
            try:
                group = await self._client.score_group(context, texts, model=self._model, options=self._options)
            except InvalidArgument as error:
                return await self._one_by_one(context, texts, error)
            except AssayClientError as error:
                return self._none(texts, error)
        self._check(group.provenance)
        return [score.value for score in group.scores]

    async def _one_by_one(self, context: Sequence[Turn], texts: Sequence[str], refusal: AssayClientError) -> list[float | None]:
        """A candidate that cannot be scored, for example a too long one, fails its group; as items they fail alone."""
        items: list[Sequence[Turn]] = [[*context, {"role": "assistant", "content": text}] for text in texts]
        try:
            batch = await self._client.score_batch(items, model=self._model, options=self._options)
        except AssayClientError as error:
            return self._none(texts, error)
        rewards: list[float | None] = []
        for result in batch.results:
            rewards.append(None if isinstance(result, ItemFailed) else result.value)
            if isinstance(result, ItemFailed):
                logger.warning("a sample has no reward: %s (%s)", result, refusal.message)
        self._check(batch.provenance)
        return rewards

    def _none(self, texts: Sequence[str], error: AssayClientError) -> list[float | None]:
        if error.code not in _PASSING:
            raise error
        logger.warning("%d samples have no reward: %s", len(texts), error)
        return [None] * len(texts)

    def _check(self, provenance: Provenance) -> None:
        if self.fingerprint and provenance.fingerprint and provenance.fingerprint != self.fingerprint:
            raise FailedPrecondition(
                grpc.StatusCode.FAILED_PRECONDITION,
                f"the reward model changed under the training: {self._model or 'default'} is now {provenance.fingerprint[:12]}, "
                f"not {self.fingerprint[:12]}; name a revision, as in model='name@revision'",
            )
        self.fingerprint = provenance.fingerprint or self.fingerprint


class SyncRemoteReward:
    """The same as a plain function, for trainers and scripts that take no coroutine; whatever `RemoteReward` takes, it takes.

    Example:
        >>> import os
        >>> reward = SyncRemoteReward(os.environ["ASSAY_REWARD_TARGET"], patience_s=120)
        >>> question = [{"role": "user", "content": "Is the earth flat?"}]
        >>> rewards = reward([question, question], [[{"role": "assistant", "content": text}] for text in ("No.", "Yes.")])
        >>> len(rewards), None in rewards
        (2, False)
        >>> reward.close()
    """

    def __init__(self, target: str, model: str = "", **settings: Any) -> None:
        """Takes what `RemoteReward` takes."""
        self._reward = RemoteReward(target, model, **settings)
        self.__name__ = self._reward.__name__
        self._loop: asyncio.AbstractEventLoop | None = None
        self._starting = threading.Lock()

    @property
    def fingerprint(self) -> str:
        """Of the model that scored; known after the first answer."""
        return self._reward.fingerprint

    def __call__(
        self, prompts: Sequence[str | Sequence[Turn]], completions: Sequence[str | Sequence[Turn]], **columns: Any
    ) -> list[float | None]:
        """As `RemoteReward.__call__`; blocks."""
        return asyncio.run_coroutine_threadsafe(self._reward(prompts, completions, **columns), self._running()).result()

    def close(self) -> None:
        """Closes the channel and ends the thread of the loop; a later call opens both again."""
        with self._starting:
            if self._loop is not None:
                asyncio.run_coroutine_threadsafe(self._reward.close(), self._loop).result()
                self._loop.call_soon_threadsafe(self._loop.stop)
                self._loop = None

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_loop": None, "_starting": None}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state, _starting=threading.Lock())

    def _running(self) -> asyncio.AbstractEventLoop:
        """A loop of its own in a thread of its own: the caller's thread may have one that runs."""
        with self._starting:
            if self._loop is None:
                self._loop = asyncio.new_event_loop()
                threading.Thread(target=_run, args=(self._loop,), name="assay-reward", daemon=True).start()
            return self._loop


def _run(loop: asyncio.AbstractEventLoop) -> None:
    loop.run_forever()
    loop.close()
