"""The policy service as a process: killed, started again, and drained."""

import contextlib
from pathlib import Path

import grpc
from support.policy_service import generate_request, policy_process
from support.tiny_models import write_tiny_causal_lm

from assay.policy.v1 import policy_pb2

QUESTIONS = [f"Question {index}, which is {'long ' * (index % 7)}enough?" for index in range(40)]


def test_the_same_request_gives_the_same_answers_after_kill_9_and_one_in_flight_at_sigterm_is_answered(tmp_path: Path):
    folder = write_tiny_causal_lm(tmp_path / "model")
    request = generate_request(*QUESTIONS, n=16, max_new_tokens=32, seed=21)
    with policy_process(tmp_path / "state") as process:
        stubs = process.start()
        loaded = stubs.admin.LoadModel(policy_pb2.LoadModelRequest(name="sft", uri=str(folder), revision="r1"))
        before = stubs.policy.Generate(request)
        assert len(before.generations) == 40

        interrupted = stubs.policy.Generate.future(request)
        process.kill()
        with contextlib.suppress(grpc.RpcError):
            interrupted.result()
        stubs = process.start()
        restored = stubs.policy.ListModels(policy_pb2.ListModelsRequest()).models[0]
        restored.loaded_at.CopyFrom(loaded.model.loaded_at)
        assert restored == loaded.model
        assert stubs.policy.Generate(request) == before

        stream = stubs.policy.GenerateStream(
            policy_pb2.GenerateStreamRequest(request=generate_request(*QUESTIONS, n=32, max_new_tokens=64))
        )
        seen = [next(stream).generation]
        assert process.process is not None
        process.process.terminate()
        seen += [one.generation for one in stream]
        assert len(seen) == 40
        assert all(len(generation.completions) == 32 for generation in seen)
        assert process.process.wait(timeout=30) == 0
