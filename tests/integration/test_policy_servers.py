"""The policy service in front of generation servers on loopback, through its real gRPC door."""

import time
from collections.abc import Iterator
from pathlib import Path

import grpc
import pytest
from grpc_status import rpc_status
from support.generation_servers import Behaviour, openai_server, tgi_server
from support.policy_service import Stubs, generate_request, policy_service, prompt, violations
from support.tiny_models import tiny_tokenizer

from assay.common.v1 import common_pb2
from assay.policy.v1 import policy_pb2

OPENAI, TGI = policy_pb2.BACKEND_OPENAI, policy_pb2.BACKEND_TGI


@pytest.fixture
def behaviour() -> Behaviour:
    return Behaviour()


@pytest.fixture
def openai_url(behaviour: Behaviour) -> Iterator[str]:
    with openai_server(behaviour) as url:
        yield url


@pytest.fixture
def tgi_url(behaviour: Behaviour) -> Iterator[str]:
    with tgi_server(behaviour) as url:
        yield url


@pytest.fixture(params=["openai", "tgi"])
def any_url(request: pytest.FixtureRequest) -> tuple[str, int]:
    return request.getfixturevalue(f"{request.param}_url"), OPENAI if request.param == "openai" else TGI


async def load(service: Stubs, uri: str, backend: int = policy_pb2.BACKEND_UNSPECIFIED, **fields: str) -> policy_pb2.PolicyInfo:
    return (await service.admin.LoadModel(policy_pb2.LoadModelRequest(name="remote", uri=uri, backend=backend, **fields))).model


async def test_an_openai_server_is_asked_by_chat_with_what_the_request_says(tmp_path: Path, openai_url: str, behaviour: Behaviour):
    async with policy_service(tmp_path) as service:
        info = await load(service, openai_url)
        assert (info.backend, info.fingerprint, info.revision, info.max_context_tokens) == (OPENAI, "", "tiny", 2048)
        request = generate_request("Hi", "Ho", n=3, max_new_tokens=9, temperature=0.5, top_p=0.9, seed=4, stop=["\n"], min_new_tokens=2)
        first, second = (await service.policy.Generate(request)).generations
    body = next(body for body in behaviour.bodies("/v1/chat/completions") if body["messages"][0]["content"] == "Hi")
    seed = body.pop("seed")
    assert body == {
        "model": "tiny",
        "messages": [{"role": "user", "content": "Hi"}],
        "n": 3,
        "max_tokens": 9,
        "temperature": 0.5,
        "top_p": 0.9,
        "stop": ["\n"],
        "min_tokens": 2,
    }
    assert [completion.text for completion in first.completions] == [f"to 'Hi' by seed {seed + index}" for index in range(3)]
    assert first.model_fingerprint == "tiny"
    assert [completion.finish_reason for completion in first.completions] == [
        policy_pb2.FINISH_REASON_STOP,
        policy_pb2.FINISH_REASON_LENGTH,
        policy_pb2.FINISH_REASON_STOP,
    ]
    assert second.completions[0].text.startswith("to 'Ho'")
    assert not first.completions[0].HasField("log_prob")


async def test_seeds_are_the_same_in_every_run_and_differ_by_prompt(tmp_path: Path, openai_url: str):
    answers = []
    for run in ("a", "b"):
        async with policy_service(tmp_path / run) as service:
            await load(service, openai_url)
            answers.append(await service.policy.Generate(generate_request("Hi", "Ho", n=2, seed=4)))
    assert answers[0] == answers[1]
    seeds = {completion.text.rsplit(" ", 1)[1] for generation in answers[0].generations for completion in generation.completions}
    assert len(seeds) == 4


async def test_log_probs_are_told_at_temperature_one_only(tmp_path: Path, openai_url: str):
    async with policy_service(tmp_path) as service:
        await load(service, openai_url)
        at_one = (await service.policy.Generate(generate_request("Hi"))).generations[0].completions[0]
        greedy = (await service.policy.Generate(generate_request("Hi", temperature=0.0))).generations[0].completions[0]
    assert at_one.log_prob == -1.5
    assert not greedy.HasField("log_prob")


