"""Puts the evaluation service together and serves it."""

from __future__ import annotations

import sys

from assay.evaluation.v1 import evaluation_pb2_grpc
from assay_evaluation.bulk_scoring import BulkScorer
from assay_evaluation.cards import CardStore
from assay_evaluation.measurements import Measurements
from assay_evaluation.remote import Remote
from assay_evaluation.servicer import EvaluationServicer
from assay_evaluation.settings import EvaluationSettings
from assay_evaluation.studies import Studies
from assay_evaluation.work import Tools
from assay_evaluation.worker import JobEvents, card_follower, checked_spec
from assay_kit.jobs import JobRequestWorker, Jobs, job_door
from assay_kit.kafka import EventProducer, KafkaConnection
from assay_kit.server import App, Door, Worker, run
from assay_kit.settings import load_settings


def app_of(settings: EvaluationSettings) -> App:
    """The service with its parts; nothing is opened yet."""
    connection = KafkaConnection.from_settings(settings) if settings.kafka_bootstrap else None
    producer = EventProducer(connection, "assay-evaluation") if connection else None
    remote = Remote(settings, patience_seconds=settings.evaluation_patience_seconds)
    tools = Tools(remote=remote, scorer=BulkScorer(connection, producer), connection=connection, producer=producer)
    jobs = Jobs(service="evaluation", settings=settings, publish=JobEvents(producer).publish if producer else None)
    studies = Studies(jobs=jobs, tools=tools, stages_at_once=settings.evaluation_stages_at_once)
    Measurements(jobs=jobs, tools=tools, outputs=str(settings.data_dir.absolute() / "outputs"))
    cards = CardStore()
    workers: list[Worker] = []
    if connection:
        workers = [card_follower(connection, cards), JobRequestWorker(connection, jobs, check=checked_spec)]

    def shutdown() -> None:
        jobs.shutdown()
        remote.close()
        if producer:
            producer.close()

    return App(
        name="evaluation",
        settings=settings,
        doors=[
            Door(
                add=evaluation_pb2_grpc.add_EvaluationServiceServicer_to_server,
                servicer=EvaluationServicer(jobs=jobs, studies=studies, cards=cards),
                service_name="assay.evaluation.v1.EvaluationService",
            ),
            job_door(jobs),
        ],
        workers=workers,
        startup=jobs.launch,
        draining=jobs.begin_to_stop,
        shutdown=shutdown,
    )


def main() -> None:
    """Entry point of `python -m assay_evaluation` and of the `assay-evaluation` script."""
    raise SystemExit(run(app_of(load_settings(EvaluationSettings, "evaluation", sys.argv[1:]))))


if __name__ == "__main__":
    main()
