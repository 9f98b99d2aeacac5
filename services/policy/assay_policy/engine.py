"""Generation as both doors see it: find the model, do the work, measure it."""

from __future__ import annotations

import time
from collections.abc import Callable
from concurrent.futures import Future
from dataclasses import dataclass
from typing import Any

from assay_kit.errors import AssayError
from assay_policy.catalogue import Catalogue, Policy
from assay_policy.generation import Outcome, Sampling, Scoring, Ticket, Turns, Work
from assay_policy.metrics import ANSWERS, SECONDS, TOKENS


@dataclass(frozen=True, kw_only=True)
class Asked:
    """A request for answers, checked."""

    model: str
    revision: str
    prompt_ids: tuple[str, ...]
    prompts: tuple[Turns | AssayError, ...]
    """Turns, or what is wrong with the prompt."""
    n: int
    sampling: Sampling
    request_id: str = ""


class Engine:
    """What the gRPC and the Kafka door share."""

    def __init__(self, catalogue: Catalogue) -> None:
        """Takes the models."""
        self._catalogue = catalogue

    def generate(self, asked: Asked, ticket: Ticket, emit: Callable[[int, Outcome], None]) -> tuple[Policy, Future[None]]:
        """Begins a request.

        Args:
            asked: what is wanted.
            ticket: the caller's patience.
            emit: called once per prompt, with its index, from any thread, before the future ends.

        Returns:
            The model that answers, and a future that ends with the last prompt or with the error of the whole.

        Raises:
            AssayError: there is no such model, or no room for the request.
        """
        good = [index for index, prompt in enumerate(asked.prompts) if not isinstance(prompt, AssayError)]
        for index, prompt in enumerate(asked.prompts):
            if isinstance(prompt, AssayError):
                emit(index, Outcome(error=prompt))
        policy = self._catalogue.lease(asked.model, asked.revision)

        def forward(place: int, outcome: Outcome) -> None:
            _measure(policy.name, outcome)
            emit(good[place], outcome)

        prompts = [prompt for prompt in asked.prompts if not isinstance(prompt, AssayError)]
        work = Work(prompts=prompts, n=asked.n, sampling=asked.sampling, ticket=ticket, emit=forward)
        began = time.monotonic()
        future = self._leased(policy, lambda: policy.backend.generate(work))
        future.add_done_callback(lambda _: SECONDS.labels(policy.name).observe(time.monotonic() - began))
        return policy, future

    def log_probs(self, model: str, revision: str, scoring: Scoring) -> Future[list[float]]:
        """Begins; the future holds a sum in nats per item.

        Raises:
            AssayError: there is no such model, it cannot tell, or there is no room.
        """
        policy = self._catalogue.lease(model, revision)
        return self._leased(policy, lambda: policy.backend.log_probs(scoring))

    def _leased(self, policy: Policy, begin: Callable[[], Future[Any]]) -> Future[Any]:
        try:
            future = begin()
        except BaseException:
            policy.leave()
            raise
        future.add_done_callback(lambda _: policy.leave())
        return future


def _measure(model: str, outcome: Outcome) -> None:
    TOKENS.labels(model, "prompt").inc(outcome.prompt_tokens)
    TOKENS.labels(model, "completion").inc(sum(answer.tokens for answer in outcome.answers))
    for answer in outcome.answers:
        ANSWERS.labels(model, answer.finish.value).inc()