async def test_completions_get_the_prompt_rendered_here(tmp_path: Path, openai_url: str, behaviour: Behaviour):
    tiny_tokenizer().save_pretrained(tmp_path / "tokenizer")
    async with policy_service(tmp_path / "state") as service:
        await load(service, f"{openai_url}?api=completions&tokenizer={tmp_path / 'tokenizer'}", served_model="other")
        completion = (await service.policy.Generate(generate_request("Hi"))).generations[0].completions[0]
    (body,) = behaviour.bodies("/v1/completions")
    assert (body["model"], body["prompt"]) == ("other", "\n\nHuman: Hi\n\nAssistant:")
    assert completion.text.startswith("to ")
    assert completion.log_prob == -1.25


async def test_a_server_that_does_not_know_n_is_asked_n_times_with_new_seeds(tmp_path: Path, openai_url: str, behaviour: Behaviour):
    behaviour.knows_n = False
    async with policy_service(tmp_path) as service:
        await load(service, openai_url)
        completions = (await service.policy.Generate(generate_request("Hi", n=4))).generations[0].completions
    assert len({completion.text for completion in completions}) == 4


async def test_a_model_that_the_server_has_not_is_told_which_it_has(tmp_path: Path, openai_url: str):
    async with policy_service(tmp_path) as service:
        with pytest.raises(grpc.aio.AioRpcError) as refused:
            await load(service, openai_url, served_model="huge")
    assert "tiny, other" in violations(refused.value)["served_model"]


async def test_tgi_is_asked_on_its_own_wire_and_tells_tokens(tmp_path: Path, tgi_url: str, behaviour: Behaviour):
    async with policy_service(tmp_path) as service:
        info = await load(service, tgi_url, TGI)
        assert (info.backend, info.revision, info.max_context_tokens) == (TGI, "org/tiny", 1536)
        generation = (await service.policy.Generate(generate_request("Hi", n=2, max_new_tokens=5, seed=6))).generations[0]
    bodies = behaviour.bodies("/generate")
    seeds = sorted(body["parameters"]["seed"] for body in bodies)
    assert seeds[1] == seeds[0] + 1
    assert {body["inputs"] for body in bodies} == {"<s>[user] Hi\n"}
    assert bodies[0]["parameters"]["do_sample"] is True
    assert bodies[0]["parameters"]["max_new_tokens"] == 5
    assert sorted(completion.text for completion in generation.completions) == [f"seed {seed}" for seed in seeds]
    assert [list(completion.tokens.ids) for completion in generation.completions] == [[40, 41, 42, 2]] * 2
    assert generation.completions[0].log_prob == -1.625
    assert generation.completions[0].finish_reason == policy_pb2.FINISH_REASON_STOP


async def test_tgi_is_not_given_a_second_bos(tmp_path: Path, tgi_url: str, behaviour: Behaviour):
    behaviour.adds_bos = True
    async with policy_service(tmp_path) as service:
        await load(service, tgi_url, TGI)
        await service.policy.Generate(generate_request("Hi"))
    assert behaviour.bodies("/generate")[0]["inputs"] == "[user] Hi\n"


async def test_tgi_greedy_and_stop_texts(tmp_path: Path, tgi_url: str, behaviour: Behaviour):
    async with policy_service(tmp_path) as service:
        await load(service, tgi_url, TGI)
        greedy = (await service.policy.Generate(generate_request("Hi", temperature=0.0))).generations[0]
        stopped = (await service.policy.Generate(generate_request("Hi", stop=["END"]))).generations[0]
        least = (await service.policy.Generate(generate_request("Hi", min_new_tokens=1))).generations[0]
    assert behaviour.bodies("/generate")[0]["parameters"]["do_sample"] is False
    assert greedy.completions[0].text == "seed None"
    assert stopped.completions[0].text.startswith("seed ") and "END" not in stopped.completions[0].text
    assert least.error.field == "prompts[0].sampling.min_new_tokens"


