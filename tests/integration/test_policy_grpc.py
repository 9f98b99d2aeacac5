"""The policy service with a local model, through its real gRPC door."""

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import grpc
import pytest
import pytest_asyncio
import torch
from support.policy_service import Stubs, generate_request, policy_service, prompt, violations
from support.tiny_models import write_tiny_causal_lm
from transformers import AutoModelForCausalLM, AutoTokenizer

from assay.common.v1 import common_pb2
from assay.policy.v1 import policy_pb2
from assay_data.fingerprints import fingerprint_folder

QUESTIONS = ("How do I bake bread?", "Hi", "Tell me about the history of the town, and of the people in it.")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_tiny_causal_lm(tmp_path_factory.mktemp("policy") / "model")


@pytest_asyncio.fixture
async def service(tmp_path: Path, folder: Path) -> AsyncIterator[Stubs]:
    async with policy_service(tmp_path, policy_queue_requests=4, policy_max_new_tokens=512) as stubs:
        await stubs.admin.LoadModel(policy_pb2.LoadModelRequest(name="sft", uri=str(folder)))
        yield stubs


async def test_every_prompt_gets_its_answers_in_order_with_tokens_log_prob_and_the_models_fingerprint(service: Stubs, folder: Path):
    request = generate_request(*QUESTIONS, n=3, max_new_tokens=16, seed=1, request_id="r1")
    response = await service.policy.Generate(request)
    assert response.request_id == "r1"
    assert [generation.prompt_id for generation in response.generations] == ["p0", "p1", "p2"]
    for generation in response.generations:
        assert generation.model_fingerprint == fingerprint_folder(folder).fingerprint
        assert generation.request_id == "r1"
        assert len({completion.text for completion in generation.completions}) == 3
        for completion in generation.completions:
            assert len(completion.tokens.ids) == 16 or completion.finish_reason == policy_pb2.FINISH_REASON_STOP
            assert completion.log_prob < 0


async def test_the_same_request_gives_the_same_answers_whatever_else_is_in_flight(service: Stubs):
    request = generate_request(*QUESTIONS, n=4, max_new_tokens=24, seed=9)
    alone = await service.policy.Generate(request)
    others = [generate_request(*QUESTIONS[:2], n=2, max_new_tokens=24, seed=seed) for seed in range(3)]
    crowded, *rest = await asyncio.gather(service.policy.Generate(request), *(service.policy.Generate(other) for other in others))
    assert crowded == alone
    assert len({str(one.generations[0].completions) for one in (alone, *rest)}) == 4


async def test_another_seed_gives_other_answers(service: Stubs):
    first, second = [await service.policy.Generate(generate_request("Hi", max_new_tokens=16, seed=seed)) for seed in (1, 2)]
    assert first.generations[0].completions[0].text != second.generations[0].completions[0].text


async def test_a_stream_gives_what_the_single_answer_gives(service: Stubs):
    request = generate_request(*QUESTIONS, n=2, max_new_tokens=12, seed=3)
    whole = await service.policy.Generate(request)
    streamed = [one.generation async for one in service.policy.GenerateStream(policy_pb2.GenerateStreamRequest(request=request))]
    assert sorted(streamed, key=lambda generation: generation.prompt_id) == list(whole.generations)


async def test_greedy_answers_are_those_of_transformers_through_the_same_template(service: Stubs, folder: Path):
    response = await service.policy.Generate(generate_request(*QUESTIONS, max_new_tokens=20, temperature=0.0))
    tokenizer, model = AutoTokenizer.from_pretrained(folder), AutoModelForCausalLM.from_pretrained(folder).eval()
    for question, generation in zip(QUESTIONS, response.generations, strict=True):
        turns = [{"role": "user", "content": question}]
        ids = tokenizer.apply_chat_template(turns, add_generation_prompt=True, return_tensors="pt", return_dict=True)["input_ids"]
        expected = model.generate(ids, attention_mask=torch.ones_like(ids), do_sample=False, max_new_tokens=20)[0, ids.shape[1] :]
        assert list(generation.completions[0].tokens.ids) == expected.tolist()
        assert generation.completions[0].text == tokenizer.decode(expected, skip_special_tokens=True).removeprefix(" ")


