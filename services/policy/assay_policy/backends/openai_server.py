"""An OpenAI-compatible server: vLLM, SGLang, TGI's Messages API, `transformers serve`."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from concurrent.futures import Future
from dataclasses import dataclass
from typing import Any
from urllib.parse import parse_qsl, urlsplit, urlunsplit

import openai
from transformers import AutoTokenizer

from assay_kit.errors import AssayError, FailedPrecondition, InvalidArgument, ResourceExhausted, Unavailable
from assay_policy.backends.remote import RemoteLoop, ask_all, cannot_score
from assay_policy.generation import Answer, Facts, Finish, Outcome, Sampling, Scoring, Turns, Work
from assay_policy.rendering import Renderer

_OPTIONS = ("api", "tokenizer", "logprobs")
_FINISHES = {"stop": Finish.STOP, "length": Finish.LENGTH}


@dataclass(frozen=True, kw_only=True)
class Address:
    """Where an OpenAI-compatible server is and how to speak to it; options stand in the query of the URI."""

    base_url: str
    """With the path of the API, "/v1" unless the URI has another."""
    api: str = "chat"
    """"chat": the server applies its chat template; "completions": this service applies that of `tokenizer`."""
    tokenizer: str = ""
    """Folder or hub id of a tokenizer with a chat template; needed for "completions"."""
    logprobs: bool = True
    """Whether to ask for log-probabilities; some servers refuse the question."""

    @classmethod
    def parse(cls, uri: str) -> Address:
        """Reads for example `http://host:8000?api=completions&tokenizer=org/model`.

        Raises:
            InvalidArgument: an option is not known or does not fit.
        """
        parts = urlsplit(uri)
        options = dict(parse_qsl(parts.query))
        for name in options:
            if name not in _OPTIONS:
                raise InvalidArgument("uri", f"option {name!r} is not known; there are {', '.join(_OPTIONS)}")
        api = options.get("api", "chat")
        if api not in ("chat", "completions"):
            raise InvalidArgument("uri", f"api={api}; it is chat or completions")
        if (api == "completions") != bool(options.get("tokenizer")):
            raise InvalidArgument(
                "uri", "api=completions and tokenizer=<folder or hub id> go together: the one needs the chat template of the other"
            )
        if options.get("logprobs", "true") not in ("true", "false"):
            raise InvalidArgument("uri", f"logprobs={options['logprobs']}; it is true or false")
        base_url = urlunsplit((parts.scheme, parts.netloc, parts.path.rstrip("/") or "/v1", "", ""))
        return cls(base_url=base_url, api=api, tokenizer=options.get("tokenizer", ""), logprobs=options.get("logprobs") != "false")


class OpenAIBackend:
    """Generation at an OpenAI-compatible server.

    Log-probabilities are told only for requests at temperature 1 and without nucleus: servers differ in whether theirs are
    those before or after temperature and nucleus, and there the two are the same.
    """

    def __init__(
        self, *, address: Address, facts: Facts, client: openai.AsyncOpenAI, loop: RemoteLoop, concurrency: int, renderer: Renderer | None
    ) -> None:
        """Takes its parts; see `connect`."""
        self._address = address
        self._facts = facts
        self._client = client
        self._loop = loop
        self._renderer = renderer
        self._room = asyncio.Semaphore(concurrency)

    @classmethod
    def connect(
        cls, uri: str, *, served_model: str, loop: RemoteLoop, api_key: str, concurrency: int, timeout_seconds: float, known: Facts | None
    ) -> OpenAIBackend:
        """Makes the backend; asks the server which models it has unless that is known already.

        Raises:
            InvalidArgument: the URI does not fit, or the server has no such model; says which it has.
            Unavailable: the server does not answer.
        """
        address = Address.parse(uri)
        renderer = _renderer(address.tokenizer) if address.tokenizer else None
        client = openai.AsyncOpenAI(base_url=address.base_url, api_key=api_key, timeout=timeout_seconds)
        try:
            facts = known or loop.submit(_facts(client, address, served_model)).result()
        except BaseException:
            loop.submit(client.close()).result()
            raise
        return cls(address=address, facts=facts, client=client, loop=loop, concurrency=concurrency, renderer=renderer)

    @property
    def facts(self) -> Facts:
        """Served name, and context where the server tells."""
        return self._facts

    def generate(self, work: Work) -> Future[None]:
        """Asks the server for every prompt."""

        async def ask(turns: Turns, seed: int) -> Outcome:
            return await self._answers(turns, work.n, work.sampling, seed)

        return self._loop.submit(ask_all(work, ask))

    def log_probs(self, scoring: Scoring) -> Future[list[float]]:
        """Refuses: the servers' common wire has no way to ask."""
        return cannot_score(scoring)

    def close(self) -> None:
        """Closes the connections."""
        self._loop.submit(self._client.close()).result()

    async def _answers(self, turns: Turns, n: int, sampling: Sampling, seed: int) -> Outcome:
        try:
            answers, prompt_tokens = await self._call(turns, n, sampling, seed)
            missing = n - len(answers)
            if missing > 0:  # the server does not know n
                calls = [self._call(turns, 1, sampling, seed + n + extra) for extra in range(missing)]
                answers += [answer for got, _ in await asyncio.gather(*calls) for answer in got[:1]]
        except InvalidArgument as error:
            return Outcome(error=error)
        if len(answers) < n:
            raise Unavailable(f"{self._address.base_url} gave {len(answers)} of {n} answers")
        return Outcome(answers=tuple(answers[:n]), prompt_tokens=prompt_tokens)

    async def _call(self, turns: Turns, n: int, sampling: Sampling, seed: int) -> tuple[list[Answer], int]:
        tells = self._address.logprobs and sampling.temperature == 1 and sampling.top_p == 1
        options: dict[str, Any] = {
            "model": self._facts.served_model,
            "n": n,
            "max_tokens": sampling.max_new_tokens,
            "temperature": sampling.temperature,
            "top_p": sampling.top_p,
            "seed": seed,
            **({"stop": list(sampling.stop)} if sampling.stop else {}),
            **({"extra_body": {"min_tokens": sampling.min_new_tokens}} if sampling.min_new_tokens else {}),
        }
        async with self._room:
            try:
                client: Any = self._client
                if self._renderer is not None:
                    prompt = self._renderer.text(turns)
                    response = await client.completions.create(prompt=prompt, **options, **({"logprobs": 1} if tells else {}))
                    answers = [_of_completion(choice) for choice in response.choices]
                else:
                    messages = [{"role": turn.role, "content": turn.content} for turn in turns]
                    response = await client.chat.completions.create(messages=messages, **options, **({"logprobs": True} if tells else {}))
                    answers = [_of_chat(choice) for choice in response.choices]
            except openai.OpenAIError as error:
                raise as_ours(error, self._address.base_url) from error
        return answers, response.usage.prompt_tokens if response.usage else 0


