"""The Kafka door: assay.generations.requested.v1 in, .completed.v1 out, one Generation a prompt."""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import Future

from assay_data.conversations import prompt_key
from assay_kit.errors import AssayError, InvalidArgument, NotFound
from assay_kit.groups import POLICY
from assay_kit.kafka import KafkaConnection, Output, Record, Rejected, TransactionalWorker
from assay_kit.topics import GENERATIONS_COMPLETED, GENERATIONS_REQUESTED
from assay_policy import messages
from assay_policy.catalogue import Policy
from assay_policy.engine import Asked, Engine
from assay_policy.generation import Outcome, Ticket
from assay_policy.messages import Limits

GROUP = POLICY.name
_OF_THE_MESSAGE = (InvalidArgument, NotFound)


class GenerationWorker:
    """Answers the requests of the topic. A request that can never be answered goes to the dead letters; all else is tried again."""

    def __init__(self, engine: Engine, limits: Limits) -> None:
        """Takes what the gRPC door has too."""
        self._engine = engine
        self._limits = limits

    def handle(self, records: Sequence[Record]) -> list[Sequence[Output] | Rejected]:
        """Answers a batch of requests, side by side.

        Raises:
            AssayError: the world failed; the same records come again.
        """
        ticket = Ticket()
        started = [self._begin(record, ticket) for record in records]
        try:
            return [one if isinstance(one, Rejected) else self._finish(*one) for one in started]
        except BaseException:
            ticket.abandon()
            raise

    def _begin(self, record: Record, ticket: Ticket) -> tuple[Asked, Policy, Future[None], dict[int, Outcome]] | Rejected:
        outcomes: dict[int, Outcome] = {}
        try:
            asked = messages.asked_from(record.message, self._limits)
            policy, future = self._engine.generate(asked, ticket, outcomes.__setitem__)
        except _OF_THE_MESSAGE as error:
            return Rejected(error.message)
        return asked, policy, future, outcomes

    def _finish(self, asked: Asked, policy: Policy, future: Future[None], outcomes: dict[int, Outcome]) -> list[Output] | Rejected:
        try:
            future.result()
        except _OF_THE_MESSAGE as error:
            return Rejected(error.message)
        return [
            Output(
                topic=GENERATIONS_COMPLETED,
                key=_key(asked, index),
                message=messages.to_generation(asked, index, outcomes[index], policy),
            )
            for index in range(len(asked.prompts))
        ]


def _key(asked: Asked, index: int) -> str:
    prompt = asked.prompts[index]
    return asked.prompt_ids[index] if isinstance(prompt, AssayError) else prompt_key(prompt)


def generation_worker(connection: KafkaConnection, engine: Engine, limits: Limits) -> TransactionalWorker:
    """The worker on its topic."""
    return TransactionalWorker(
        connection,
        service="policy",
        group=GROUP,
        topics=[GENERATIONS_REQUESTED],
        handle=GenerationWorker(engine, limits).handle,
        max_batch=16,
    )