@pytest.mark.parametrize("options", [{}, {"temperature": 0.6}, {"top_p": 0.8}, {"temperature": 0.0}])
async def test_log_probs_of_the_answers_asked_again_are_those_told_with_them(service: Stubs, options: dict[str, float]):
    response = await service.policy.Generate(generate_request(*QUESTIONS, n=5, max_new_tokens=40, seed=4, **options))
    told = [completion for generation in response.generations for completion in generation.completions]
    items = [
        policy_pb2.LogProbItem(prompt=prompt(question), tokens=completion.tokens)
        for question, generation in zip(QUESTIONS, response.generations, strict=True)
        for completion in generation.completions
    ]
    again = await service.policy.ComputeLogProbs(policy_pb2.ComputeLogProbsRequest(items=items))
    assert list(again.log_probs) == pytest.approx([completion.log_prob for completion in told], abs=1e-4)


async def test_an_answer_of_no_tokens_is_certain_and_the_others_keep_their_places(service: Stubs):
    tokens = common_pb2.TokenSequence(ids=[10, 11])
    one = await service.policy.ComputeLogProbs(
        policy_pb2.ComputeLogProbsRequest(items=[policy_pb2.LogProbItem(prompt=prompt("Hi"), tokens=tokens)])
    )
    items = [policy_pb2.LogProbItem(prompt=prompt("Hi")), policy_pb2.LogProbItem(prompt=prompt("Hi"), tokens=tokens)]
    both = await service.policy.ComputeLogProbs(policy_pb2.ComputeLogProbsRequest(items=items))
    assert both.log_probs[0] == 0.0
    assert both.log_probs[1] == pytest.approx(one.log_probs[0], abs=1e-5)


async def test_a_stop_text_ends_an_answer_and_is_cut_off(service: Stubs):
    free = (await service.policy.Generate(generate_request("Hi", max_new_tokens=32, seed=5))).generations[0].completions[0]
    stop = free.text[12:15]
    request = generate_request("Hi", max_new_tokens=32, seed=5, stop=[stop])
    stopped = (await service.policy.Generate(request)).generations[0].completions[0]
    assert stopped.text == free.text[: free.text.index(stop)]
    assert stopped.finish_reason == policy_pb2.FINISH_REASON_STOP
    length = len(stopped.tokens.ids)
    assert length < 32
    assert list(stopped.tokens.ids) == list(free.tokens.ids[:length])


async def test_bad_prompts_have_their_own_errors_and_the_others_their_answers(service: Stubs):
    request = generate_request("Hi", "word " * 600, max_new_tokens=16)
    request.prompts.append(policy_pb2.Prompt(id="empty"))
    good, long, empty = (await service.policy.Generate(request)).generations
    assert len(good.completions) == 1 and not good.HasField("error")
    assert (long.error.field, empty.error.field) == ("prompts[1].conversation", "prompts[2].conversation.messages")
    assert long.error.code == empty.error.code == grpc.StatusCode.INVALID_ARGUMENT.value[0]
    assert "at most 496 leave room" in long.error.message
    assert not long.completions and empty.prompt_id == "empty"


async def test_fields_out_of_range_are_named(service: Stubs):
    with pytest.raises(grpc.aio.AioRpcError) as refused:
        await service.policy.Generate(generate_request("Hi", n=70000, temperature=3.0, top_p=1.5))
    assert refused.value.code() is grpc.StatusCode.INVALID_ARGUMENT
    assert set(violations(refused.value)) == {"n", "sampling.temperature", "sampling.top_p"}


async def test_token_ids_outside_the_vocabulary_are_named(service: Stubs):
    item = policy_pb2.LogProbItem(prompt=prompt("Hi"), tokens=common_pb2.TokenSequence(ids=[5, 100000]))
    with pytest.raises(grpc.aio.AioRpcError) as refused:
        await service.policy.ComputeLogProbs(policy_pb2.ComputeLogProbsRequest(items=[item]))
    assert set(violations(refused.value)) == {"items[0].tokens.ids[1]"}


async def test_an_unknown_model_is_told_what_there_is(service: Stubs):
    for call in (
        service.policy.Generate(generate_request("Hi", model="nope")),
        service.policy.GetModel(policy_pb2.GetModelRequest(model=common_pb2.ModelSelector(name="nope"))),
        service.admin.UnloadModel(policy_pb2.UnloadModelRequest(model=common_pb2.ModelSelector(name="nope"))),
    ):
        with pytest.raises(grpc.aio.AioRpcError, match="sft") as refused:
            await call
        assert refused.value.code() is grpc.StatusCode.NOT_FOUND