async def _facts(client: openai.AsyncOpenAI, address: Address, served_model: str) -> Facts:
    try:
        models = [model async for model in client.models.list()]
    except openai.OpenAIError as error:
        raise as_ours(error, address.base_url) from error
    names = [model.id for model in models]
    if not names:
        raise InvalidArgument("uri", f"{address.base_url} lists no model")
    if served_model and served_model not in names:
        raise InvalidArgument("served_model", f"{address.base_url} has no {served_model!r}; it has {', '.join(names)}")
    chosen = models[names.index(served_model) if served_model else 0]
    return Facts(served_model=chosen.id, max_context_tokens=int((chosen.model_extra or {}).get("max_model_len") or 0))


def as_ours(error: openai.OpenAIError, server: str) -> AssayError:
    """The SDK's error as one that names the server and says what to do."""
    if not isinstance(error, openai.APIStatusError):
        return Unavailable(f"the generation server at {server} does not answer: {error}")
    text = f"the generation server at {server} says {error.status_code}: {error.message}"
    if error.status_code == 429:
        return ResourceExhausted(text, retry_after_seconds=_retry_after(error.response.headers.get("retry-after")))
    if error.status_code in (401, 403):
        return FailedPrecondition(f"{text}; is ASSAY_POLICY_OPENAI_API_KEY right?")
    if error.status_code in (400, 413, 422):
        return InvalidArgument("conversation", text)
    if error.status_code == 404:
        return FailedPrecondition(text)
    return Unavailable(text)


def _retry_after(header: str | None) -> float:
    try:
        return float(header or 1.0)
    except ValueError:  # the header may also be a date
        return 1.0


def _renderer(tokenizer: str) -> Renderer:
    try:
        return Renderer(AutoTokenizer.from_pretrained(tokenizer))
    except (OSError, ValueError) as error:
        raise InvalidArgument("uri", f"tokenizer={tokenizer}: {error}") from error


def _of_completion(choice: Any) -> Answer:
    told: Sequence[float | None] | None = choice.logprobs.token_logprobs if choice.logprobs else None
    return _answer(choice.text, choice.finish_reason, told)


def _of_chat(choice: Any) -> Answer:
    told = [token.logprob for token in choice.logprobs.content] if choice.logprobs and choice.logprobs.content else None
    return _answer(choice.message.content or "", choice.finish_reason, told)


def _answer(text: str, finish: str | None, told: Sequence[float | None] | None) -> Answer:
    known = [value for value in told or () if value is not None]
    complete = told is not None and len(known) == len(told) > 0
    return Answer(
        text=text.removeprefix(" "),
        finish=_FINISHES.get(finish or "", Finish.UNKNOWN),
        log_prob=sum(known) if complete else None,
        tokens=len(told or ()),
    )
