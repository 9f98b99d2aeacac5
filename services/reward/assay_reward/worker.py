"""The Kafka door: groups from assay.rewards.requested.v1, their scores to assay.rewards.scored.v1."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TypeAlias

import grpc

from assay.reward.v1 import reward_pb2
from assay_kit.errors import AssayError
from assay_kit.groups import REWARD
from assay_kit.kafka import Answer, KafkaConnection, Output, Record, Rejected, TransactionalWorker
from assay_kit.topics import REWARDS_REQUESTED, REWARDS_SCORED
from assay_reward.engine import Work
from assay_reward.scoring import Call, Scoring

Group: TypeAlias = Call[reward_pb2.ScoreGroupResponse]

GROUP = REWARD.name
"""Consumer group; replicas of the service share the partitions."""
ROOM_SECONDS = 60.0
"""Longest wait for room in the queue before the batch is put off."""

# What is wrong with a message itself; all else is the world's failure, and the same messages come again.
_MESSAGE_AT_FAULT = {
    grpc.StatusCode.INVALID_ARGUMENT,
    grpc.StatusCode.NOT_FOUND,
    grpc.StatusCode.FAILED_PRECONDITION,
    grpc.StatusCode.INTERNAL,
}


def score_worker(connection: KafkaConnection, scoring: Scoring, *, drain_seconds: float) -> TransactionalWorker:
    """The worker that scores what is asked for by message.

    A message for a model that is not loaded goes to the dead letters: who asks loads first.
    """
    return TransactionalWorker(
        connection,
        service="reward",
        group=GROUP,
        topics=[REWARDS_REQUESTED],
        handle=lambda records: score_records(scoring, records),
        read_ahead=True,
        drain_s=drain_seconds,
    )


def score_records(scoring: Scoring, records: Sequence[Record]) -> list[Answer]:
    """Scores groups, each on its way while the next is tokenised; answers in the order of the records.

    Raises:
        AssayError: a failure of the world; nothing is left on its way.
    """
    begun: list[tuple[Group, Work] | Rejected] = []
    try:
        for record in records:
            begun.append(_begun(scoring, record))
        return [_answer(record, one) for record, one in zip(records, begun, strict=True)]
    finally:
        for one in begun:
            if not isinstance(one, Rejected):
                call, work = one
                work.cancel()
                call.close()


def _begun(scoring: Scoring, record: Record) -> tuple[Group, Work] | Rejected:
    try:
        call = scoring.group(record.message, door="kafka", caller="kafka")
    except AssayError as error:
        return _rejected(error)
    try:
        call.admit(wait_seconds=ROOM_SECONDS)
        return call, call.begin()
    except AssayError as error:
        call.close()
        return _rejected(error)
    except BaseException:
        call.close()
        raise


def _answer(record: Record, begun: tuple[Group, Work] | Rejected) -> Answer:
    if isinstance(begun, Rejected):
        return begun
    call, work = begun
    try:
        return [Output(topic=REWARDS_SCORED, key=record.key.decode("utf-8", "replace"), message=call.reply(work))]
    except AssayError as error:
        return _rejected(error)


def _rejected(error: AssayError) -> Rejected:
    if error.code in _MESSAGE_AT_FAULT:
        return Rejected(f"{error.code.name}: {error.message}")
    raise error
