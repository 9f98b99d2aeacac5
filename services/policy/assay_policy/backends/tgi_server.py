"""Text Generation Inference's own wire, through its official client, `huggingface_hub.AsyncInferenceClient`."""

from __future__ import annotations

import asyncio
from concurrent.futures import Future
from typing import Any
from urllib.parse import urlsplit, urlunsplit

import httpx2
from huggingface_hub import AsyncInferenceClient, set_async_client_factory
from huggingface_hub.errors import HfHubHTTPError, InferenceTimeoutError, OverloadedError, TextGenerationError, ValidationError

from assay_kit.errors import AssayError, FailedPrecondition, InvalidArgument, ResourceExhausted, Unavailable
from assay_policy.backends.remote import RemoteLoop, ask_all, cannot_score
from assay_policy.generation import Answer, Facts, Finish, Outcome, Sampling, Scoring, Turns, Work
from assay_policy.rendering import cut

_FINISHES = {"length": Finish.LENGTH, "eos_token": Finish.STOP, "stop_sequence": Finish.STOP}
_PROBE = [{"role": "user", "content": "Hello"}]


class TgiBackend:
    """Generation at a TGI server.

    The server's own chat template renders the prompt (`/chat_tokenize`), `/generate` answers it. TGI has no `n`, so each answer
    is a call with a seed of its own. Log-probabilities are told only at temperature 1 and without nucleus: TGI's are those after both.
    """

    def __init__(self, *, base_url: str, facts: Facts, token: str, loop: RemoteLoop, concurrency: int, timeout_seconds: float) -> None:
        """Takes its parts; see `connect`."""
        self._base_url = base_url
        self._facts = facts
        self._loop = loop
        self._http = httpx2.AsyncClient(base_url=base_url, timeout=timeout_seconds, headers=_authorization(token))
        set_async_client_factory(lambda: _hub_client(token))
        self._client = AsyncInferenceClient(model=f"{base_url}/generate", timeout=timeout_seconds)
        self._room = asyncio.Semaphore(concurrency)
        self._doubled: str | None = None

    @classmethod
    def connect(
        cls, uri: str, *, served_model: str, loop: RemoteLoop, token: str, concurrency: int, timeout_seconds: float, known: Facts | None
    ) -> TgiBackend:
        """Makes the backend; asks the server what it serves unless that is known already.

        Raises:
            InvalidArgument: it serves another model.
            Unavailable: the server does not answer.
        """
        parts = urlsplit(uri)
        if parts.query:
            raise InvalidArgument("uri", "a TGI server takes no options")
        base_url = urlunsplit((parts.scheme, parts.netloc, parts.path.rstrip("/"), "", ""))
        facts = known or loop.submit(_facts(base_url, token, served_model, timeout_seconds)).result()
        return cls(base_url=base_url, facts=facts, token=token, loop=loop, concurrency=concurrency, timeout_seconds=timeout_seconds)

    @property
    def facts(self) -> Facts:
        """Served name and context."""
        return self._facts

    def generate(self, work: Work) -> Future[None]:
        """Asks the server for every answer."""

        async def ask(turns: Turns, seed: int) -> Outcome:
            return await self._answers(turns, work.n, work.sampling, seed)

        return self._loop.submit(ask_all(work, ask))

    def log_probs(self, scoring: Scoring) -> Future[list[float]]:
        """Refuses: TGI tells log-probabilities of a prompt's tokens only under its own tokenization."""
        return cannot_score(scoring)

    def close(self) -> None:
        """Closes the connections."""
        self._loop.submit(self._close()).result()

    async def _close(self) -> None:
        await self._client.close()
        await self._http.aclose()

    async def _answers(self, turns: Turns, n: int, sampling: Sampling, seed: int) -> Outcome:
        if sampling.min_new_tokens:
            return Outcome(error=InvalidArgument("sampling.min_new_tokens", "TGI has no least number of tokens; leave it 0"))
        try:
            prompt, prompt_tokens = await self._render([{"role": turn.role, "content": turn.content} for turn in turns])
            if self._doubled is None:
                self._doubled = await self._doubled_start()
            prompt = prompt.removeprefix(self._doubled)
            answers = await asyncio.gather(*(self._answer(prompt, sampling, (seed + sample) % 2**31) for sample in range(n)))
        except InvalidArgument as error:
            return Outcome(error=error)
        return Outcome(answers=tuple(answers), prompt_tokens=prompt_tokens)

    async def _render(self, messages: list[dict[str, str]]) -> tuple[str, int]:
        rendered = await self._post("/chat_tokenize", {"model": "tgi", "messages": messages})
        return rendered["templated_text"], len(rendered["tokenize_response"])

    async def _doubled_start(self) -> str:
        """The text of a BOS that template and tokenizer both put in front; empty where only one does."""
        prompt, _ = await self._render(_PROBE)
        tokens = await self._post("/tokenize", {"inputs": prompt})
        if len(tokens) > 1 and tokens[0]["id"] == tokens[1]["id"]:
            return prompt[tokens[1]["start"] : tokens[1]["stop"]]
        return ""

    async def _answer(self, prompt: str, sampling: Sampling, seed: int) -> Answer:
        sampled = sampling.temperature > 0
        async with self._room:
            try:
                response: Any = await self._client.text_generation(
                    prompt,
                    details=True,
                    do_sample=sampled,
                    max_new_tokens=sampling.max_new_tokens,
                    temperature=sampling.temperature if sampled else None,
                    top_p=sampling.top_p if sampled and sampling.top_p < 1 else None,
                    seed=seed if sampled else None,
                    stop=list(sampling.stop) or None,
                    return_full_text=False,
                )
            except (HfHubHTTPError, InferenceTimeoutError, TextGenerationError, httpx2.HTTPError) as error:
                raise as_ours(error, self._base_url) from error
        details = response.details
        tells = sampling.temperature == 1 and sampling.top_p == 1
        return Answer(
            text=cut(response.generated_text, sampling.stop).removeprefix(" "),
            token_ids=tuple(token.id for token in details.tokens),
            finish=_FINISHES.get(details.finish_reason, Finish.UNKNOWN),
            log_prob=sum(token.logprob for token in details.tokens) if tells else None,
            tokens=details.generated_tokens,
        )

    async def _post(self, path: str, body: dict[str, Any]) -> Any:
        try:
            response = await self._http.post(path, json=body)
            response.raise_for_status()
        except httpx2.HTTPError as error:
            raise as_ours(error, self._base_url) from error
        return response.json()


