"""Several vLLM servers as one: balanced by the tokens each has been sent, left alone while they are away, asked again elsewhere.

A server is in until a request to it fails. Then it is out, and looked at: it must be healthy, serve the model, and score the probes as
before. It comes back as soon as it passes, and is looked at again, ever later, while it does not. One event loop asks; `look` may run
before that in another.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Sequence
from dataclasses import dataclass, field

import aiohttp

from assay_kit.errors import AssayError, Unavailable
from assay_reward import metrics
from assay_reward.models.asking import ask_all
from assay_reward.models.vllm_server_wire import Connections, Facts, Ids, IdsRefused, ServerAway, VllmWire, WrongServer

REQUEST_TOKENS = 16_384
"""Most tokens of one HTTP request, unless one sequence alone has more."""
_TRIES = 4
"""Of one request, on whatever servers."""
_BACKOFF_SECONDS = 0.1
"""After the first failure; doubles."""
_LONGEST_BACKOFF_SECONDS = 10.0

_log = logging.getLogger(__name__)


@dataclass(kw_only=True, eq=False)
class _Server:
    """One server, as this service sees it."""

    wire: VllmWire
    facts: Facts | None = None
    """Of the last look that it passed."""
    outstanding: int = 0
    """Tokens that it has been sent and has not answered."""
    out: str = "it has not been looked at"
    """Why it is sent nothing; empty where it is in."""
    looks: int = 0
    """How often in a row it did not pass."""
    due: float = 0.0
    """When it is looked at next, on the clock of `time.monotonic`."""
    looking: asyncio.Task[None] | None = None


@dataclass(frozen=True, kw_only=True)
class Expected:
    """What a server must be to be let in."""

    probes: tuple[Ids, ...]
    """Short sequences that it scores."""
    tolerance: float
    """How far its scores of them may be from those of the others, relative to max(1, |score|)."""
    has_activation: bool
    """Whether vLLM puts an activation on the model's logits unless told not to."""


@dataclass(kw_only=True)
class _Model:
    """What the first server that was let in has settled for all."""

    max_model_len: int = 0
    probe: tuple[float, ...] = field(default=())


