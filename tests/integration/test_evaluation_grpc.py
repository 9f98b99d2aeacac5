import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import grpc
import pytest
import pytest_asyncio
from support.evaluation_service import Stubs, evaluation_service, violations

from assay.evaluation.v1 import evaluation_pb2
from assay.jobs.v1 import jobs_pb2

TINY = (Path(__file__).parents[1] / "support/studies/tiny.yaml").read_text()
SMALL = """
name: small
data: {{uri: {uri}}}
stages:
  clean: {{kind: clean, committee: false}}
  split: {{kind: split, labelled: clean, held_out_prompts: 2}}
"""


@pytest_asyncio.fixture
async def service(tmp_path: Path) -> AsyncIterator[Stubs]:
    async with evaluation_service(tmp_path / "evaluation", evaluation_patience_seconds=1) as stubs:
        yield stubs


async def test_a_study_is_checked_without_being_run(service: Stubs) -> None:
    checked = await service.evaluation.ValidateStudy(evaluation_pb2.ValidateStudyRequest(study_yaml=TINY))
    names = [stage.name for stage in checked.stages]
    assert checked.name == "tiny"
    assert names[-1] == "report"
    assert all(names.index(needed) < names.index(stage.name) for stage in checked.stages for needed in stage.needs)
    assert {stage.name: stage.kind for stage in checked.stages}["dpo_00"] == "dpo"


@pytest.mark.parametrize(
    ("old", "new", "field", "hint"),
    [
        ("judge: rm_00,", "jugde: rm_00,", "stages.annotated_00.jugde", "did you mean 'judge'?"),
        ("base: sft", "base: dpo_00", "stages.", "in a circle"),
        ("name: tiny", "name: [tiny", "study_yaml", "not YAML"),
    ],
)
async def test_a_misspelt_key_or_a_circle_is_invalid_and_names_the_path(
    service: Stubs, tmp_path: Path, old: str, new: str, field: str, hint: str
) -> None:
    wrong = TINY.replace(old, new, 1)
    assert wrong != TINY
    requests = [
        (service.evaluation.ValidateStudy, evaluation_pb2.ValidateStudyRequest(study_yaml=wrong)),
        (service.evaluation.CreateStudyJob, evaluation_pb2.CreateStudyJobRequest(study_yaml=wrong, output_uri=str(tmp_path / "out"))),
    ]
    for method, request in requests:
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await method(request)
        assert caught.value.code() == grpc.StatusCode.INVALID_ARGUMENT
        ((path, text),) = violations(caught.value).items()
        assert path.startswith(field)
        assert hint in text
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(("uri", "text"), [("", "missing"), ("relative/folder", "absolute"), ("file://host/x", "names no host")])
async def test_a_study_without_a_folder_to_write_to_is_refused(service: Stubs, uri: str, text: str) -> None:
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await service.evaluation.CreateStudyJob(evaluation_pb2.CreateStudyJobRequest(study_yaml=TINY, output_uri=uri))
    assert text in violations(caught.value)["output_uri"]


async def test_a_bad_row_of_the_data_fails_the_study_and_is_named(service: Stubs, tmp_path: Path) -> None:
    data = tmp_path / "pairs.jsonl"
    data.write_text('{"prompt": "Why?", "chosen": "Because.", "rejected": "No."}\n{"prompt": "Why?", "chosen": "Because."}\n')
    request = evaluation_pb2.CreateStudyJobRequest(study_yaml=SMALL.format(uri=data), output_uri=str(tmp_path / "out"), job_id="bad-row")
    await service.evaluation.CreateStudyJob(request)
    job = await service.ended("bad-row")
    assert job.state == jobs_pb2.JOB_STATE_FAILED
    assert "stage 'clean' failed" in job.error
    assert "data.uri" in job.error and "row 2" in job.error and "rejected" in job.error
    study = await service.evaluation.GetStudy(evaluation_pb2.GetStudyRequest(id="bad-row"))
    states = {stage.name: stage.state for stage in study.stages}
    assert states["clean"] == jobs_pb2.JOB_STATE_FAILED
    assert states["split"] in (jobs_pb2.JOB_STATE_FAILED, jobs_pb2.JOB_STATE_CANCELLED)
    assert not [path for path in tmp_path.rglob("*") if path.suffix in (".jsonl", ".json") and "out" in path.parts]


async def test_the_same_study_asked_for_twice_is_one_job(service: Stubs, tmp_path: Path) -> None:
    request = evaluation_pb2.CreateStudyJobRequest(study_yaml=SMALL.format(uri=tmp_path / "none.jsonl"), output_uri=str(tmp_path / "out"))
    first = await service.evaluation.CreateStudyJob(request)
    second = await service.evaluation.CreateStudyJob(request)
    assert first.job.id == second.job.id
    assert first.job.id.startswith("small-")
    assert "there is no such file" in (await service.ended(first.job.id)).error


