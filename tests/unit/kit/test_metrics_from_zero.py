"""What has not happened yet is shown as 0: to Prometheus a series born at 1 is no increase, and the first failure would be missed."""

from pathlib import Path

from prometheus_client import REGISTRY

from assay_kit.jobs import Jobs
from assay_kit.kafka import KafkaConnection, TransactionalWorker
from assay_kit.settings import ServiceSettings
from assay_kit.topics import GENERATIONS_REQUESTED


def test_a_reader_shows_no_dead_letters_before_there_are_any() -> None:
    name = GENERATIONS_REQUESTED.name
    TransactionalWorker(KafkaConnection("127.0.0.1:1"), service="x", group="x", topics=[GENERATIONS_REQUESTED], handle=lambda _: [])
    assert REGISTRY.get_sample_value("assay_kafka_dead_letters_total", {"topic": name}) == 0
    for outcome in ("processed", "rejected", "retried"):
        assert REGISTRY.get_sample_value("assay_kafka_records_total", {"topic": name, "outcome": outcome}) == 0


def test_a_kind_of_job_shows_that_none_has_failed(tmp_path: Path) -> None:
    jobs = Jobs(service="zero", settings=ServiceSettings(data_dir=tmp_path))
    jobs.kind("count", lambda context, spec: {})
    for state in ("succeeded", "failed", "cancelled"):
        assert REGISTRY.get_sample_value("assay_jobs_ended_total", {"service": "zero", "kind": "count", "state": state}) == 0
