"""The gRPC door."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from google.protobuf import json_format

from assay.cleaning.v1 import cleaning_pb2, cleaning_pb2_grpc
from assay.common.v1 import common_pb2
from assay_cleaning.jobs import CLEAN, COMMITTEE, checked_spec
from assay_cleaning.labelling import Labeller, PairError, policy_id
from assay_cleaning.metrics import count
from assay_cleaning.requests import Labellers
from assay_cleaning.wire import detectors_to_proto, options_from_proto, pair_from_proto, verdict_to_proto
from assay_kit.errors import AssayError, InvalidArgument, ResourceExhausted, item_error
from assay_kit.jobs import Jobs
from assay_kit.server import Door

MOST_PAIRS = 1000


class CleaningServicer(cleaning_pb2_grpc.CleaningServiceServicer):
    """assay.cleaning.v1.CleaningService; labelling has one thread, for more would only share Python's lock."""

    def __init__(self, *, labellers: Labellers, jobs: Jobs, calls_at_once: int) -> None:
        """Takes the parts.

        Args:
            labellers: makes labellers from options.
            jobs: where the jobs go.
            calls_at_once: calls at work or waiting before one more is refused.
        """
        self._labellers = labellers
        self._jobs = jobs
        self._calls_at_once = calls_at_once
        self._calls = 0
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="label")

    async def LabelPairs(self, request: cleaning_pb2.LabelPairsRequest, context: Any) -> cleaning_pb2.LabelPairsResponse:
        """Labels in request order."""
        if not 1 <= len(request.pairs) <= MOST_PAIRS:
            raise InvalidArgument("pairs", f"{len(request.pairs)} pairs; 1 to {MOST_PAIRS:,} a call, or LabelStream, or a cleaning job")
        if self._calls >= self._calls_at_once:
            raise ResourceExhausted(f"{self._calls} calls are at work or wait; that is all there is room for", retry_after_seconds=1.0)
        self._calls += 1
        try:
            results = await self._in_thread(self._label_all, request.options, request.pairs)
        finally:
            self._calls -= 1
        return cleaning_pb2.LabelPairsResponse(results=results)

    async def LabelStream(
        self, request_iterator: AsyncIterator[cleaning_pb2.LabelStreamRequest], context: Any
    ) -> AsyncIterator[cleaning_pb2.LabelStreamResponse]:
        """Labels as they come, in request order."""
        labeller: Labeller | None = None
        index = 0
        async for request in request_iterator:
            if labeller is None:
                labeller = await self._in_thread(self._labellers.labeller, request.options)
            yield cleaning_pb2.LabelStreamResponse(result=await self._in_thread(_label, labeller, request.pair, f"pair[{index}]"))
            index += 1

    async def CreateCleaningJob(
        self, request: cleaning_pb2.CreateCleaningJobRequest, context: Any
    ) -> cleaning_pb2.CreateCleaningJobResponse:
        """Accepts a cleaning job."""
        spec = {
            "input_uri": request.input_uri,
            "output_uri": request.output_uri,
            "options": json_format.MessageToDict(request.options, preserving_proto_field_name=True),
            "limit": request.limit,
        }
        job = await asyncio.to_thread(self._submit, CLEAN, spec, request.job_id)
        return cleaning_pb2.CreateCleaningJobResponse(job=job)

    async def CreateCommitteeJob(
        self, request: cleaning_pb2.CreateCommitteeJobRequest, context: Any
    ) -> cleaning_pb2.CreateCommitteeJobResponse:
        """Accepts a committee job."""
        spec = {"input_uri": request.input_uri, "output_uri": request.output_uri, "seed": request.seed, "limit": request.limit}
        job = await asyncio.to_thread(self._submit, COMMITTEE, spec, request.job_id)
        return cleaning_pb2.CreateCommitteeJobResponse(job=job)

    async def ListDetectors(self, request: cleaning_pb2.ListDetectorsRequest, context: Any) -> cleaning_pb2.ListDetectorsResponse:
        """The detectors in the order they are asked."""
        default = self._labellers.min_flip_confidence
        options = options_from_proto(cleaning_pb2.CleaningOptions(), min_flip_confidence=default)
        return cleaning_pb2.ListDetectorsResponse(detectors=detectors_to_proto(min_flip_confidence=default), policy_id=policy_id(options))

    def _label_all(
        self, options: cleaning_pb2.CleaningOptions, pairs: Sequence[common_pb2.PreferencePair]
    ) -> list[cleaning_pb2.LabelResult]:
        labeller = self._labellers.labeller(options)
        return [_label(labeller, pair, f"pairs[{index}]") for index, pair in enumerate(pairs)]

    def _submit(self, kind: str, spec: dict[str, Any], job_id: str) -> Any:
        return self._jobs.submit(kind, checked_spec(kind, spec, self._labellers), job_id)

    async def _in_thread(self, function: Any, *args: Any) -> Any:
        return await asyncio.get_running_loop().run_in_executor(self._thread, function, *args)


def cleaning_door(servicer: CleaningServicer) -> Door:
    """The door of the service."""
    return Door(
        add=cleaning_pb2_grpc.add_CleaningServiceServicer_to_server, servicer=servicer, service_name="assay.cleaning.v1.CleaningService"
    )


def _label(labeller: Labeller, message: common_pb2.PreferencePair, field: str) -> cleaning_pb2.LabelResult:
    try:
        verdict = labeller.label(pair_from_proto(message))
    except PairError as error:
        return cleaning_pb2.LabelResult(error=item_error(InvalidArgument(error.field, error.message), field))
    except AssayError as error:
        return cleaning_pb2.LabelResult(error=item_error(error, field))
    count(verdict, "grpc")
    return cleaning_pb2.LabelResult(labelled=verdict_to_proto(verdict))
