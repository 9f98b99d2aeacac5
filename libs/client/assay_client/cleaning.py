"""Client of the cleaning service."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence

from assay.cleaning.v1 import cleaning_pb2, cleaning_pb2_grpc
from assay.common.v1 import common_pb2
from assay.jobs.v1 import jobs_pb2
from assay_client.calls import Caller
from assay_client.messages import pair
from assay_data.conversations import PreferencePair

Pair = PreferencePair | common_pb2.PreferencePair


class CleaningClient:
    """Labels preference pairs and cleans datasets."""

    def __init__(self, caller: Caller) -> None:
        """Takes the channel of the service."""
        self._caller = caller

    @property
    def _stub(self) -> cleaning_pb2_grpc.CleaningServiceStub:
        return self._caller.stub(cleaning_pb2_grpc.CleaningServiceStub)

    def label_pairs(self, pairs: Sequence[Pair], *, options: cleaning_pb2.CleaningOptions | None = None) -> list[cleaning_pb2.LabelResult]:
        """Labels 1 to 1,000 pairs; a result is `labelled` or `error`."""
        request = cleaning_pb2.LabelPairsRequest(pairs=[pair(one) for one in pairs], options=options)
        return list(self._caller.call(self._stub.LabelPairs, request).results)

    def label_stream(
        self, pairs: Iterable[Pair], *, options: cleaning_pb2.CleaningOptions | None = None
    ) -> Iterator[cleaning_pb2.LabelResult]:
        """Labels any number of pairs, in order, while they come."""
        requests = (
            cleaning_pb2.LabelStreamRequest(pair=pair(one), options=options if index == 0 else None) for index, one in enumerate(pairs)
        )
        for answer in self._caller.stream(self._stub.LabelStream, requests):
            yield answer.result

    def create_cleaning_job(
        self,
        input_uri: str,
        output_uri: str,
        *,
        options: cleaning_pb2.CleaningOptions | None = None,
        limit: int = 0,
        job_id: str = "",
    ) -> jobs_pb2.Job:
        """Cleans a whole dataset.

        Args:
            input_uri: file, folder or hub id with preference pairs.
            output_uri: folder for kept.jsonl, flipped.jsonl, dropped.jsonl, labelled.jsonl and summary.json.
            options: rules and the committee.
            limit: at most this many pairs; 0 means all.
            job_id: asking twice with one id is asking once; empty: the service makes one.
        """
        request = cleaning_pb2.CreateCleaningJobRequest(
            job_id=job_id, input_uri=input_uri, output_uri=output_uri, options=options, limit=limit
        )
        return self._caller.call(self._stub.CreateCleaningJob, request).job

    def create_committee_job(self, input_uri: str, output_uri: str, *, seed: int = 0, limit: int = 0, job_id: str = "") -> jobs_pb2.Job:
        """Fits a committee that can tell which pairs are the wrong way round."""
        request = cleaning_pb2.CreateCommitteeJobRequest(job_id=job_id, input_uri=input_uri, output_uri=output_uri, seed=seed, limit=limit)
        return self._caller.call(self._stub.CreateCommitteeJob, request).job

    def list_detectors(self) -> cleaning_pb2.ListDetectorsResponse:
        """The noise detectors, and the hash of names, versions and thresholds."""
        return self._caller.call(self._stub.ListDetectors, cleaning_pb2.ListDetectorsRequest())