async def test_a_study_can_be_cancelled_while_a_service_is_away(tmp_path: Path) -> None:
    data = tmp_path / "pairs.jsonl"
    data.write_text('{"prompt": "Why?", "chosen": "Because.", "rejected": "No."}\n' * 2)
    text = SMALL.format(uri=data).replace("committee: false", "committee: true")
    settings = {"cleaning_target": "127.0.0.1:1", "evaluation_patience_seconds": 300}
    async with evaluation_service(tmp_path / "evaluation", **settings) as service:
        await service.evaluation.CreateStudyJob(
            evaluation_pb2.CreateStudyJobRequest(study_yaml=text, output_uri=str(tmp_path / "out"), job_id="s")
        )
        while (await state_of(service, "s", "clean")) != jobs_pb2.JOB_STATE_RUNNING:
            await asyncio.sleep(0.1)
        await service.jobs.CancelJob(jobs_pb2.CancelJobRequest(id="s"))
        assert (await service.ended("s")).state == jobs_pb2.JOB_STATE_CANCELLED
        assert (await service.ended("s.clean")).state == jobs_pb2.JOB_STATE_CANCELLED


async def state_of(service: Stubs, study: str, stage: str) -> int:
    found = await service.evaluation.GetStudy(evaluation_pb2.GetStudyRequest(id=study))
    return next(one.state for one in found.stages if one.name == stage)


async def test_a_service_that_stays_away_fails_the_study_and_is_named(tmp_path: Path) -> None:
    data = tmp_path / "pairs.jsonl"
    data.write_text('{"prompt": "Why?", "chosen": "Because.", "rejected": "No."}\n')
    text = SMALL.format(uri=data).replace("committee: false", "committee: true")
    async with evaluation_service(tmp_path / "evaluation", evaluation_patience_seconds=1) as service:
        await service.evaluation.CreateStudyJob(
            evaluation_pb2.CreateStudyJobRequest(study_yaml=text, output_uri=str(tmp_path / "out"), job_id="s")
        )
        job = await service.ended("s")
        assert job.state == jobs_pb2.JOB_STATE_FAILED
        assert "ASSAY_CLEANING_TARGET" in job.error


@pytest.mark.parametrize(
    ("fields", "field", "text"),
    [
        ({"data_uri": "x"}, "reward_models", "1 to 64"),
        ({"reward_models": ["a", "a"], "data_uri": "x"}, "reward_models", "twice"),
        ({"reward_models": ["a", ""], "data_uri": "x"}, "reward_models[1]", "empty"),
        ({"reward_models": ["a"]}, "data_uri", "missing"),
    ],
)
async def test_a_benchmark_that_cannot_be_is_refused(service: Stubs, fields: dict, field: str, text: str) -> None:
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await service.evaluation.CreateBenchmarkJob(evaluation_pb2.CreateBenchmarkJobRequest(**fields))
    assert caught.value.code() == grpc.StatusCode.INVALID_ARGUMENT
    assert text in violations(caught.value)[field]


async def test_a_policy_evaluation_names_all_that_is_missing(service: Stubs) -> None:
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await service.evaluation.CreatePolicyEvaluationJob(evaluation_pb2.CreatePolicyEvaluationJobRequest())
    assert set(violations(caught.value)) == {"policies", "reference_policy", "gold_reward_model", "data_uri"}


async def test_a_benchmark_without_a_reward_service_fails_and_says_what_is_missing(service: Stubs, tmp_path: Path) -> None:
    data = tmp_path / "pairs.jsonl"
    data.write_text('{"prompt": "Why?", "chosen": "Because.", "rejected": "No."}\n')
    request = evaluation_pb2.CreateBenchmarkJobRequest(job_id="b", reward_models=["gold"], data_uri=str(data))
    await service.evaluation.CreateBenchmarkJob(request)
    job = await service.ended("b")
    assert job.state == jobs_pb2.JOB_STATE_FAILED
    assert "ASSAY_REWARD_TARGET" in job.error


async def test_what_is_not_there_is_not_found_or_named(service: Stubs) -> None:
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await service.evaluation.GetStudy(evaluation_pb2.GetStudyRequest(id="nothing"))
    assert caught.value.code() == grpc.StatusCode.NOT_FOUND
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await service.evaluation.GetQualityCard(evaluation_pb2.GetQualityCardRequest(fingerprint="ff"))
    assert caught.value.code() == grpc.StatusCode.NOT_FOUND
    assert "no model yet" in caught.value.details()
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await service.evaluation.ListQualityCards(evaluation_pb2.ListQualityCardsRequest(page_token="x"))
    assert "page_token" in violations(caught.value)