@pytest.mark.parametrize("environment", [{}, {"HF_HUB_OFFLINE": "1"}])
async def test_the_machines_hub_token_never_goes_to_a_tgi_server(
    tmp_path: Path, tgi_url: str, behaviour: Behaviour, environment: dict[str, str], monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setenv("HF_TOKEN", "hf_secret")
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", bool(environment))
    for token, expected in (("", None), ("mine", "Bearer mine")):
        async with policy_service(tmp_path / f"state{token}", policy_tgi_token=token) as service:
            await load(service, tgi_url, TGI)
            await service.policy.Generate(generate_request("Hi"))
        assert {headers.get("authorization") for _, _, headers in behaviour.requests} == {expected}
        behaviour.requests.clear()


async def test_a_prompt_that_the_server_refuses_has_its_own_error(tmp_path: Path, any_url: tuple[str, int], behaviour: Behaviour):
    behaviour.refuses = "too much"
    async with policy_service(tmp_path) as service:
        await load(service, *any_url)
        good, bad = (await service.policy.Generate(generate_request("Hi", "far too much"))).generations
    assert len(good.completions) == 1
    assert (bad.error.code, bad.error.field) == (3, "prompts[1].conversation")
    assert any_url[0] in bad.error.message


@pytest.mark.parametrize(
    ("status", "code"),
    [
        (429, grpc.StatusCode.RESOURCE_EXHAUSTED),
        (401, grpc.StatusCode.FAILED_PRECONDITION),
        (404, grpc.StatusCode.FAILED_PRECONDITION),
        (500, grpc.StatusCode.UNAVAILABLE),
    ],
)
async def test_a_servers_failure_names_it_with_the_code_that_fits(
    tmp_path: Path, any_url: tuple[str, int], behaviour: Behaviour, status: int, code: grpc.StatusCode
):
    overloaded = {"error": "Model is overloaded", "error_type": "overloaded"}
    behaviour.fails_with = (status, overloaded if status == 429 and any_url[1] == TGI else {"error": {"message": "m"}})
    async with policy_service(tmp_path) as service:
        await load(service, *any_url)
        with pytest.raises(grpc.aio.AioRpcError, match=any_url[0]) as failed:
            await service.policy.Generate(generate_request("Hi"))
    assert failed.value.code() is code
    has_retry = any("RetryInfo" in detail.type_url for detail in rpc_status.from_call(failed.value).details)
    assert has_retry == (code is grpc.StatusCode.RESOURCE_EXHAUSTED)


@pytest.mark.parametrize("backend", [OPENAI, TGI])
async def test_a_server_that_is_down_is_named_and_a_remembered_one_may_come_back(tmp_path: Path, backend: int, behaviour: Behaviour):
    serve = openai_server if backend == OPENAI else tgi_server
    with serve(behaviour) as url:
        async with policy_service(tmp_path) as service:
            await load(service, url, backend)
    async with policy_service(tmp_path) as service:
        (info,) = (await service.policy.ListModels(policy_pb2.ListModelsRequest())).models
        assert info.uri == url
        for call in (service.policy.Generate(generate_request("Hi")), load(service, f"{url}/other", backend)):
            with pytest.raises(grpc.aio.AioRpcError, match=url) as failed:
                await call
            assert failed.value.code() is grpc.StatusCode.UNAVAILABLE


async def test_a_callers_deadline_ends_the_calls_to_the_server(tmp_path: Path, any_url: tuple[str, int], behaviour: Behaviour):
    behaviour.delay_s = 1.0
    async with policy_service(tmp_path, policy_remote_concurrency=1) as service:
        await load(service, *any_url)
        with pytest.raises(grpc.aio.AioRpcError) as late:
            await service.policy.Generate(generate_request(*(f"Hi {index}" for index in range(50))), timeout=0.4)
        assert late.value.code() is grpc.StatusCode.DEADLINE_EXCEEDED
        behaviour.delay_s = 0.0
        began = time.monotonic()
        await service.policy.Generate(generate_request("Ho"), timeout=5)
        assert time.monotonic() - began < 3


async def test_a_server_is_not_asked_for_log_probs_of_given_answers(tmp_path: Path, any_url: tuple[str, int]):
    item = policy_pb2.LogProbItem(prompt=prompt("Hi"), tokens=common_pb2.TokenSequence(ids=[1]))
    async with policy_service(tmp_path) as service:
        await load(service, *any_url)
        with pytest.raises(grpc.aio.AioRpcError, match="BACKEND_TRANSFORMERS") as refused:
            await service.policy.ComputeLogProbs(policy_pb2.ComputeLogProbsRequest(items=[item]))
    assert refused.value.code() is grpc.StatusCode.FAILED_PRECONDITION
