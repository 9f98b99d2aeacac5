"""Client of the evaluation service."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from assay.common.v1 import common_pb2
from assay.evaluation.v1 import evaluation_pb2, evaluation_pb2_grpc
from assay.jobs.v1 import jobs_pb2
from assay_client.calls import Caller


class EvaluationClient:
    """Benchmarks reward models, judges policies, runs studies."""

    def __init__(self, caller: Caller) -> None:
        """Takes the channel of the service."""
        self._caller = caller

    @property
    def _stub(self) -> evaluation_pb2_grpc.EvaluationServiceStub:
        return self._caller.stub(evaluation_pb2_grpc.EvaluationServiceStub)

    def create_benchmark_job(
        self,
        reward_models: Sequence[str],
        data_uri: str,
        *,
        output_uri: str = "",
        publish_cards: bool = True,
        limit: int = 0,
        job_id: str = "",
    ) -> jobs_pb2.Job:
        """Measures reward models of the reward service on held-out pairs.

        Args:
            reward_models: their names; 1 to 64.
            data_uri: held-out preference pairs.
            output_uri: folder for benchmark.json and scores.jsonl; empty: under the service's own data.
            publish_cards: whether the models carry the result from now on.
            limit: at most this many pairs; 0 means all.
            job_id: asking twice with one id is asking once; empty: the service makes one.
        """
        request = evaluation_pb2.CreateBenchmarkJobRequest(
            job_id=job_id,
            reward_models=reward_models,
            data_uri=data_uri,
            output_uri=output_uri,
            publish_cards=publish_cards,
            limit=limit,
        )
        return self._caller.call(self._stub.CreateBenchmarkJob, request).job

    def create_policy_evaluation_job(
        self,
        policies: Sequence[str],
        data_uri: str,
        *,
        reference_policy: str,
        gold_reward_model: str,
        output_uri: str = "",
        limit: int = 0,
        max_new_tokens: int = 0,
        seed: int = 0,
        job_id: str = "",
    ) -> jobs_pb2.Job:
        """Judges policies of the policy service by a gold reward model.

        Args:
            policies: their names; 1 to 64.
            data_uri: preference pairs whose prompts are used.
            reference_policy: the policy they are compared with.
            gold_reward_model: name of the judge at the reward service.
            output_uri: folder for evaluation.json and samples.jsonl; empty: under the service's own data.
            limit: at most this many prompts; 0 means all.
            max_new_tokens: of an answer; 0 means 48.
            seed: of the samples.
            job_id: asking twice with one id is asking once; empty: the service makes one.
        """
        request = evaluation_pb2.CreatePolicyEvaluationJobRequest(
            job_id=job_id,
            policies=policies,
            reference_policy=reference_policy,
            gold_reward_model=gold_reward_model,
            data_uri=data_uri,
            output_uri=output_uri,
            limit=limit,
            max_new_tokens=max_new_tokens,
            seed=seed,
        )
        return self._caller.call(self._stub.CreatePolicyEvaluationJob, request).job

    def create_study_job(self, study_yaml: str, output_uri: str, *, job_id: str = "") -> jobs_pb2.Job:
        """Runs a study; empty job id: the study's name and the hash of its text."""
        request = evaluation_pb2.CreateStudyJobRequest(job_id=job_id, study_yaml=study_yaml, output_uri=output_uri)
        return self._caller.call(self._stub.CreateStudyJob, request).job

    def validate_study(self, study_yaml: str) -> evaluation_pb2.ValidateStudyResponse:
        """Checks a study without running it; INVALID_ARGUMENT says what is wrong."""
        return self._caller.call(self._stub.ValidateStudy, evaluation_pb2.ValidateStudyRequest(study_yaml=study_yaml))

    def get_study(self, job_id: str) -> evaluation_pb2.GetStudyResponse:
        """The stages of a study and how far each is."""
        return self._caller.call(self._stub.GetStudy, evaluation_pb2.GetStudyRequest(id=job_id))

    def list_quality_cards(self, *, page_size: int = 100) -> Iterator[common_pb2.QualityCard]:
        """All quality cards, newest first, read page by page."""
        token = ""
        while True:
            request = evaluation_pb2.ListQualityCardsRequest(page_size=page_size, page_token=token)
            page = self._caller.call(self._stub.ListQualityCards, request)
            yield from page.cards
            token = page.next_page_token
            if not token:
                return

    def get_quality_card(self, fingerprint: str) -> common_pb2.QualityCard:
        """The quality card of a model."""
        return self._caller.call(self._stub.GetQualityCard, evaluation_pb2.GetQualityCardRequest(fingerprint=fingerprint)).card
