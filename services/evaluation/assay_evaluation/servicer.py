"""The gRPC door of evaluation: translate, validate, delegate."""

from __future__ import annotations

import asyncio
from typing import Any

from assay.evaluation.v1 import evaluation_pb2, evaluation_pb2_grpc
from assay_evaluation.cards import CardStore
from assay_evaluation.measurements import BENCHMARK, POLICY_EVALUATION, benchmark_spec, policy_evaluation_spec
from assay_evaluation.studies import Studies, check_output_uri, planned_stage
from assay_evaluation.study import Plan, StudyError, parse_study
from assay_kit.errors import InvalidArgument, NotFound
from assay_kit.jobs import Jobs

_DEFAULT_PAGE, _LARGEST_PAGE = 100, 1000
_CARDS_SHOWN = 20


class EvaluationServicer(evaluation_pb2_grpc.EvaluationServiceServicer):
    """assay.evaluation.v1.EvaluationService."""

    def __init__(self, *, jobs: Jobs, studies: Studies, cards: CardStore) -> None:
        self._jobs = jobs
        self._studies = studies
        self._cards = cards

    async def CreateBenchmarkJob(
        self, request: evaluation_pb2.CreateBenchmarkJobRequest, context: Any
    ) -> evaluation_pb2.CreateBenchmarkJobResponse:
        """Starts a benchmark of reward models."""
        job = await asyncio.to_thread(self._jobs.submit, BENCHMARK, benchmark_spec(request), request.job_id)
        return evaluation_pb2.CreateBenchmarkJobResponse(job=job)

    async def CreatePolicyEvaluationJob(
        self, request: evaluation_pb2.CreatePolicyEvaluationJobRequest, context: Any
    ) -> evaluation_pb2.CreatePolicyEvaluationJobResponse:
        """Starts an evaluation of policies."""
        job = await asyncio.to_thread(self._jobs.submit, POLICY_EVALUATION, policy_evaluation_spec(request), request.job_id)
        return evaluation_pb2.CreatePolicyEvaluationJobResponse(job=job)

    async def CreateStudyJob(self, request: evaluation_pb2.CreateStudyJobRequest, context: Any) -> evaluation_pb2.CreateStudyJobResponse:
        """Starts a study."""
        plan = _plan(request.study_yaml)
        check_output_uri(request.output_uri)
        job = await asyncio.to_thread(self._studies.submit, plan=plan, output_uri=request.output_uri, job_id=request.job_id)
        return evaluation_pb2.CreateStudyJobResponse(job=job)

    async def ValidateStudy(self, request: evaluation_pb2.ValidateStudyRequest, context: Any) -> evaluation_pb2.ValidateStudyResponse:
        """Checks a study without running it."""
        plan = _plan(request.study_yaml)
        return evaluation_pb2.ValidateStudyResponse(name=plan.study.name, stages=[planned_stage(plan, name) for name in plan.order])

    async def GetStudy(self, request: evaluation_pb2.GetStudyRequest, context: Any) -> evaluation_pb2.GetStudyResponse:
        """The stages of a study and how far each is."""
        if not request.id:
            raise InvalidArgument("id", "must name the job of a study")
        job, stages = await asyncio.to_thread(self._studies.stages, request.id)
        return evaluation_pb2.GetStudyResponse(job=job, stages=stages)

    async def ListQualityCards(
        self, request: evaluation_pb2.ListQualityCardsRequest, context: Any
    ) -> evaluation_pb2.ListQualityCardsResponse:
        """A page of quality cards, newest first."""
        if request.page_size > _LARGEST_PAGE:
            raise InvalidArgument("page_size", f"at most {_LARGEST_PAGE}, not {request.page_size}")
        cards = self._cards.all()
        start = 0
        if request.page_token:
            after = next((index for index, card in enumerate(cards) if card.fingerprint == request.page_token), None)
            if after is None:
                raise InvalidArgument("page_token", "not a token of ListQualityCards; pass next_page_token of the page before")
            start = after + 1
        page = cards[start : start + (request.page_size or _DEFAULT_PAGE)]
        more = start + len(page) < len(cards)
        return evaluation_pb2.ListQualityCardsResponse(cards=page, next_page_token=page[-1].fingerprint if more else "")

    async def GetQualityCard(self, request: evaluation_pb2.GetQualityCardRequest, context: Any) -> evaluation_pb2.GetQualityCardResponse:
        """The quality card of a model."""
        if not request.fingerprint:
            raise InvalidArgument("fingerprint", "missing; the fingerprint of a model is wanted")
        card = self._cards.get(request.fingerprint)
        if card is None:
            known = ", ".join(f"{one.model} {one.fingerprint[:12]}" for one in self._cards.all()[:_CARDS_SHOWN])
            raise NotFound(f"no quality card for {request.fingerprint}; there are cards for {known or 'no model yet'}")
        return evaluation_pb2.GetQualityCardResponse(card=card)


def _plan(text: str) -> Plan:
    try:
        return parse_study(text)
    except StudyError as error:
        raise InvalidArgument.many(error.violations) from error