class VllmPool:
    """Servers of one model."""

    def __init__(self, wires: Sequence[VllmWire], *, connections: Connections, expected: Expected, max_outstanding_tokens: int) -> None:
        """Takes the servers; none is asked yet.

        Args:
            wires: one for each.
            connections: to all of them.
            expected: what each must be.
            max_outstanding_tokens: most that one server is sent at a time, unless a single request has more; what is over waits here.
        """
        self._servers = [_Server(wire=wire) for wire in wires]
        self._connections = connections
        self._expected = expected
        self._max_outstanding = max_outstanding_tokens
        self._model = _Model()
        self._turn = asyncio.Lock()
        self._changed = asyncio.Event()

    @property
    def max_model_len(self) -> int:
        """Longest input that all servers take that were in at the first look."""
        return self._model.max_model_len

    @property
    def versions(self) -> str:
        """Of vLLM, on the servers that were let in."""
        return ", ".join(sorted({server.facts.version for server in self._servers if server.facts is not None}))

    async def look(self) -> None:
        """The first look at all servers. One that is away may come later; one that is there must be right.

        Raises:
            Unavailable: none is there.
            WrongServer: one is another than was declared, or scores otherwise than the rest.
        """
        found = await asyncio.gather(*(self._facts(server) for server in self._servers), return_exceptions=True)
        facts: list[Facts] = []
        for server, outcome in zip(self._servers, found, strict=True):
            if isinstance(outcome, Facts):
                facts.append(outcome)
            elif isinstance(outcome, ServerAway):
                self._put_out(server, outcome)
            else:
                raise outcome
        if not facts:
            raise self._nobody()
        self._model = _Model(max_model_len=min(one.max_model_len for one in facts), probe=facts[0].probe)
        for server, outcome in zip(self._servers, found, strict=True):
            if isinstance(outcome, Facts):
                self._check(server, outcome)
                server.facts, server.out = outcome, ""

    async def classify(self, sequences: Sequence[Ids]) -> list[float | AssayError]:
        """Score of each sequence, in order, or why the server that read it takes it not.

        Raises:
            Unavailable: no server gives an answer, however often they were asked.
        """
        requests = requests_of(sequences, min(REQUEST_TOKENS, self._max_outstanding))
        scores: dict[Ids, float | AssayError] = {}
        async with self._connections.open() as session:
            self._look_at_due()
            for request, outcome in zip(requests, await ask_all([self._ask(session, request) for request in requests]), strict=True):
                scores.update(zip(request, outcome, strict=True))
        return [scores[ids] for ids in sequences]

    async def _ask(self, session: aiohttp.ClientSession, request: Sequence[Ids]) -> Sequence[float | AssayError]:
        tokens = sum(len(ids) for ids in request)
        failed: _Server | None = None
        last: AssayError | None = None
        for failures in range(_TRIES):
            if failures:
                await asyncio.sleep(_BACKOFF_SECONDS * 2 ** (failures - 1))
            server = await self._taken(tokens, failed)
            try:
                return await server.wire.classify(session, request)
            except IdsRefused as error:
                return [error] * len(request)
            except (ServerAway, WrongServer) as error:
                metrics.VLLM_FAILURES.labels(server.wire.address).inc()
                self._put_out(server, error)
                self._look_at_due()
                failed, last = server, error
            finally:
                server.outstanding -= tokens
                self._changed.set()
        raise Unavailable(f"a request was not answered {_TRIES} times; at last {last.message if last else ''}") from last

    async def _taken(self, tokens: int, failed: _Server | None) -> _Server:
        """A server with room for so many tokens more, which it then has; first come, first served.

        Args:
            tokens: of the request.
            failed: the server that had it before; taken again only where no other has room.
        """
        async with self._turn:
            while True:
                self._changed.clear()
                there = [server for server in self._servers if not server.out]
                if not there:
                    await self._anybody()
                    continue
                room = [server for server in there if not server.outstanding or server.outstanding + tokens <= self._max_outstanding]
                if room:
                    server = min(room, key=lambda one: (one is failed, one.outstanding))
                    server.outstanding += tokens
                    return server
                await self._changed.wait()

    async def _anybody(self) -> None:
        """Waits until a server is in.

        Raises:
            Unavailable: each has been looked at `_TRIES` times in a row, and is not due again yet.
        """
        while all(server.out for server in self._servers):
            self._look_at_due()
            looking = [server.looking for server in self._servers if server.looking is not None and not server.looking.done()]
            if looking:
                await asyncio.wait(looking, return_when=asyncio.FIRST_COMPLETED)
            elif all(server.looks >= _TRIES for server in self._servers):
                raise self._nobody()
            else:
                await asyncio.sleep(min(server.due for server in self._servers) - time.monotonic())

    def _look_at_due(self) -> None:
        """Begins to look at the servers that are out and due; each is looked at by itself, whoever asked."""
        for server in self._servers:
            if server.out and server.due <= time.monotonic() and (server.looking is None or server.looking.done()):
                server.looking = asyncio.get_running_loop().create_task(self._look_again(server))

    async def _look_again(self, server: _Server) -> None:
        try:
            facts = await self._facts(server)
            self._check(server, facts)
        except (ServerAway, WrongServer) as error:
            server.looks += 1
            server.due = time.monotonic() + min(_BACKOFF_SECONDS * 2**server.looks, _LONGEST_BACKOFF_SECONDS)
            server.out = error.message
        else:
            _log.warning("the vLLM server %s is back", server.wire.address)
            server.facts, server.out, server.looks = facts, "", 0
        self._changed.set()

    async def _facts(self, server: _Server) -> Facts:
        async with self._connections.open() as session:
            return await server.wire.facts(session, self._expected.probes, has_activation=self._expected.has_activation)

    def _check(self, server: _Server, facts: Facts) -> None:
        """Holds a server to what all others are.

        Raises:
            WrongServer: it takes less, or scores otherwise.
        """
        if facts.max_model_len < self._model.max_model_len:
            raise WrongServer(
                f"{server.wire.address} takes {facts.max_model_len} tokens, where {self._model.max_model_len} are wanted; "
                "serve with that --max-model-len"
            )
        for one, other in zip(facts.probe, self._model.probe, strict=True):
            if not abs(one - other) <= self._expected.tolerance * max(1.0, abs(other)):
                raise WrongServer(f"{server.wire.address} scores a probe {one}, where {other} is wanted; it serves another checkpoint")

    def _put_out(self, server: _Server, error: AssayError) -> None:
        if not server.out:
            _log.warning("the vLLM server %s is left alone until it is healthy again: %s", server.wire.address, error.message)
        server.out, server.due = error.message, time.monotonic()

    def _nobody(self) -> Unavailable:
        return Unavailable(f"no vLLM server answers: {'; '.join(server.out for server in self._servers)}")


def requests_of(sequences: Sequence[Ids], most_tokens: int) -> list[list[Ids]]:
    """The distinct sequences, in requests of at most so many tokens.

    Those that begin alike stand next to each other, so that a server which computes one finds the beginning of the next in its cache.

    Args:
        sequences: token ids, none empty.
        most_tokens: of one request; a longer sequence is a request of its own.
    """
    requests: list[list[Ids]] = []
    tokens = 0
    for ids in sorted(set(sequences)):
        if not requests or tokens + len(ids) > most_tokens:
            requests.append([])
            tokens = 0
        requests[-1].append(ids)
        tokens += len(ids)
    return requests
