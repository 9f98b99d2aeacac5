"""Wires the parts of the cleaning service and serves."""

from __future__ import annotations

import sys
from typing import Any

from assay.jobs.v1 import jobs_pb2
from assay_cleaning.jobs import checked_spec, register
from assay_cleaning.requests import Labellers
from assay_cleaning.servicer import CleaningServicer, cleaning_door
from assay_cleaning.settings import CleaningSettings
from assay_cleaning.worker import CleaningWorker
from assay_kit.jobs import JobRequestWorker, Jobs, job_door
from assay_kit.kafka import EventProducer, KafkaConnection
from assay_kit.server import App, Worker, run
from assay_kit.settings import load_settings
from assay_kit.topics import JOBS_EVENTS


def app_of(settings: CleaningSettings) -> App:
    """The service put together; nothing starts."""
    labellers = Labellers(min_flip_confidence=settings.cleaning_min_flip_confidence)
    connection = KafkaConnection.from_settings(settings) if settings.kafka_bootstrap else None
    events = EventProducer(connection, "assay-cleaning-events") if connection else None

    def publish(event: jobs_pb2.JobEvent) -> None:
        assert events is not None
        events.send(JOBS_EVENTS, event.job_id, event)
        events.flush()

    jobs = Jobs(service="cleaning", settings=settings, publish=publish if events else None)
    register(jobs, labellers, at_once=settings.cleaning_jobs_at_once)

    def check(kind: str, spec: dict[str, Any]) -> dict[str, Any]:
        return checked_spec(kind, spec, labellers)

    def shutdown() -> None:
        jobs.shutdown()
        if events is not None:
            events.close()

    workers: list[Worker] = []
    if connection is not None:
        pairs = CleaningWorker(connection, labellers, max_batch=settings.cleaning_batch)
        workers = [pairs, JobRequestWorker(connection, jobs, check=check)]
    servicer = CleaningServicer(labellers=labellers, jobs=jobs, calls_at_once=settings.cleaning_calls_at_once)
    return App(
        name="cleaning",
        settings=settings,
        doors=[cleaning_door(servicer), job_door(jobs)],
        workers=workers,
        startup=jobs.launch,
        draining=jobs.begin_to_stop,
        shutdown=shutdown,
    )


def main() -> int:
    """Serves until told to stop."""
    return run(app_of(load_settings(CleaningSettings, "cleaning", sys.argv[1:])))


if __name__ == "__main__":
    sys.exit(main())
