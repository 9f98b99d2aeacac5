"""Runs studies: the study is a job, each stage a child job that waits for the stages it needs.

Everything that must be the same after a restart is either in the jobs' own database (which stages there are, what each gave back) or in
files of the study's folder that appear whole or not at all. A stage that was killed in the middle is done again and finds those files.
"""

from __future__ import annotations

import functools
import time
import uuid
from collections.abc import Mapping
from typing import Any

from assay.evaluation.v1 import evaluation_pb2
from assay.jobs.v1 import jobs_pb2
from assay_data.errors import DataError
from assay_data.storage import is_local, join_uri, path_of
from assay_evaluation.metrics import STAGE_SECONDS, STAGES
from assay_evaluation.stages import RUNS
from assay_evaluation.stages.context import StageContext
from assay_evaluation.study import Plan, parse_study
from assay_evaluation.work import Tools, Work
from assay_kit.errors import FailedPrecondition, InvalidArgument
from assay_kit.jobs import JobContext, Jobs

STUDY, STAGE = "study", "stage"
_STAGES_A_PAGE = 100


class Studies:
    """The studies of this service."""

    def __init__(self, *, jobs: Jobs, tools: Tools, stages_at_once: int) -> None:
        """Declares the kinds of job; before `jobs.launch`."""
        self._jobs = jobs
        self._tools = tools
        for kind in RUNS:  # shown as 0, so that the first stage of a kind is an increase to Prometheus
            STAGE_SECONDS.labels(kind)
            for outcome in ("succeeded", "failed"):
                STAGES.labels(kind, outcome)
        jobs.kind(STUDY, self._run_study, concurrency=8)
        jobs.kind(STAGE, self._run_stage, concurrency=stages_at_once)

    def submit(self, *, plan: Plan, output_uri: str, job_id: str) -> jobs_pb2.Job:
        """Starts a study; with an id that is there already, that study."""
        job_id = job_id or f"{plan.study.name}-{plan.sha256[:10]}"
        return self._jobs.submit(STUDY, {"study_yaml": plan.text, "output_uri": output_uri}, job_id)

    def stages(self, study_id: str) -> tuple[jobs_pb2.Job, list[evaluation_pb2.StudyStage]]:
        """The job of a study and its stages, in an order they can run in.

        Raises:
            NotFound: There is no such job.
            InvalidArgument: The job is no study.
        """
        job = self._jobs.get(study_id)
        if job.kind != STUDY:
            raise InvalidArgument("id", f"{study_id} is a job of kind {job.kind}, not a study")
        plan = parsed(str(job.spec["study_yaml"]))
        jobs = self._stage_jobs({stage_id(study_id, name) for name in plan.order})
        return job, [self._stage(plan, name, jobs.get(stage_id(study_id, name))) for name in plan.order]

    def _stage_jobs(self, wanted: set[str]) -> dict[str, jobs_pb2.Job]:
        """The jobs of stages in a few questions to the database, for callers that look again and again."""
        found: dict[str, jobs_pb2.Job] = {}
        token = ""
        while len(found) < len(wanted):
            jobs, token = self._jobs.list(kind=STAGE, page_size=_STAGES_A_PAGE, page_token=token)
            found.update((job.id, job) for job in jobs if job.id in wanted)
            if not token:
                break
        return found

    def _stage(self, plan: Plan, name: str, job: jobs_pb2.Job | None) -> evaluation_pb2.StudyStage:
        stage = planned_stage(plan, name)
        if job is None:
            stage.state = jobs_pb2.JOB_STATE_QUEUED
            return stage
        # A stage whose job waits for other stages is at work only once it has said how far it is.
        waiting = job.state == jobs_pb2.JOB_STATE_RUNNING and not job.progress.stage
        stage.state = jobs_pb2.JOB_STATE_QUEUED if waiting else job.state
        stage.progress.CopyFrom(job.progress)
        if job.state == jobs_pb2.JOB_STATE_SUCCEEDED:
            stage.seconds = float(str(job.result["seconds"]))
        return stage

    def _run_study(self, context: JobContext, spec: dict[str, Any]) -> dict[str, Any]:
        plan = parsed(spec["study_yaml"])
        # A token of its own keeps this run apart from an earlier one with the same id on the same broker or in the same folder.
        run_id = context.step("run id", lambda: f"{context.job_id}-{uuid.uuid4().hex[:8]}")
        for name in plan.order:
            context.start(STAGE, {"study_id": context.job_id, "stage": name, "run_id": run_id, **spec}, stage_id(context.job_id, name))
        results: dict[str, Any] = {}
        # From the last: a stage whose need has failed fails at once, so the study hears of it without waiting for what goes well.
        for name in reversed(plan.order):
            try:
                results[name] = context.wait(stage_id(context.job_id, name))
            except FailedPrecondition as error:
                self._stop(context.job_id, plan)
                raise self._root_of(context.job_id, plan) or error from error
            context.progress(name, len(results), len(plan.order), unit="stages")
        reports = [results[name]["figures"] for name in plan.order if plan.study.stages[name].kind == "report"]
        return {
            "stages": len(plan.order),
            "report_html_uri": reports[-1]["report_html_uri"] if reports else "",
            "report_json_uri": reports[-1]["report_json_uri"] if reports else "",
            "artifacts": {name: results[name]["artifacts"] for name in plan.order},
        }

    def _run_stage(self, context: JobContext, spec: dict[str, Any]) -> dict[str, Any]:
        plan = parsed(spec["study_yaml"])
        name, study_id = spec["stage"], spec["study_id"]
        kind = plan.study.stages[name].kind
        results: dict[str, Mapping[str, Any]] = {}
        for needed in upstream(plan, name):
            results[needed] = context.wait(stage_id(study_id, needed))
        stage_context = self._context(context, plan, spec, results)
        context.progress(name)

        def run() -> dict[str, Any]:
            began = time.monotonic()
            result = RUNS[kind](stage_context, plan.study.stages[name])
            seconds = time.monotonic() - began
            STAGE_SECONDS.labels(kind).observe(seconds)
            return {**result, "seconds": round(seconds, 3)}

        try:
            result = context.step(name, run)
        except Exception:
            STAGES.labels(kind, "failed").inc()
            raise
        STAGES.labels(kind, "succeeded").inc()
        return result

    def _context(self, context: JobContext, plan: Plan, spec: Mapping[str, Any], results: Mapping[str, Mapping[str, Any]]) -> StageContext:
        name, output_uri = spec["stage"], spec["output_uri"]
        # A folder of its own for each run: an earlier one's models are never taken for this one's.
        folder = join_uri(output_uri, "runs", spec["run_id"])
        work = Work(
            name=name,
            run_id=spec["run_id"],
            folder=join_uri(folder, name),
            memo=join_uri(folder, name, ".work"),
            shared=join_uri(folder, ".shared"),
            tools=self._tools,
            reporter=context,
        )
        return StageContext(plan=plan, study_id=spec["study_id"], output_uri=output_uri, results=results, work=work)

    def _stop(self, study_id: str, plan: Plan) -> None:
        for name in plan.order:
            self._jobs.cancel(stage_id(study_id, name))

    def _root_of(self, study_id: str, plan: Plan) -> FailedPrecondition | None:
        for name in plan.order:
            job = self._jobs.get(stage_id(study_id, name))
            if job.state == jobs_pb2.JOB_STATE_FAILED:
                return FailedPrecondition(f"stage {name!r} failed: {job.error}")
        return None


