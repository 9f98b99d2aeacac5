"""Best-of-n through the real reward service."""

import math
from pathlib import Path

import grpc
import pytest
from support.policy_service import generate_request, policy_service, prompt
from support.reward_service import group, reward_app, running
from support.tiny_models import write_tiny_causal_lm, write_tiny_reward_model

from assay.common.v1 import common_pb2
from assay.policy.v1 import policy_pb2
from assay.reward.v1 import reward_pb2, reward_pb2_grpc
from assay_reward.settings import RewardSettings

QUESTION = "How do I bake bread?"


def request(n: int = 8, **fields) -> policy_pb2.BestOfNRequest:
    sampling = policy_pb2.SamplingOptions(max_new_tokens=12, seed=3)
    return policy_pb2.BestOfNRequest(prompt=prompt(QUESTION), n=n, sampling=sampling, **fields)


async def test_the_best_of_n_is_the_sample_that_the_reward_service_scores_highest(tmp_path: Path):
    policy = write_tiny_causal_lm(tmp_path / "policy")
    reward = write_tiny_reward_model(tmp_path / "reward")
    async with (
        running(reward_app(RewardSettings(data_dir=tmp_path / "r", drain_seconds=1))) as target,
        grpc.aio.insecure_channel(target) as channel,
        policy_service(tmp_path / "p", reward_target=target) as service,
    ):
        loaded = await reward_pb2_grpc.ModelAdminServiceStub(channel).LoadModel(reward_pb2.LoadModelRequest(name="rm", uri=str(reward)))
        await service.admin.LoadModel(policy_pb2.LoadModelRequest(name="sft", uri=str(policy)))
        chosen = await service.policy.BestOfN(request(reward_model=common_pb2.ModelSelector(name="rm"), include_all=True))
        brief = await service.policy.BestOfN(request(reward_model=common_pb2.ModelSelector(name="rm")))
        sampled = await service.policy.Generate(generate_request(QUESTION, n=8, max_new_tokens=12, seed=3))
        texts = [completion.text for completion in sampled.generations[0].completions]
        scored = await reward_pb2_grpc.RewardServiceStub(channel).ScoreGroup(
            group(texts, QUESTION, model=common_pb2.ModelSelector(name="rm"))
        )
        with pytest.raises(grpc.aio.AioRpcError, match=target) as unknown:
            await service.policy.BestOfN(request(reward_model=common_pb2.ModelSelector(name="nope")))
    assert [one.completion for one in chosen.all] == list(sampled.generations[0].completions)
    assert [one.score for one in chosen.all] == [score.raw for score in scored.scores]
    assert chosen.best == max(chosen.all, key=lambda one: one.score)
    assert len({one.score for one in chosen.all}) > 1
    assert chosen.kl == pytest.approx(math.log(8) - 7 / 8)
    assert chosen.reward_model_fingerprint == loaded.model.provenance.fingerprint != ""
    assert brief.best == chosen.best and not brief.all
    assert unknown.value.code() is grpc.StatusCode.NOT_FOUND


async def test_a_reward_service_that_is_down_or_not_set_is_named(tmp_path: Path):
    policy = write_tiny_causal_lm(tmp_path / "policy")
    for target, code, named in (
        ("127.0.0.1:1", grpc.StatusCode.UNAVAILABLE, "127.0.0.1:1"),
        ("", grpc.StatusCode.FAILED_PRECONDITION, "ASSAY_REWARD_TARGET"),
    ):
        async with policy_service(tmp_path / f"state{len(target)}", reward_target=target) as service:
            await service.admin.LoadModel(policy_pb2.LoadModelRequest(name="sft", uri=str(policy)))
            with pytest.raises(grpc.aio.AioRpcError, match=named) as failed:
                await service.policy.BestOfN(request(2))
        assert failed.value.code() is code
