"""Client of the training service."""

from __future__ import annotations

from assay.jobs.v1 import jobs_pb2
from assay.training.v1 import training_pb2, training_pb2_grpc
from assay_client.calls import Caller

Spec = training_pb2.SftSpec | training_pb2.RewardModelSpec | training_pb2.DpoSpec | training_pb2.PpoSpec


class TrainingClient:
    """Trains models as jobs."""

    def __init__(self, caller: Caller) -> None:
        """Takes the channel of the service."""
        self._caller = caller

    @property
    def _stub(self) -> training_pb2_grpc.TrainingServiceStub:
        return self._caller.stub(training_pb2_grpc.TrainingServiceStub)

    def create_training_job(
        self,
        spec: Spec,
        output_uri: str,
        *,
        optimizer: training_pb2.OptimizerOptions | None = None,
        seed: int = 0,
        threads: int = 0,
        limit: int = 0,
        job_id: str = "",
    ) -> jobs_pb2.Job:
        """Starts a training job.

        Args:
            spec: what to train.
            output_uri: folder the model is written to.
            optimizer: how to optimise; None: the algorithm's defaults.
            seed: of all that is random.
            threads: of the process; 0 means 1.
            limit: at most this many rows of the data; 0 means all.
            job_id: asking twice with one id is asking once; empty: the service makes one.

        Raises:
            AssayClientError: FAILED_PRECONDITION where the reward model fails the gate.
        """
        request = training_pb2.CreateTrainingJobRequest(
            job_id=job_id, optimizer=optimizer, output_uri=output_uri, seed=seed, threads=threads, limit=limit
        )
        match spec:
            case training_pb2.SftSpec():
                request.sft.CopyFrom(spec)
            case training_pb2.RewardModelSpec():
                request.reward_model.CopyFrom(spec)
            case training_pb2.DpoSpec():
                request.dpo.CopyFrom(spec)
            case training_pb2.PpoSpec():
                request.ppo.CopyFrom(spec)
        return self._caller.call(self._stub.CreateTrainingJob, request).job

    def list_algorithms(self) -> list[training_pb2.Algorithm]:
        """The algorithms there are, with their defaults."""
        return list(self._caller.call(self._stub.ListAlgorithms, training_pb2.ListAlgorithmsRequest()).algorithms)
