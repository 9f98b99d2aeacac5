"""The training service over real gRPC: what it refuses, the gate, and jobs that are cancelled, killed and resumed."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import grpc
import psutil
import pytest
from google.rpc import error_details_pb2
from grpc_status import rpc_status
from prometheus_client import REGISTRY
from support.tiny_models import write_tiny_causal_lm, write_tiny_reward_model
from support.training_runs import SCRATCH, lineage_of, run_here, run_spec, weights_of
from support.training_service import Training, rewards, training_service

from assay.jobs.v1 import jobs_pb2
from assay.training.v1 import training_pb2
from assay_data.generated import generate_pairs
from assay_data.pairs import write_pairs
from assay_training.run import PROCESS_NAME
from assay_training.spec import TrainingRequest

BAG_OF_WORDS = training_pb2.REWARD_MODEL_KIND_BAG_OF_WORDS


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> str:
    file = tmp_path_factory.mktemp("data") / "pairs.jsonl"
    write_pairs(str(file), [pair for pair in generate_pairs(120, seed=1) if pair.chosen and pair.rejected and not pair.rejected_prompt])
    return str(file)


@pytest.fixture(scope="module")
def policy(tmp_path_factory: pytest.TempPathFactory) -> str:
    return str(write_tiny_causal_lm(tmp_path_factory.mktemp("policy") / "lm"))


def scratch() -> training_pb2.ScratchModel:
    return training_pb2.ScratchModel(**SCRATCH)


def violations(error: grpc.aio.AioRpcError) -> dict[str, str]:
    found: dict[str, str] = {}
    status = rpc_status.from_call(error)
    for detail in status.details if status else ():
        bad = error_details_pb2.BadRequest()
        if detail.Unpack(bad):
            found |= {violation.field: violation.description for violation in bad.field_violations}
    return found


def runs_left(data_dir: Path) -> list[str]:
    return [str(path.relative_to(data_dir)) for path in (data_dir / "runs").rglob("*")] if (data_dir / "runs").exists() else []


def run_processes() -> list[psutil.Process]:
    return [child for child in psutil.Process().children(recursive=True) if child.name() == PROCESS_NAME]


async def gone(process: psutil.Process) -> None:
    await asyncio.to_thread(process.wait, 30)


REFUSALS: dict[str, tuple[Callable[[str, str, str], dict[str, Any]], str, str]] = {
    "no spec": (lambda data, policy, out: {"output_uri": out}, "spec", "exactly one"),
    "no data": (
        lambda data, policy, out: {"sft": training_pb2.SftSpec(scratch=scratch()), "output_uri": out},
        "sft.data_uri",
        "at least 1",
    ),
    "data that is not there": (
        lambda data, policy, out: {"sft": training_pb2.SftSpec(scratch=scratch(), data_uri="/no/such.jsonl"), "output_uri": out},
        "sft.data_uri",
        "no such file",
    ),
    "data that is something else": (
        lambda data, policy, out: {"sft": training_pb2.SftSpec(scratch=scratch(), data_uri=__file__), "output_uri": out},
        "sft.data_uri",
        "test_training_service.py",
    ),
    "no base": (lambda data, policy, out: {"sft": training_pb2.SftSpec(data_uri=data), "output_uri": out}, "sft", "either"),
    "heads that do not divide the width": (
        lambda data, policy, out: {
            "sft": training_pb2.SftSpec(scratch=training_pb2.ScratchModel(**{**SCRATCH, "heads": 3}), data_uri=data),
            "output_uri": out,
        },
        "sft.scratch",
        "multiple",
    ),
    "a model that is not there": (
        lambda data, policy, out: {"dpo": training_pb2.DpoSpec(model_uri="/no/such/model", data_uri=data), "output_uri": out},
        "dpo.model_uri",
        "config.json",
    ),
    "a share above one": (
        lambda data, policy, out: {
            "reward_model": training_pb2.RewardModelSpec(kind=BAG_OF_WORDS, data_uri=data, label_flip_rate=1.5),
            "output_uri": out,
        },
        "reward_model.label_flip_rate",
        "less than or equal to 1",
    ),
    "a share that is no number": (
        lambda data, policy, out: {
            "reward_model": training_pb2.RewardModelSpec(kind=BAG_OF_WORDS, data_uri=data, label_flip_rate=float("nan")),
            "output_uri": out,
        },
        "reward_model.label_flip_rate",
        "finite",
    ),
    "a classifier without a base": (
        lambda data, policy, out: {"reward_model": training_pb2.RewardModelSpec(data_uri=data), "output_uri": out},
        "reward_model",
        "model_uri",
    ),
    "no output": (lambda data, policy, out: {"sft": training_pb2.SftSpec(scratch=scratch(), data_uri=data)}, "output_uri", "at least 1"),
    "an output that is there already": (
        lambda data, policy, out: {"sft": training_pb2.SftSpec(scratch=scratch(), data_uri=data), "output_uri": policy},
        "output_uri",
        "there already",
    ),
    "a relative output": (
        lambda data, policy, out: {"sft": training_pb2.SftSpec(scratch=scratch(), data_uri=data), "output_uri": "out"},
        "output_uri",
        "absolute",
    ),
    "a negative learning rate": (
        lambda data, policy, out: {
            "sft": training_pb2.SftSpec(scratch=scratch(), data_uri=data),
            "optimizer": training_pb2.OptimizerOptions(learning_rate=-1),
            "output_uri": out,
        },
        "optimizer.learning_rate",
        "greater than or equal to 0",
    ),
    "a gate without a model": (
        lambda data, policy, out: {"ppo": training_pb2.PpoSpec(model_uri=policy, data_uri=data), "output_uri": out},
        "ppo.gate",
        "required",
    ),
    "a rollout that does not divide": (
        lambda data, policy, out: {
            "ppo": training_pb2.PpoSpec(model_uri=policy, data_uri=data, gate=training_pb2.Gate(reward_model="rm"), rollout_size=6),
            "output_uri": out,
        },
        "ppo",
        "multiple of 4",
    ),
}


async def test_what_cannot_be_is_refused_with_the_field_and_what_would_be_right(data: str, policy: str, tmp_path: Path) -> None:
    async with training_service(tmp_path / "state") as service:
        for name, (fields, field, words) in REFUSALS.items():
            with pytest.raises(grpc.aio.AioRpcError) as refused:
                await service.create(**fields(data, policy, str(tmp_path / "out")))
            assert refused.value.code() is grpc.StatusCode.INVALID_ARGUMENT, name
            found = violations(refused.value)
            assert words in found.get(field, ""), (name, found)
        listed = await service.jobs.ListJobs(jobs_pb2.ListJobsRequest())
        assert not listed.jobs


async def test_the_algorithms_tell_their_defaults(tmp_path: Path) -> None:
    async with training_service(tmp_path / "state") as service:
        answer = await service.stub.ListAlgorithms(training_pb2.ListAlgorithmsRequest())
    assert [algorithm.name for algorithm in answer.algorithms] == ["sft", "reward_model", "dpo", "ppo"]
    assert all(algorithm.description and algorithm.defaults.learning_rate > 0 for algorithm in answer.algorithms)


async def test_a_job_leaves_a_model_and_asking_twice_is_asking_once(data: str, tmp_path: Path) -> None:
    out = tmp_path / "bow"
    fields = {
        "job_id": "bow",
        "reward_model": training_pb2.RewardModelSpec(kind=BAG_OF_WORDS, data_uri=data, label_flip_rate=0.25),
        "output_uri": str(out),
    }
    async with training_service(tmp_path / "state") as service:
        job = await service.create(**fields)
        assert job.kind == "reward_model" and job.spec["reward_model"]["data_uri"] == data
        events, job = await service.ended("bow")
        again = await service.create(**fields)
        with pytest.raises(grpc.aio.AioRpcError) as other:
            await service.create(**{**fields, "seed": 3})
    assert job.state == jobs_pb2.JOB_STATE_SUCCEEDED, job.error
    assert again.state == jobs_pb2.JOB_STATE_SUCCEEDED and again.id == "bow"
    assert other.value.code() is grpc.StatusCode.ALREADY_EXISTS
    assert job.result["model_uri"] == str(out) and job.result["fingerprint"] == lineage_of(out)["fingerprint"]
    assert job.result["labels_flipped"] == round(0.25 * job.result["examples"])
    assert any(event.progress.stage == "done" and event.progress.metrics["accuracy"] > 0 for event in events)
    assert not runs_left(tmp_path / "state")


async def test_a_row_that_is_wrong_fails_the_job_with_its_number_and_leaves_nothing(data: str, tmp_path: Path) -> None:
    broken = tmp_path / "broken.jsonl"
    broken.write_bytes(Path(data).read_bytes() + b'{"prompt": "?"}\n')
    rows = len(broken.read_text().splitlines())
    async with training_service(tmp_path / "state") as service:
        spec = training_pb2.RewardModelSpec(kind=BAG_OF_WORDS, data_uri=str(broken))
        await service.create(job_id="bad", reward_model=spec, output_uri=str(tmp_path / "out"))
        _, job = await service.ended("bad")
    assert job.state == jobs_pb2.JOB_STATE_FAILED
    assert "broken.jsonl" in job.error and str(rows) in job.error and "Traceback" not in job.error
    assert not (tmp_path / "out").exists() and not runs_left(tmp_path / "state") and not list(tmp_path.glob(".partial*"))


async def test_the_gate_holds_until_somebody_overrides_it_with_a_reason(data: str, policy: str, tmp_path: Path) -> None:
    def dpo(**gate: Any) -> training_pb2.DpoSpec:
        return training_pb2.DpoSpec(model_uri=policy, data_uri=data, gate=training_pb2.Gate(reward_model="rm", **gate))

    def fields(name: str) -> dict[str, Any]:
        optimizer = training_pb2.OptimizerOptions(max_steps=1, batch_size=4)
        return {"job_id": name, "output_uri": str(tmp_path / name), "optimizer": optimizer}

    async with rewards(tmp_path / "reward") as reward, training_service(tmp_path / "state", reward_target=reward.target) as service:

        async def refusal(spec: training_pb2.DpoSpec) -> grpc.aio.AioRpcError:
            with pytest.raises(grpc.aio.AioRpcError) as refused:
                await service.create(dpo=spec, **fields("refused"))
            return refused.value

        unknown = await refusal(dpo())
        assert unknown.code() is grpc.StatusCode.NOT_FOUND
        model = await reward.load("rm", write_tiny_reward_model(tmp_path / "rm"))
        fingerprint = model.provenance.fingerprint

        unmeasured = await refusal(dpo())
        assert unmeasured.code() is grpc.StatusCode.FAILED_PRECONDITION
        assert "no quality card" in str(unmeasured.details()) and "override_reason" in str(unmeasured.details())

        reward.give_card(fingerprint, low=0.55)
        weak = await refusal(dpo(min_accuracy_low=0.6))
        assert weak.code() is grpc.StatusCode.FAILED_PRECONDITION
        assert "0.550" in str(weak.details()) and "0.6" in str(weak.details())

        before = REGISTRY.get_sample_value("assay_training_gate_overrides_total") or 0.0
        await service.create(dpo=dpo(min_accuracy_low=0.6, override_reason="to see what happens"), **fields("overridden"))
        _, job = await service.ended("overridden")
        assert job.state == jobs_pb2.JOB_STATE_SUCCEEDED, job.error
        assert REGISTRY.get_sample_value("assay_training_gate_overrides_total") == before + 1
        verdict = json.loads(json.dumps(lineage_of(tmp_path / "overridden")["gate"]))
        assert verdict["override_reason"] == "to see what happens" and not verdict["passed"]
        assert verdict["fingerprint"] == fingerprint and verdict["accuracy"]["low"] == pytest.approx(0.55)
        assert job.result["gate"]["override_reason"] == "to see what happens"

        accepted = await service.create(dpo=dpo(), **fields("passed"))
        assert accepted.state in (jobs_pb2.JOB_STATE_QUEUED, jobs_pb2.JOB_STATE_RUNNING)
        await service.jobs.CancelJob(jobs_pb2.CancelJobRequest(id="passed"))


async def test_a_ppo_without_a_reward_service_is_refused_at_once(data: str, policy: str, tmp_path: Path) -> None:
    spec = training_pb2.PpoSpec(model_uri=policy, data_uri=data, gate=training_pb2.Gate(reward_model="rm", override_reason="why not"))
    for target, code in (("", grpc.StatusCode.FAILED_PRECONDITION), ("127.0.0.1:1", grpc.StatusCode.UNAVAILABLE)):
        async with training_service(tmp_path / f"state{code.name}", reward_target=target) as service:
            with pytest.raises(grpc.aio.AioRpcError) as refused:
                await service.create(ppo=spec, output_uri=str(tmp_path / "out"))
        assert refused.value.code() is code
        assert "reward" in str(refused.value.details())


async def training_until(service: Training, job_id: str, steps: int) -> None:
    """Follows a job until it has taken so many steps."""
    async for answer in service.follow(job_id):
        progress = answer.event.progress
        assert not answer.HasField("job"), answer.job.error
        if progress.stage == "train" and progress.done >= steps:
            return


async def test_a_cancelled_job_leaves_neither_files_nor_a_process(data: str, tmp_path: Path) -> None:
    async with training_service(tmp_path / "state") as service:
        optimizer = training_pb2.OptimizerOptions(max_steps=100_000, checkpoint_steps=5)
        spec = training_pb2.SftSpec(scratch=scratch(), data_uri=data)
        await service.create(job_id="long", sft=spec, optimizer=optimizer, output_uri=str(tmp_path / "out"))
        await training_until(service, "long", 6)
        (process,) = run_processes()
        await service.jobs.CancelJob(jobs_pb2.CancelJobRequest(id="long"))
        _, job = await service.ended("long")
        await gone(process)
    assert job.state == jobs_pb2.JOB_STATE_CANCELLED
    assert not (tmp_path / "out").exists() and not runs_left(tmp_path / "state") and not list(tmp_path.glob(".partial*"))


SFT_STEPS = {"max_steps": 60, "checkpoint_steps": 10}


@pytest.fixture(scope="module")
def left_alone(tmp_path_factory: pytest.TempPathFactory, data: str) -> bytes:
    """Weights of a run that nobody interrupted."""
    folder = tmp_path_factory.mktemp("left-alone")
    run_here(run_spec(folder, "sft", sft={"scratch": SCRATCH, "data_uri": data}, optimizer=SFT_STEPS))
    return weights_of(folder / "sft")


def interrupted_job(data: str, out: Path) -> dict[str, Any]:
    return {
        "job_id": "sft",
        "sft": training_pb2.SftSpec(scratch=scratch(), data_uri=data),
        "optimizer": training_pb2.OptimizerOptions(**SFT_STEPS),
        "output_uri": str(out),
        "seed": 7,
    }


async def test_a_run_whose_process_is_killed_goes_on_from_its_checkpoint(data: str, left_alone: bytes, tmp_path: Path) -> None:
    async with training_service(tmp_path / "state") as service:
        await service.create(**interrupted_job(data, tmp_path / "out"))
        await training_until(service, "sft", 12)
        run_processes()[0].kill()
        events, job = await service.ended("sft")
    assert job.state == jobs_pb2.JOB_STATE_SUCCEEDED, job.error
    stages = [event.progress.stage for event in events]
    assert "restart" in stages and "resume" in stages
    assert weights_of(tmp_path / "out") == left_alone


async def test_a_service_that_is_killed_takes_its_run_along_and_both_go_on_after_the_restart(
    data: str, left_alone: bytes, tmp_path: Path
) -> None:
    state = tmp_path / "state"
    environment = {**os.environ, "ASSAY_DATA_DIR": str(state), "ASSAY_DRAIN_SECONDS": "2"}

    async def started() -> tuple[asyncio.subprocess.Process, grpc.aio.Channel]:
        endpoint = state / "endpoint.json"
        endpoint.unlink(missing_ok=True)
        process = await asyncio.create_subprocess_exec(
            sys.executable, "-m", "assay_training", env=environment, stderr=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.PIPE
        )
        async with asyncio.timeout(120):
            while not endpoint.exists():
                assert process.returncode is None, (await process.communicate())[1]
                await asyncio.sleep(0.1)
        return process, grpc.aio.insecure_channel(json.loads(endpoint.read_text())["grpc"])

    process, channel = await started()
    try:
        service = Training(channel)
        await service.create(**interrupted_job(data, tmp_path / "out"))
        await training_until(service, "sft", 12)
        (run,) = run_processes()
        process.send_signal(signal.SIGKILL)
        await process.communicate()
        await gone(run)
        await channel.close()
        assert not (tmp_path / "out").exists()

        process, channel = await started()
        _, job = await Training(channel).ended("sft")
        assert job.state == jobs_pb2.JOB_STATE_SUCCEEDED, job.error
        assert weights_of(tmp_path / "out") == left_alone
        process.terminate()
        await process.communicate()
        assert process.returncode == 0
    finally:
        await channel.close()
        if process.returncode is None:
            process.kill()
            await process.communicate()


def test_the_jobs_spec_is_the_request_as_json() -> None:
    request = TrainingRequest.model_validate(
        {"sft": {"scratch": SCRATCH, "data_uri": "/d.jsonl"}, "output_uri": "/o", "seed": "7", "limit": 3.0}
    )
    assert request.seed == 7 and request.limit == 3