async def test_models_are_loaded_listed_told_and_unloaded(service: Stubs, folder: Path):
    again = await service.admin.LoadModel(policy_pb2.LoadModelRequest(name="sft", uri=str(folder)))
    listed = await service.policy.ListModels(policy_pb2.ListModelsRequest())
    assert list(listed.models) == [again.model]
    assert again.model.backend == policy_pb2.BACKEND_TRANSFORMERS
    assert again.model.revision == again.model.fingerprint[:12]
    assert again.model.max_context_tokens == 512
    await service.admin.UnloadModel(policy_pb2.UnloadModelRequest(model=common_pb2.ModelSelector(name="sft")))
    assert not (await service.policy.ListModels(policy_pb2.ListModelsRequest())).models


@pytest.mark.parametrize(
    ("request_", "field"),
    [
        (policy_pb2.LoadModelRequest(name="a b", uri="x"), "name"),
        (policy_pb2.LoadModelRequest(name="a"), "uri"),
        (policy_pb2.LoadModelRequest(name="a", uri="/nowhere/at/all"), "uri"),
        (policy_pb2.LoadModelRequest(name="a", uri="x", backend=9), "backend"),
    ],
)
async def test_what_cannot_be_loaded_is_refused_by_its_field(service: Stubs, request_: policy_pb2.LoadModelRequest, field: str):
    with pytest.raises(grpc.aio.AioRpcError) as refused:
        await service.admin.LoadModel(request_)
    assert set(violations(refused.value)) == {field}


async def test_a_full_queue_refuses_at_once(service: Stubs):
    long = generate_request(*QUESTIONS * 40, n=8, max_new_tokens=200)
    calls = [asyncio.ensure_future(service.policy.Generate(long)) for _ in range(4)]
    with pytest.raises(grpc.aio.AioRpcError, match="full") as refused:
        while True:  # until the four are in
            await service.policy.Generate(generate_request("Hi", max_new_tokens=1))
    assert refused.value.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
    for call in calls:
        call.cancel()
    await asyncio.gather(*calls, return_exceptions=True)


async def test_work_whose_caller_has_gone_frees_the_device(service: Stubs):
    long = generate_request(*QUESTIONS * 40, n=64, max_new_tokens=300)
    with pytest.raises(grpc.aio.AioRpcError) as late:
        await service.policy.Generate(long, timeout=0.3)
    assert late.value.code() is grpc.StatusCode.DEADLINE_EXCEEDED
    call = service.policy.GenerateStream(policy_pb2.GenerateStreamRequest(request=long))
    assert (await call.read()).generation.prompt_id
    call.cancel()
    await service.policy.Generate(generate_request("Hi", max_new_tokens=2), timeout=5)


async def test_a_model_replaced_under_a_running_call_answers_that_call_to_its_end(service: Stubs, folder: Path, tmp_path: Path):
    request = generate_request(*QUESTIONS * 5, n=64, max_new_tokens=40, seed=2)
    before = await service.policy.Generate(request)
    running = asyncio.ensure_future(service.policy.Generate(request))
    await asyncio.sleep(0.05)
    other = write_tiny_causal_lm(tmp_path / "other", seed=1)
    await service.admin.LoadModel(policy_pb2.LoadModelRequest(name="sft", uri=str(other)))
    assert await running == before
    after = await service.policy.Generate(generate_request("Hi", max_new_tokens=2))
    assert after.generations[0].model_fingerprint == fingerprint_folder(other).fingerprint


async def test_answers_follow_the_models_distribution(service: Stubs, folder: Path):
    response = await service.policy.Generate(generate_request("Hi", n=8000, max_new_tokens=1, seed=11))
    first = torch.tensor([completion.tokens.ids[0] for completion in response.generations[0].completions])
    tokenizer, model = AutoTokenizer.from_pretrained(folder), AutoModelForCausalLM.from_pretrained(folder).eval()
    turns = [{"role": "user", "content": "Hi"}]
    ids = tokenizer.apply_chat_template(turns, add_generation_prompt=True, return_tensors="pt", return_dict=True)["input_ids"]
    with torch.inference_mode():
        expected = torch.softmax(model(ids).logits[0, -1].double(), -1)
    counts = torch.bincount(first, minlength=len(expected)).double()
    chi_square = ((counts - 8000 * expected) ** 2 / (8000 * expected)).sum().item()
    freedom = len(expected) - 1
    assert abs(chi_square - freedom) < 5 * (2 * freedom) ** 0.5
