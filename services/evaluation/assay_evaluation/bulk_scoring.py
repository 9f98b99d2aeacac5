"""Scores many answers through Kafka: assay.rewards.requested.v1 out, assay.rewards.scored.v1 back.

Every request has an id that is the same when the work is done again, and the offsets of the answers' topic are kept before the first
request goes out. So a run that was killed in the middle finds the answers that have come meanwhile and asks only for nothing twice.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from google.protobuf.message import DecodeError

from assay.common.v1 import common_pb2
from assay.reward.v1 import reward_pb2
from assay_data.conversations import Message
from assay_data.storage import exists, join_uri, read_json, read_jsonl, write_json, write_jsonl
from assay_data.wire import messages_to_proto
from assay_evaluation.metrics import SCORED
from assay_evaluation.refusals import RefusalWatch
from assay_evaluation.statistics import Floats
from assay_kit.errors import FailedPrecondition
from assay_kit.kafka import EventProducer, KafkaConnection, Record, collect, end_offsets
from assay_kit.topics import DEAD_LETTERS, REWARDS_REQUESTED, REWARDS_SCORED, Topic

RUN_HEADER = "assay-run"
TIMEOUT_SECONDS = 900.0
SCORE_DIGITS = 6


@dataclass(frozen=True, kw_only=True)
class Group:
    """Answers to one prompt.

    Attributes:
        prompt_id: Key of the prompt; also the key of the record.
        prompt: The turns before the answers.
        answers: The answers; at least one.
    """

    prompt_id: str
    prompt: tuple[Message, ...]
    answers: tuple[str, ...]


@dataclass(frozen=True, kw_only=True)
class ScoredGroup:
    """Scores of a group.

    Attributes:
        scores: Raw scores, shape (answers,).
        tokens: Lengths of the answers in the model's tokens, shape (answers,).
    """

    scores: Floats
    tokens: Floats


@dataclass(frozen=True, kw_only=True)
class Scored:
    """Scores of all groups, in their order, and the fingerprint of the model that gave them."""

    groups: Sequence[ScoredGroup]
    fingerprint: str


class BulkScorer:
    """Asks for scores and gathers them."""

    def __init__(self, connection: KafkaConnection | None, producer: EventProducer | None) -> None:
        self._connection = connection
        self._producer = producer

    def score(
        self,
        groups: Sequence[Group],
        *,
        model: str,
        request_prefix: str,
        memo_uri: str,
        progress: Callable[[int, int], None],
    ) -> Scored:
        """Scores all groups with one model.

        Args:
            groups: What to score.
            model: Name of the model at the reward service.
            request_prefix: Names the work among all work on this broker, the same when it is done again.
            memo_uri: Folder of this work's own: what came out is kept there, and taken from there the next time.
            progress: Called with groups done and groups in all; raises to stop.

        Raises:
            FailedPrecondition: There is no broker, or the reward service refused a request (it lies in the dead letters).
            Unavailable: The broker does not answer.
        """
        done_uri = join_uri(memo_uri, "scores.jsonl")
        if not exists(done_uri):
            answers = self._ask(groups, model, request_prefix, memo_uri, progress)
            write_jsonl(done_uri, answers)
        rows = list(read_jsonl(done_uri))
        return Scored(
            groups=[ScoredGroup(scores=np.array(row["scores"]), tokens=np.array(row["tokens"], dtype=np.float64)) for row in rows],
            fingerprint=rows[0]["fingerprint"] if rows else "",
        )

    def _ask(
        self, groups: Sequence[Group], model: str, prefix: str, memo_uri: str, progress: Callable[[int, int], None]
    ) -> list[dict[str, Any]]:
        if self._connection is None or self._producer is None:
            raise FailedPrecondition("scoring in bulk goes through Kafka; set ASSAY_KAFKA_BOOTSTRAP")
        start = self._start(join_uri(memo_uri, "start.json"), REWARDS_SCORED)
        refused_start = self._start(join_uri(memo_uri, "start-dead-letters.json"), DEAD_LETTERS)
        sent_uri = join_uri(memo_uri, "sent.json")
        numbers = {f"{prefix}/{index}": index for index in range(len(groups))}
        if not exists(sent_uri):
            for request_id, index in numbers.items():
                request = _request(groups[index], model, request_id)
                self._producer.send(REWARDS_REQUESTED, groups[index].prompt_id, request, headers={RUN_HEADER: prefix})
            self._producer.flush(120.0)
            write_json(sent_uri, {"requests": len(numbers)})
        answers: dict[int, dict[str, Any]] = {}
        refusals = RefusalWatch(self._connection, REWARDS_REQUESTED, start=refused_start, ours=lambda letter: _ours(letter, numbers))

        def wanted(record: Record) -> bool:
            response = record.message
            if response is None or response.request_id not in numbers:
                return False
            refusals.answered()
            index = numbers[response.request_id]
            if index not in answers:
                SCORED.inc()
                answers[index] = {
                    "scores": [round(score.raw, SCORE_DIGITS) for score in response.scores],
                    "tokens": [score.response_tokens for score in response.scores],
                    "fingerprint": response.provenance.fingerprint,
                }
            return False

        def until() -> bool:
            progress(len(answers), len(numbers))
            refusals.check()
            return len(answers) == len(numbers)

        try:
            collect(self._connection, REWARDS_SCORED, start=start, wanted=wanted, until=until, timeout_s=TIMEOUT_SECONDS)
        except TimeoutError as error:
            raise FailedPrecondition(
                f"{len(numbers) - len(answers)} of {len(numbers)} requests to {model} got no answer within {TIMEOUT_SECONDS:g} s"
            ) from error
        return [answers[index] for index in range(len(groups))]

    def _start(self, uri: str, topic: Topic) -> dict[int, int]:
        assert self._connection is not None
        if not exists(uri):
            write_json(uri, {str(number): offset for number, offset in end_offsets(self._connection, topic).items()})
        return {int(number): offset for number, offset in read_json(uri).items()}


def _ours(letter: common_pb2.DeadLetter, numbers: Mapping[str, int]) -> str:
    try:
        request = reward_pb2.ScoreGroupRequest.FromString(letter.payload)
    except DecodeError:
        return ""
    return f"scoring request {request.request_id}" if request.request_id in numbers else ""


def _request(group: Group, model: str, request_id: str) -> reward_pb2.ScoreGroupRequest:
    return reward_pb2.ScoreGroupRequest(
        model=common_pb2.ModelSelector(name=model),
        conversation=common_pb2.Conversation(messages=messages_to_proto(group.prompt)),
        candidates=[reward_pb2.Candidate(text=answer) for answer in group.answers],
        options=reward_pb2.ScoreOptions(
            truncation=reward_pb2.TRUNCATION_POLICY_PROMPT_LEFT,
            priority=reward_pb2.PRIORITY_BULK,
        ),
        request_id=request_id,
    )
