"""Training as durable jobs, one kind an algorithm, each run in a process of its own."""

from __future__ import annotations

import hashlib
import heapq
import shutil
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import Any

from assay_kit.errors import FailedPrecondition
from assay_kit.jobs import JobContext, Jobs
from assay_training.checks import checked, parsed
from assay_training.child import ChildFailed, supervise
from assay_training.gate import Lookup, Verdict, judge
from assay_training.lineage import finished, read_lineage, remove_partial
from assay_training.metrics import GATE_OVERRIDES, JOBS, RESTARTS, STEPS, run_series
from assay_training.registry import ALGORITHMS
from assay_training.runs import TrainingError
from assay_training.settings import TrainingSettings
from assay_training.spec import RunSpec, TrainingRequest

_LOOK_UP_SECONDS = 0.25


class TrainingJobs:
    """The kinds of work of the training service."""

    def __init__(self, *, jobs: Jobs, settings: TrainingSettings, look_up: Lookup) -> None:
        """Declares a kind for each algorithm.

        Args:
            jobs: not launched yet.
            settings: the settings in force.
            look_up: finds a reward model for the gate.
        """
        self._settings = settings
        self._look_up = look_up
        self._room = threading.BoundedSemaphore(settings.training_concurrency)
        self._free_slots = list(range(settings.training_concurrency))
        """A heap, so that the metrics of few runs are always those of the first slots; changed under the lock."""
        self._slots = threading.Lock()
        for name in ALGORITHMS:
            jobs.kind(name, self.run, concurrency=settings.training_concurrency)
            RESTARTS.labels(name)  # shown as 0, so that the first one is an increase to Prometheus

    def run(self, context: JobContext, spec: dict[str, Any]) -> dict[str, Any]:
        """Checks, asks the gate, trains; the result is what a caller needs of the lineage."""
        request = parsed({**spec, "job_id": context.job_id})
        context.step("check", self._check, request)
        verdict = None
        if request.gate is not None:
            verdict = Verdict(**context.step("gate", self._gate, request))
        run_spec = self._run_spec(context.job_id, request, verdict)
        try:
            result = context.step("train", self._train, context, run_spec)
        except Exception:
            # Failed or cancelled. An interruption is no Exception: what is done is kept for the restart.
            remove_partial(run_spec)
            shutil.rmtree(run_spec.work_dir, ignore_errors=True)
            raise
        shutil.rmtree(run_spec.work_dir, ignore_errors=True)
        return result

    def _check(self, request: TrainingRequest) -> None:
        checked(request)

    def _gate(self, request: TrainingRequest) -> dict[str, Any]:
        assert request.gate is not None
        verdict = judge(request.gate, self._look_up)
        if not verdict.passed:
            GATE_OVERRIDES.inc()
        return asdict(verdict)

    def _run_spec(self, job_id: str, request: TrainingRequest, verdict: Verdict | None) -> RunSpec:
        folder = hashlib.sha256(job_id.encode()).hexdigest()[:24]
        run_spec = RunSpec(
            request=request,
            work_dir=self._settings.data_dir.absolute() / "runs" / folder,
            reward_target=self._settings.reward_target,
            tls_dir=self._settings.tls_dir and self._settings.tls_dir.absolute(),
            reward_patience_s=self._settings.training_reward_patience_seconds,
        )
        if verdict is None:
            return run_spec
        return run_spec.model_copy(
            update={
                "reward_fingerprint": verdict.fingerprint,
                "reward_mean": verdict.mean,
                "reward_std": verdict.std,
                "gate_verdict": verdict.as_proto_json(),
            }
        )

    def _train(self, context: JobContext, spec: RunSpec) -> dict[str, Any]:
        request = spec.request
        spec.work_dir.mkdir(parents=True, exist_ok=True)
        file = spec.work_dir / "spec.json"
        file.write_text(spec.model_dump_json(indent=2))
        taken = 0

        def on_line(line: Mapping[str, Any]) -> None:
            nonlocal taken
            done = int(line["done"])
            series.told(line["stage"], done, int(line["total"]), line["metrics"])
            if line["stage"] == "train" and done > taken:
                STEPS.labels(request.algorithm).inc(done - taken)
                taken = done
            elif line["stage"] == "resume":
                taken = done
            context.progress(line["stage"], done, int(line["total"]), unit=line["unit"], message=line["message"], metrics=line["metrics"])

        def on_restart(why: str) -> None:
            RESTARTS.labels(request.algorithm).inc()
            context.progress("restart", message=f"{why}; it goes on from its newest checkpoint")

        with self._in_turn(context) as slot, run_series(request.algorithm, slot) as series:
            try:
                supervise(
                    file,
                    log=spec.work_dir / "stderr.log",
                    restarts=self._settings.training_restarts,
                    on_line=on_line,
                    on_restart=on_restart,
                    look_up=context.check_cancelled,
                )
            except ChildFailed as error:
                raise FailedPrecondition(str(error)) from error
        return _result(spec)

    @contextmanager
    def _in_turn(self, context: JobContext) -> Iterator[int]:
        """Waits for room, then holds it; gives the number of the place."""
        with JOBS.labels("waiting").track_inprogress():
            if not self._room.acquire(blocking=False):
                context.progress("waiting", message=f"{self._settings.training_concurrency} runs are at work; this one waits for room")
                while not self._room.acquire(timeout=_LOOK_UP_SECONDS):
                    context.check_cancelled()
        with self._slots:
            slot = heapq.heappop(self._free_slots)
        try:
            with JOBS.labels("training").track_inprogress():
                yield slot
        finally:
            with self._slots:
                heapq.heappush(self._free_slots, slot)
            self._room.release()


def _result(spec: RunSpec) -> dict[str, Any]:
    """What came out, from the lineage of the model that is there."""
    uri = spec.request.output_uri
    try:
        lineage = read_lineage(uri) if finished(spec) else None
    except TrainingError as error:
        raise FailedPrecondition(str(error)) from error
    if lineage is None:
        raise FailedPrecondition(f"output_uri: the run ended well, but {uri} is gone")
    return {
        "model_uri": uri,
        "lineage_uri": str(Path(uri) / "training.json") if "://" not in uri else f"{uri.rstrip('/')}/training.json",
        **{key: lineage[key] for key in ("fingerprint", "algorithm", "steps", "metrics", "gate", "data", "base")},
        **{key: lineage[key] for key in ("labels_flipped", "examples", "snapshots", "kl_to_start") if key in lineage},
    }
