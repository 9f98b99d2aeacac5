"""The gRPC door."""

from __future__ import annotations

import asyncio
from typing import Any

from google.protobuf import json_format

from assay.jobs.v1 import jobs_pb2
from assay.training.v1 import training_pb2, training_pb2_grpc
from assay_kit.errors import NotFound
from assay_kit.jobs import Jobs
from assay_kit.server import Door
from assay_training.checks import checked, job_spec, parsed
from assay_training.gate import Lookup, judge
from assay_training.registry import ALGORITHMS
from assay_training.spec import TrainingRequest


class TrainingServicer(training_pb2_grpc.TrainingServiceServicer):
    """assay.training.v1.TrainingService."""

    def __init__(self, *, jobs: Jobs, look_up: Lookup) -> None:
        """Takes the parts.

        Args:
            jobs: where the jobs go.
            look_up: finds a reward model for the gate.
        """
        self._jobs = jobs
        self._look_up = look_up

    async def CreateTrainingJob(
        self, request: training_pb2.CreateTrainingJobRequest, context: Any
    ) -> training_pb2.CreateTrainingJobResponse:
        """Accepts a job whose fields are right, whose data and models are there, and whose reward model passes the gate."""
        job = await asyncio.to_thread(self._accept, request)
        return training_pb2.CreateTrainingJobResponse(job=job)

    async def ListAlgorithms(self, request: training_pb2.ListAlgorithmsRequest, context: Any) -> training_pb2.ListAlgorithmsResponse:
        """The algorithms and their defaults."""
        algorithms = [
            training_pb2.Algorithm(
                name=algorithm.name,
                description=algorithm.description,
                defaults=training_pb2.OptimizerOptions(**algorithm.defaults.model_dump()),
            )
            for algorithm in ALGORITHMS.values()
        ]
        return training_pb2.ListAlgorithmsResponse(algorithms=algorithms)

    def _accept(self, message: training_pb2.CreateTrainingJobRequest) -> jobs_pb2.Job:
        request = parsed(json_format.MessageToDict(message, preserving_proto_field_name=True))
        if not self._is_there(request):
            checked(request)
            if request.gate is not None:
                judge(request.gate, self._look_up)
        return self._jobs.submit(request.algorithm, job_spec(request), request.job_id)

    def _is_there(self, request: TrainingRequest) -> bool:
        """Whether a job of this id was accepted before; what it named then may have changed since."""
        if not request.job_id:
            return False
        try:
            self._jobs.get(request.job_id)
        except NotFound:
            return False
        return True


def training_door(servicer: TrainingServicer) -> Door:
    """The door of the service."""
    return Door(
        add=training_pb2_grpc.add_TrainingServiceServicer_to_server, servicer=servicer, service_name="assay.training.v1.TrainingService"
    )
