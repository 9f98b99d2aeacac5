"""The examples of the client's README run."""

from __future__ import annotations

import ast
import re
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from support.service_thread import served
from support.word_reward import WordReward, reward_door

from assay.cleaning.v1 import cleaning_pb2, cleaning_pb2_grpc
from assay.jobs.v1 import jobs_pb2, jobs_pb2_grpc
from assay_client.trl import RemoteReward
from assay_kit.server import Door

README = Path(__file__).parents[3] / "libs" / "client" / "README.md"
SCORING, ASYNC, WATCHING, TRL, DATASETS = re.findall(r"```python\n(.*?)```", README.read_text(), re.DOTALL)


class Cleaner(cleaning_pb2_grpc.CleaningServiceServicer, jobs_pb2_grpc.JobServiceServicer):
    """Takes a cleaning job and has done it."""

    async def CreateCleaningJob(
        self, request: cleaning_pb2.CreateCleaningJobRequest, context: Any
    ) -> cleaning_pb2.CreateCleaningJobResponse:
        return cleaning_pb2.CreateCleaningJobResponse(job=jobs_pb2.Job(id=request.job_id))

    async def WatchJob(self, request: jobs_pb2.WatchJobRequest, context: Any) -> AsyncIterator[jobs_pb2.WatchJobResponse]:
        progress = jobs_pb2.JobProgress(stage="clean", done=3, total=9)
        yield jobs_pb2.WatchJobResponse(event=jobs_pb2.JobEvent(job_id=request.id, progress=progress))
        job = jobs_pb2.Job(id=request.id, state=jobs_pb2.JOB_STATE_SUCCEEDED)
        job.result.update({"rows_in": 9})
        yield jobs_pb2.WatchJobResponse(job=job)


def test_scoring(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    with served([reward_door(WordReward())], tmp_path) as target:
        monkeypatch.setenv("ASSAY_REWARD_TARGET", target)
        exec(compile(SCORING, str(README), "exec"), {})
    assert capsys.readouterr().out == "0.0\n0.0\nbest: 0 by words ffffffffffff\n"


def test_scoring_from_coroutines(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    with served([reward_door(WordReward())], tmp_path) as target:
        monkeypatch.setenv("ASSAY_REWARD_TARGET", target)
        exec(compile(ASYNC, str(README), "exec"), {})
    assert capsys.readouterr().out == "[0, 0, 0, 0]\n"


def test_scoring_a_data_set(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    pytest.importorskip("datasets")
    with served([reward_door(WordReward())], tmp_path) as target:
        monkeypatch.setenv("ASSAY_REWARD_TARGET", target)
        exec(compile(DATASETS, str(README), "exec"), {})
    columns = ["prompt", "chosen", "rejected", "chosen_reward", "rejected_reward", "margin", "reward_error"]
    assert capsys.readouterr().out.endswith(f"{columns} 3\n")


def test_watching(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    cleaner = Cleaner()
    doors = [
        Door(
            add=cleaning_pb2_grpc.add_CleaningServiceServicer_to_server,
            servicer=cleaner,
            service_name="assay.cleaning.v1.CleaningService",
        ),
        Door(add=jobs_pb2_grpc.add_JobServiceServicer_to_server, servicer=cleaner, service_name="assay.jobs.v1.JobService"),
    ]
    with served(doors, tmp_path) as target:
        monkeypatch.setenv("ASSAY_CLEANING_TARGET", target)
        exec(compile(WATCHING, str(README), "exec"), {})
    assert capsys.readouterr().out == "clean 3 9\n{'rows_in': 9}\n"


def test_the_example_for_trl_makes_the_reward_as_it_says() -> None:
    calls = [node for node in ast.walk(ast.parse(TRL)) if isinstance(node, ast.Call)]
    made = next(call for call in calls if isinstance(call.func, ast.Name) and call.func.id == "RemoteReward")
    reward = eval(compile(ast.Expression(made), str(README), "eval"), {"RemoteReward": RemoteReward})
    assert reward.__name__ == "remote_reward"
