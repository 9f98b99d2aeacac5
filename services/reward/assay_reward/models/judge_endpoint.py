"""An OpenAI-compatible chat endpoint, asked by a judge: bounded, patient where that helps, and with its errors in our words."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any

import openai

from assay_data.conversations import Message
from assay_kit.errors import AssayError, FailedPrecondition, ResourceExhausted, Unavailable
from assay_reward.models.judge_texts import Token

_RETRIES = 4
"""After the first try, on 408, 409, 429, 5xx and broken connections; the SDK backs off and heeds Retry-After."""
_ALTERNATIVES = 20
_NO_KEY = "none"


class QuestionRefused(FailedPrecondition):
    """The endpoint takes questions, but not this one; others may be answered."""


@dataclass(frozen=True, kw_only=True)
class Reply:
    """What a judge said."""

    text: str
    tokens: tuple[Token, ...] = ()
    """Empty where the endpoint gives no log-probabilities."""


class JudgeEndpoint:
    """Where a judge is, and how it is asked."""

    def __init__(
        self, *, base_url: str, model: str, api_key: str, temperature: float, max_tokens: int, concurrency: int, timeout_seconds: float
    ) -> None:
        """Takes the address and the sampling.

        Args:
            base_url: with the path of the API, for example "http://host:8000/v1".
            model: as the endpoint names it.
            api_key: empty where the endpoint wants none.
            temperature: of the sampling; >= 0.
            max_tokens: longest answer.
            concurrency: most requests in flight.
            timeout_seconds: longest wait for one answer.
        """
        self.base_url = base_url
        self._sampling = {"model": model, "temperature": temperature, "max_tokens": max_tokens, "seed": 0}
        self._api_key = api_key
        self._timeout_seconds = timeout_seconds
        self._room = asyncio.Semaphore(concurrency)
        self._gives_log_probs = True

    @asynccontextmanager
    async def open(self) -> AsyncIterator[JudgeSession]:
        """Connections for a call."""
        client = openai.AsyncOpenAI(
            base_url=self.base_url, api_key=self._api_key or _NO_KEY, timeout=self._timeout_seconds, max_retries=_RETRIES
        )
        async with client:
            yield JudgeSession(self, client)

    async def _ask(self, client: Any, messages: Sequence[Message], *, log_probs: bool) -> Reply:
        turns = [{"role": message.role, "content": message.content} for message in messages]
        wanted = {"logprobs": True, "top_logprobs": _ALTERNATIVES} if log_probs and self._gives_log_probs else {}
        async with self._room:
            try:
                try:
                    response = await client.chat.completions.create(messages=turns, **self._sampling, **wanted)
                except openai.BadRequestError:
                    if not wanted:
                        raise
                    response = await client.chat.completions.create(messages=turns, **self._sampling)
                    self._gives_log_probs = False  # it took the same question without them
            except openai.OpenAIError as error:
                raise self._ours(error) from error
        if not response.choices:
            raise Unavailable(f"the judge at {self.base_url} gave no answer")
        choice = response.choices[0]
        told = choice.logprobs.content if choice.logprobs and choice.logprobs.content else ()
        tokens = tuple(
            Token(text=token.token, alternatives=((token.token, token.logprob), *((one.token, one.logprob) for one in token.top_logprobs)))
            for token in told
        )
        return Reply(text=choice.message.content or "", tokens=tokens)

    def _ours(self, error: openai.OpenAIError) -> AssayError:
        if not isinstance(error, openai.APIStatusError):
            return Unavailable(f"the judge at {self.base_url} does not answer: {error}")
        text = f"the judge at {self.base_url} says {error.status_code}: {error.message}"
        if error.status_code == 429:
            return ResourceExhausted(text, retry_after_seconds=_retry_after(error.response.headers.get("retry-after")))
        if error.status_code in (401, 403):
            return FailedPrecondition(f"{text}; does api_key_env of the declaration name the right key?")
        if error.status_code in (400, 413, 422):
            return QuestionRefused(text)
        if error.status_code == 404:
            return FailedPrecondition(f"{text}; are base_url and model of the declaration right?")
        return Unavailable(text)


class JudgeSession:
    """An endpoint with connections open."""

    def __init__(self, endpoint: JudgeEndpoint, client: openai.AsyncOpenAI) -> None:
        self._endpoint = endpoint
        self._client = client

    async def ask(self, messages: Sequence[Message], *, log_probs: bool) -> Reply:
        """One answer; waits where as many requests are in flight as may be.

        Raises:
            QuestionRefused: the endpoint does not take these messages.
            FailedPrecondition: it does not take us, or knows no such model.
            ResourceExhausted, Unavailable: it has no answer however often it is asked.
        """
        return await self._endpoint._ask(self._client, messages, log_probs=log_probs)


def _retry_after(header: str | None) -> float:
    try:
        return float(header or 1.0)
    except ValueError:  # the header may also be a date
        return 1.0
