"""The same model on real vLLM servers on a CPU and in the service's own engine: the same scores, and no score lost with a server."""

import asyncio
import random
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import grpc
import pytest
import pytest_asyncio
from support.reward_service import RewardClient, group, item, reward_service, selector
from support.tiny_models import EOS, tiny_tokenizer, write_tiny_reward_model
from support.vllm_servers import VllmProcess, declared, vllm_program, vllm_serving

from assay.common.v1 import common_pb2
from assay.reward.v1 import reward_pb2

pytestmark = pytest.mark.slow

COMMON = "bread flour water salt yeast oven dough knead rise bake warm cold home friend sad town history safe"
WORDS = [*COMMON.split(), "naïve", "你好", "🙂", "\n\n"]


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    vllm_program()
    # It pads with what ends an answer, as many do, so transformers reads the token before; vLLM's attention on a CPU wants heads of 32.
    tokenizer = tiny_tokenizer(pad_token=EOS)
    return write_tiny_reward_model(tmp_path_factory.mktemp("checkpoint") / "rm", hidden_size=128, tokenizer=tokenizer)


@pytest.fixture(scope="module")
def servers(checkpoint: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[list[VllmProcess]]:
    with vllm_serving(checkpoint, tmp_path_factory.mktemp("vllm"), 2) as servers:
        yield servers


@pytest_asyncio.fixture
async def client(servers: list[VllmProcess], checkpoint: Path, tmp_path: Path) -> AsyncIterator[RewardClient]:
    """The model twice: "local", and "vllm" on both servers."""
    async with reward_service(tmp_path / "reward") as client:
        await client.load("local", checkpoint)
        await client.load("vllm", declared(tmp_path / "vllm", checkpoint, *(server.address for server in servers)))
        yield client


def texts(count: int, seed: int, longest: int = 40) -> list[str]:
    chance = random.Random(seed)
    return [" ".join(chance.choices(WORDS, k=chance.randrange(longest))) for _ in range(count)]


def batch(model: str, count: int, seed: int = 0) -> reward_pb2.ScoreBatchRequest:
    questions = texts(count // 4, seed + 1)
    items = [item(text, questions[number % len(questions)] + "?") for number, text in enumerate(texts(count, seed))]
    return reward_pb2.ScoreBatchRequest(items=items, model=selector(model))


def raws(reply: reward_pb2.ScoreBatchResponse) -> list[float]:
    assert all(result.WhichOneof("outcome") == "score" for result in reply.results), reply
    return [result.score.raw for result in reply.results]


async def test_scores_are_those_of_the_local_engine(client: RewardClient) -> None:
    wanted, found = [await client.reward.ScoreBatch(batch(model, 160)) for model in ("local", "vllm")]
    assert raws(found) == pytest.approx(raws(wanted), abs=1e-4)
    assert max(raws(wanted)) - min(raws(wanted)) > 1
    for one, other in zip(found.results, wanted.results, strict=True):
        assert (one.score.prompt_tokens, one.score.response_tokens) == (other.score.prompt_tokens, other.score.response_tokens)
    assert found.provenance.fingerprint == wanted.provenance.fingerprint
    assert "vllm 0." in found.provenance.engine_version and found.provenance.dtype == "float32"


async def test_groups_with_a_long_prompt_score_alike_whatever_is_in_the_servers_cache(client: RewardClient) -> None:
    """The prompt is longer than a block of vLLM's prefix cache, and every group is asked for twice."""
    for seed in range(4):
        [question] = [" ".join(random.Random(seed).choices(WORDS, k=60))]
        answers = texts(8, seed, 20)
        answers[3] = answers[0]
        replies = [await client.reward.ScoreGroup(group(answers, question, model=selector(model))) for model in ("local", "vllm", "vllm")]
        local, first, again = ([score.raw for score in reply.scores] for reply in replies)
        assert first == pytest.approx(local, abs=1e-4) and again == pytest.approx(local, abs=1e-4)
        assert replies[0].scores[0].prompt_tokens > 128 and first[0] == first[3]


@pytest.mark.parametrize("policy", ["PROMPT_LEFT", "RESPONSE_RIGHT"])
async def test_what_is_too_long_is_cut_alike(client: RewardClient, policy: str) -> None:
    options = reward_pb2.ScoreOptions(truncation=reward_pb2.TruncationPolicy.Value(f"TRUNCATION_POLICY_{policy}"))
    question, answers = (
        ("Tell me. " * 200, texts(3, 7)) if policy == "PROMPT_LEFT" else ("Tell me.", [text * 30 for text in texts(3, 8, 200)])
    )
    wanted, found = [
        await client.reward.ScoreGroup(group(answers, question, options=options, model=selector(model))) for model in ("local", "vllm")
    ]
    assert [score.raw for score in found.scores] == pytest.approx([score.raw for score in wanted.scores], abs=1e-4)
    assert [score.tokens_dropped for score in found.scores] == [score.tokens_dropped for score in wanted.scores]
    assert any(score.truncated for score in found.scores)


async def test_token_ids_score_alike_with_padding_at_their_end_too(client: RewardClient) -> None:
    chance = random.Random(5)
    padding = [tiny_tokenizer().eos_token_id]
    sequences = [[chance.randrange(400) for _ in range(chance.randrange(1, 60))] + padding * (number % 3) for number in range(30)]
    items = [reward_pb2.ScoreItem(tokens=common_pb2.TokenSequence(ids=ids)) for ids in sequences]
    wanted, found = [
        await client.reward.ScoreBatch(reward_pb2.ScoreBatchRequest(items=items, model=selector(model))) for model in ("local", "vllm")
    ]
    assert raws(found) == pytest.approx(raws(wanted), abs=1e-4)


async def test_a_served_model_of_another_name_is_refused_at_load(
    client: RewardClient, servers: list[VllmProcess], checkpoint: Path, tmp_path: Path
) -> None:
    folder = declared(tmp_path / "wrong", checkpoint, servers[0].address, served_model="other")
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await client.load("wrong", folder)
    assert caught.value.code() is grpc.StatusCode.FAILED_PRECONDITION and "serves rm, not other" in str(caught.value.details())


async def test_no_score_is_lost_with_a_server_and_calls_are_unavailable_with_the_last(
    client: RewardClient, servers: list[VllmProcess]
) -> None:
    wanted = [raws(await client.reward.ScoreBatch(batch("local", 64, seed))) for seed in range(12)]
    calls = [asyncio.ensure_future(client.reward.ScoreBatch(batch("vllm", 64, seed))) for seed in range(12)]
    await asyncio.wait(calls, return_when=asyncio.FIRST_COMPLETED)
    assert sum(call.done() for call in calls) < 12
    servers[0].kill()
    for found, local in zip(await asyncio.gather(*calls), wanted, strict=True):
        assert raws(found) == pytest.approx(local, abs=1e-4)
    servers[1].kill()
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await client.reward.ScoreBatch(batch("vllm", 8))
    assert caught.value.code() is grpc.StatusCode.UNAVAILABLE
    assert all(server.address in str(caught.value.details()) for server in servers)
