"""Jobs asked for over Kafka."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from google.protobuf import json_format

from assay_kit.errors import AlreadyExists, InvalidArgument
from assay_kit.groups import jobs_group
from assay_kit.jobs.engine import Jobs
from assay_kit.kafka import KafkaConnection, Output, Record, Rejected, TransactionalWorker
from assay_kit.topics import JOBS_REQUESTED


class JobRequestWorker(TransactionalWorker):
    """Takes jobs of this service from assay.jobs.requested.v1; those of other services pass by."""

    def __init__(
        self,
        connection: KafkaConnection,
        jobs: Jobs,
        *,
        check: Callable[[str, dict[str, Any]], Mapping[str, Any]] | None = None,
    ) -> None:
        """Takes the parts.

        Args:
            connection: the broker.
            jobs: launched before the worker starts.
            check: (kind, spec) -> the spec to submit; raises InvalidArgument for one that the gRPC door would refuse.
        """
        self._jobs = jobs
        self._check = check
        super().__init__(
            connection,
            service=jobs.service,
            group=jobs_group(jobs.service),
            topics=[JOBS_REQUESTED],
            handle=self._take,
        )

    def _take(self, records: Sequence[Record]) -> Sequence[Sequence[Output] | Rejected]:
        return [self._take_one(record) for record in records]

    def _take_one(self, record: Record) -> Sequence[Output] | Rejected:
        job = record.message
        if job.service != self._jobs.service:
            return []
        if not job.id:
            return Rejected("id: must be set, so that the same message read twice is one job")
        spec = whole_numbers(json_format.MessageToDict(job.spec))
        try:
            checked = spec if self._check is None else self._check(job.kind, spec)
            self._jobs.submit(job.kind, checked, job.id)
        except (InvalidArgument, AlreadyExists) as error:
            return Rejected(error.message)
        return []


def whole_numbers(value: Any) -> Any:
    """JSON with integers where a protobuf Struct made doubles of them."""
    if isinstance(value, dict):
        return {key: whole_numbers(one) for key, one in value.items()}
    if isinstance(value, list):
        return [whole_numbers(one) for one in value]
    return int(value) if isinstance(value, float) and value.is_integer() else value
