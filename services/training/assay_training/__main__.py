"""Puts the training service together and serves it."""

from __future__ import annotations

import sys

from assay.jobs.v1 import jobs_pb2
from assay_client.channels import Security
from assay_kit.jobs import JobRequestWorker, Jobs, job_door
from assay_kit.kafka import EventProducer, KafkaConnection
from assay_kit.server import App, Worker, run
from assay_kit.settings import load_settings
from assay_kit.topics import JOBS_EVENTS
from assay_training.checks import checked_spec
from assay_training.child import preload
from assay_training.gate import reward_service
from assay_training.jobs import TrainingJobs
from assay_training.servicer import TrainingServicer, training_door
from assay_training.settings import TrainingSettings


def app_of(settings: TrainingSettings) -> App:
    """The service with its parts; nothing is opened yet."""
    connection = KafkaConnection.from_settings(settings) if settings.kafka_bootstrap else None
    events = EventProducer(connection, "assay-training-events") if connection else None

    def publish(event: jobs_pb2.JobEvent) -> None:
        assert events is not None
        events.send(JOBS_EVENTS, event.job_id, event)
        events.flush()

    jobs = Jobs(service="training", settings=settings, publish=publish if events else None)
    look_up = reward_service(settings.reward_target, Security.from_folder(settings.tls_dir))
    TrainingJobs(jobs=jobs, settings=settings, look_up=look_up)

    def startup() -> None:
        preload()
        jobs.launch()

    def shutdown() -> None:
        jobs.shutdown()
        if events is not None:
            events.close()

    workers: list[Worker] = [JobRequestWorker(connection, jobs, check=checked_spec)] if connection else []
    return App(
        name="training",
        settings=settings,
        doors=[training_door(TrainingServicer(jobs=jobs, look_up=look_up)), job_door(jobs)],
        workers=workers,
        startup=startup,
        draining=jobs.begin_to_stop,
        shutdown=shutdown,
    )


def main() -> None:
    """Entry point of `python -m assay_training` and of the `assay-training` script."""
    raise SystemExit(run(app_of(load_settings(TrainingSettings, "training", sys.argv[1:]))))


if __name__ == "__main__":
    main()