async def _facts(base_url: str, token: str, served_model: str, timeout_seconds: float) -> Facts:
    async with httpx2.AsyncClient(base_url=base_url, timeout=timeout_seconds, headers=_authorization(token)) as http:
        try:
            response = await http.get("/info")
            response.raise_for_status()
        except httpx2.HTTPError as error:
            raise as_ours(error, base_url) from error
    info = response.json()
    served = info["model_id"]
    if served_model and served_model != served:
        raise InvalidArgument("served_model", f"{base_url} has no {served_model!r}; it has {served}")
    return Facts(served_model=served, max_context_tokens=int(info.get("max_total_tokens") or 0))


def as_ours(error: Exception, server: str) -> AssayError:
    """The client's error as one that names the server and says what to do."""
    text = f"the TGI server at {server} says: {error}"
    if isinstance(error, ValidationError):
        return InvalidArgument("conversation", text)
    if isinstance(error, OverloadedError):
        return ResourceExhausted(text, retry_after_seconds=1.0)
    response = error.response if isinstance(error, HfHubHTTPError | httpx2.HTTPStatusError) else None
    status = response.status_code if response is not None else 0
    if status == 429:
        return ResourceExhausted(text, retry_after_seconds=1.0)
    if status in (400, 413, 422):
        return InvalidArgument("conversation", text)
    if status in (401, 403):
        return FailedPrecondition(f"{text}; is ASSAY_POLICY_TGI_TOKEN right?")
    if status == 404:
        return FailedPrecondition(text)
    return Unavailable(f"the TGI server at {server} does not answer: {error}")


def _authorization(token: str) -> dict[str, str]:
    return {"authorization": f"Bearer {token}"} if token else {}


def _hub_client(token: str) -> httpx2.AsyncClient:
    """The HTTP client under `AsyncInferenceClient`.

    The library's own refuses every address when HF_HUB_OFFLINE is set, and sends the machine's hub token to whatever server it calls.
    """

    async def authorize(request: httpx2.Request) -> None:
        request.headers.pop("authorization", None)
        request.headers.update(_authorization(token))

    async def read_errors(response: httpx2.Response) -> None:
        if response.status_code >= 400:
            await response.aread()

    return httpx2.AsyncClient(timeout=None, event_hooks={"request": [authorize], "response": [read_errors]})
