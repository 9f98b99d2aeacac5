"""vLLM's HTTP wire for pooling models: token ids in, the head's raw output out, and what a server says of itself.

As of vLLM 0.32: `POST /classify` takes lists of token ids as `input`, and `use_activation: false` leaves the logit as it is. Releases that
do not know the field ignore it and put a sigmoid on, so a server is asked a probe both ways before it is trusted.
"""

from __future__ import annotations

import json
import math
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any

import aiohttp

from assay_kit.errors import FailedPrecondition, Unavailable

LOOK_SECONDS = 5.0
"""Longest wait for what a server says of itself."""
_KEEP_ALIVE_SECONDS = 3.0
"""Below the five after which vLLM's web server closes a connection, so that it is never closed under a request."""
_REFUSALS = (400, 413, 422)

Ids = tuple[int, ...]


class ServerAway(Unavailable):
    """A server gives no answer: no connection, no time, or an error of its own."""


class WrongServer(FailedPrecondition):
    """What answers is not the server that was declared."""


class IdsRefused(FailedPrecondition):
    """The server takes requests, but not this one."""


@dataclass(frozen=True, kw_only=True)
class Facts:
    """What a healthy server says of itself."""

    version: str
    """Of vLLM."""
    max_model_len: int
    """Longest input in tokens."""
    probe: tuple[float, ...]
    """Raw scores of the probes, in order."""


class Connections:
    """One HTTP session for as long as anybody uses it, so that connections are kept under load and none is left behind."""

    def __init__(self, api_key: str) -> None:
        """Takes the key; empty where the servers want none."""
        self._headers = {"Authorization": f"Bearer {api_key}"} if api_key else {}
        self._session: aiohttp.ClientSession | None = None
        self._users = 0

    @asynccontextmanager
    async def open(self) -> AsyncIterator[aiohttp.ClientSession]:
        """The session, made where there is none; closed by the last who leaves."""
        if self._session is None:
            connector = aiohttp.TCPConnector(limit=0, keepalive_timeout=_KEEP_ALIVE_SECONDS)
            self._session = aiohttp.ClientSession(connector=connector, headers=self._headers)
        self._users += 1
        try:
            yield self._session
        finally:
            self._users -= 1
            if not self._users:
                session, self._session = self._session, None
                await session.close()


class VllmWire:
    """One server."""

    def __init__(self, *, address: str, model: str, timeout_seconds: float) -> None:
        """Takes where it is.

        Args:
            address: for example "http://host:8000".
            model: as it names the model.
            timeout_seconds: longest wait for the scores of one request.
        """
        self.address = address
        self._model = model
        self._timeout_seconds = timeout_seconds

    async def facts(self, session: aiohttp.ClientSession, probes: Sequence[Ids], *, has_activation: bool) -> Facts:
        """What it says of itself, and its scores of the probes.

        Args:
            session: of `Connections`.
            probes: token ids; several, each short.
            has_activation: whether vLLM puts an activation on this model's logits unless told not to.

        Raises:
            ServerAway: it is not healthy.
            WrongServer: it has another model, or does not give raw logits.
        """
        await self._call(session, "GET", "/health", None, LOOK_SECONDS)
        version = await self._call(session, "GET", "/version", None, LOOK_SECONDS)
        models = await self._call(session, "GET", "/v1/models", None, LOOK_SECONDS)
        try:
            named = {str(model["id"]): model for model in models["data"]}
            if self._model not in named:
                raise WrongServer(f"{self.address} serves {', '.join(sorted(named)) or 'nothing'}, not {self._model}")
            max_model_len = int(named[self._model]["max_model_len"])
            said = str(version["version"])
        except (KeyError, TypeError, ValueError) as error:
            raise WrongServer(f"{self.address} does not speak as vLLM does: its list of models or its version lacks {error}") from error
        try:
            raw = await self.classify(session, probes)
            if has_activation and all(0 <= score <= 1 for score in raw):
                activated = await self.classify(session, probes, use_activation=True)
                if all(math.isclose(one, other, rel_tol=1e-6) for one, other in zip(raw, activated, strict=True)):
                    raise WrongServer(
                        f"{self.address}, vLLM {said}, puts an activation on scores though it is told not to; a newer vLLM is wanted"
                    )
        except IdsRefused as error:
            raise WrongServer(f"{error.message}; it must serve a classifier of one label: vllm serve … --runner pooling") from error
        return Facts(version=said, max_model_len=max_model_len, probe=tuple(raw))

    async def classify(self, session: aiohttp.ClientSession, sequences: Sequence[Ids], *, use_activation: bool = False) -> list[float]:
        """The score of each sequence, in order.

        Raises:
            ServerAway: it gives no answer.
            IdsRefused: it does not take these.
            WrongServer: it has no such model, gives several labels, or did not read the tokens that were sent.
        """
        body = {"model": self._model, "input": sequences, "use_activation": use_activation, "add_special_tokens": False}
        reply = await self._call(session, "POST", "/classify", body, self._timeout_seconds)
        try:
            rows = [[float(value) for value in one["probs"]] for one in sorted(reply["data"], key=lambda one: int(one["index"]))]
            read = int(reply["usage"]["prompt_tokens"])
        except (KeyError, TypeError, ValueError) as error:
            raise WrongServer(f"{self.address} answers /classify in another form than vLLM 0.32's: {error!r}") from error
        sent = sum(len(ids) for ids in sequences)
        if len(rows) != len(sequences) or read != sent:
            raise WrongServer(f"{self.address} read {read} tokens of {len(rows)} texts where {sent} of {len(sequences)} were sent")
        if any(len(row) != 1 for row in rows):
            raise WrongServer(f"{self.address} gives {max(len(row) for row in rows)} labels; a reward model has one")
        return [row[0] for row in rows]

    async def _call(self, session: aiohttp.ClientSession, method: str, path: str, body: Any, timeout_seconds: float) -> Any:
        """The JSON of an answer; None where it has no body."""
        timeout = aiohttp.ClientTimeout(total=timeout_seconds, sock_connect=min(LOOK_SECONDS, timeout_seconds))
        try:
            async with session.request(method, self.address + path, json=body, timeout=timeout) as response:
                content = await response.read()
        except TimeoutError as error:
            raise ServerAway(f"{self.address} gave no answer to {path} in {timeout_seconds:g} s") from error
        except (aiohttp.ClientError, OSError) as error:
            raise ServerAway(f"{self.address} does not answer: {error or type(error).__name__}") from error
        if response.status == 200:
            try:
                return json.loads(content) if content else None
            except ValueError as error:
                raise WrongServer(f"{self.address} answers {path} with what is no JSON: {_line(content)}") from error
        text = f"{self.address} says {response.status} to {path}: {_line(content)}"
        if response.status in _REFUSALS:
            raise IdsRefused(text)
        if response.status in (401, 403):
            raise WrongServer(f"{text}; does api_key_env of the declaration name the right key?")
        if response.status in (404, 501):
            raise WrongServer(f"{text}; are servers and served_model of the declaration right?")
        raise ServerAway(text)


def _line(content: bytes) -> str:
    return " ".join(content.decode(errors="replace").split())[:300]