@functools.lru_cache(maxsize=32)
def parsed(text: str) -> Plan:
    """The plan of a study's text, which was checked when the study was asked for."""
    return parse_study(text)


def stage_id(study_id: str, name: str) -> str:
    """Job id of a stage."""
    return f"{study_id}.{name}"


def check_output_uri(uri: str) -> None:
    """Checks the folder of a study's outputs.

    Raises:
        InvalidArgument: It is missing, relative, or a file.
    """
    if not uri:
        raise InvalidArgument("output_uri", "missing; a folder for the report and what the stages make is wanted")
    if is_local(uri):
        try:
            path = path_of(uri)
        except DataError as error:
            raise InvalidArgument("output_uri", str(error)) from error
        if not path.is_absolute():
            raise InvalidArgument("output_uri", f"{uri!r} is relative to nothing the caller knows; an absolute path or a URI is wanted")
        if path.exists() and not path.is_dir():
            raise InvalidArgument("output_uri", f"{uri} is a file; a folder is wanted")


def upstream(plan: Plan, name: str) -> list[str]:
    """All stages that a stage needs, and those that they need, in an order they can run in."""
    wanted: set[str] = set()
    left = [name]
    while left:
        for needed in plan.needs[left.pop()]:
            if needed not in wanted:
                wanted.add(needed)
                left.append(needed)
    return [stage for stage in plan.order if stage in wanted]


def planned_stage(plan: Plan, name: str) -> evaluation_pb2.StudyStage:
    """A stage as it is planned."""
    return evaluation_pb2.StudyStage(name=name, kind=plan.study.stages[name].kind, needs=plan.needs[name])
