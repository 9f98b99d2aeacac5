"""The Kafka doors of evaluation: jobs that are asked for, job events that are told, quality cards that are followed."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from google.protobuf import json_format

from assay.evaluation.v1 import evaluation_pb2
from assay.jobs.v1 import jobs_pb2
from assay_evaluation.cards import CardStore
from assay_evaluation.measurements import BENCHMARK, POLICY_EVALUATION, benchmark_spec, policy_evaluation_spec
from assay_evaluation.studies import STUDY, check_output_uri
from assay_evaluation.study import StudyError, parse_study
from assay_kit.errors import InvalidArgument
from assay_kit.kafka import EventProducer, KafkaConnection, Record, TopicFollower
from assay_kit.topics import JOBS_EVENTS, QUALITY_CARDS


def checked_spec(kind: str, spec: dict[str, Any]) -> Mapping[str, Any]:
    """The spec of a job that was asked for over Kafka, checked as the gRPC door checks it.

    Raises:
        InvalidArgument: Names the field that is wrong.
    """
    try:
        if kind == BENCHMARK:
            return benchmark_spec(json_format.ParseDict(spec, evaluation_pb2.CreateBenchmarkJobRequest()))
        if kind == POLICY_EVALUATION:
            return policy_evaluation_spec(json_format.ParseDict(spec, evaluation_pb2.CreatePolicyEvaluationJobRequest()))
        if kind == STUDY:
            request = json_format.ParseDict(spec, evaluation_pb2.CreateStudyJobRequest())
            check_output_uri(request.output_uri)
            return {"study_yaml": parse_study(request.study_yaml).text, "output_uri": request.output_uri}
    except json_format.ParseError as error:
        raise InvalidArgument("spec", str(error)) from error
    except StudyError as error:
        raise InvalidArgument.many(error.violations) from error
    raise InvalidArgument("kind", f"{kind!r} cannot be asked for; {BENCHMARK}, {POLICY_EVALUATION} and {STUDY} can")


class JobEvents:
    """Tells job events to the topic."""

    def __init__(self, producer: EventProducer) -> None:
        self._producer = producer

    def publish(self, event: jobs_pb2.JobEvent) -> None:
        """Writes one event; returns when it is written.

        Raises:
            Unavailable: The brokers do not answer.
        """
        self._producer.send(JOBS_EVENTS, event.job_id, event)
        self._producer.flush()


def card_follower(connection: KafkaConnection, cards: CardStore) -> TopicFollower:
    """Keeps the store of cards as the topic has it."""

    def take(record: Record) -> None:
        if record.message is not None:
            cards.put(record.message)

    return TopicFollower(connection, QUALITY_CARDS, take)
