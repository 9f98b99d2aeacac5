"""Models on vLLM servers through the service's own doors, at stand-ins that speak vLLM's wire: balance, health, retry, refusals."""

import asyncio
import threading
from collections.abc import AsyncIterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import grpc
import pytest
import pytest_asyncio
from prometheus_client import REGISTRY
from support.reward_service import RewardClient, details, group, item, reward_service
from support.tiny_models import EOS, tiny_tokenizer, write_tiny_reward_model
from support.vllm_servers import Vllm, declared, score_of, vllm_stand_in

from assay.common.v1 import common_pb2
from assay.reward.v1 import reward_pb2

TEXTS = ["Mix flour and water.", "I do not know.", "Buy it.", "", "Knead the dough for ten minutes, then let it rise."]


@pytest_asyncio.fixture
async def client(tmp_path: Path) -> AsyncIterator[RewardClient]:
    async with reward_service(tmp_path / "reward") as client:
        yield client


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_tiny_reward_model(tmp_path_factory.mktemp("checkpoint") / "rm")


async def refused(call: Any) -> grpc.aio.AioRpcError:
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await call
    return caught.value


def tokens(*sequences: list[int]) -> reward_pb2.ScoreBatchRequest:
    items = [reward_pb2.ScoreItem(tokens=common_pb2.TokenSequence(ids=ids)) for ids in sequences]
    return reward_pb2.ScoreBatchRequest(items=items)


def raws(reply: reward_pb2.ScoreBatchResponse) -> list[float]:
    assert all(result.WhichOneof("outcome") == "score" for result in reply.results), reply
    return [result.score.raw for result in reply.results]


# What is sent, and what comes back


async def test_token_ids_go_out_without_activation_and_the_raw_scores_come_back_in_order(
    client: RewardClient, checkpoint: Path, tmp_path: Path
) -> None:
    vllm = Vllm()
    with vllm_stand_in(vllm) as address:
        info = await client.load("m", declared(tmp_path / "m", checkpoint, address))
        local = await client.load("local", checkpoint)
        reply = await client.reward.ScoreGroup(group([*TEXTS, TEXTS[0]]))
        rendered = [
            await client.reward.RenderPrompt(
                reward_pb2.RenderPromptRequest(model=common_pb2.ModelSelector(name="local"), conversation=item(text).conversation)
            )
            for text in TEXTS
        ]
    ids = [list(one.tokens.ids) for one in rendered]
    assert sorted(vllm.asked()[0]) == sorted(ids) and len(vllm.asked()) == 1
    assert [score.raw for score in reply.scores] == pytest.approx([score_of(one) for one in [*ids, ids[0]]])
    assert (info.kind, info.architecture, info.max_input_tokens) == ("vllm_server", "LlamaForSequenceClassification", 512)
    assert info.provenance.fingerprint == local.provenance.fingerprint and info.provenance.dtype == "float32"
    assert "vllm 0.32.0" in reply.provenance.engine_version and "torch" in local.provenance.engine_version
    assert reply.usage.computed_tokens == sum(len(one) for one in ids) and reply.usage.useful_tokens == sum(map(len, [*ids, ids[0]]))


async def test_candidates_of_a_group_stand_next_to_each_other_wherever_they_were_in_the_batch(
    client: RewardClient, checkpoint: Path, tmp_path: Path
) -> None:
    vllm = Vllm()
    sequences = [[question, question, answer] for answer in (20, 10, 30) for question in (7, 5, 6)]
    with vllm_stand_in(vllm) as address:
        await client.load("m", declared(tmp_path / "m", checkpoint, address))
        found = raws(await client.reward.ScoreBatch(tokens(*sequences)))
    assert found == pytest.approx([score_of(ids) for ids in sequences])
    [sent] = vllm.asked()
    assert [ids[0] for ids in sent] == [5, 5, 5, 6, 6, 6, 7, 7, 7]


async def test_padding_at_the_end_is_not_sent_since_transformers_reads_the_token_before_it(client: RewardClient, tmp_path: Path) -> None:
    tokenizer = tiny_tokenizer(pad_token=EOS)
    checkpoint = write_tiny_reward_model(tmp_path / "rm", tokenizer=tokenizer)
    end = tokenizer.eos_token_id
    vllm = Vllm()
    with vllm_stand_in(vllm) as address:
        await client.load("m", declared(tmp_path / "m", checkpoint, address))
        reply = await client.reward.ScoreBatch(tokens([10, end, 20, end, end], [10, end, 20], [end, end]))
    assert sorted(vllm.asked()[0]) == sorted([[10, end, 20], [end]])
    assert raws(reply)[0] == raws(reply)[1]
    assert [result.score.response_tokens for result in reply.results] == [5, 3, 2]


# Balance


async def test_requests_go_to_the_server_with_the_fewest_tokens_outstanding(client: RewardClient, checkpoint: Path, tmp_path: Path) -> None:
    first, second = Vllm(holds=threading.Event()), Vllm(holds=threading.Event())
    with vllm_stand_in(first) as one, vllm_stand_in(second) as other:
        await client.load("m", declared(tmp_path / "m", checkpoint, one, other))
        calls = []
        for number, (length, where) in enumerate([(100, first), (20, second), (30, second), (60, second), (5, first)]):
            before = len(where.asked())
            calls.append(asyncio.ensure_future(client.reward.ScoreBatch(tokens([number + 3] * length))))
            while len(where.asked()) == before:
                await asyncio.sleep(0.01)
        for vllm in (first, second):
            vllm.holds.set()
        await asyncio.gather(*calls)
    assert [[len(ids) for request in vllm.asked() for ids in request] for vllm in (first, second)] == [[100, 5], [20, 30, 60]]


async def test_no_server_is_sent_more_tokens_at_once_than_are_allowed(client: RewardClient, checkpoint: Path, tmp_path: Path) -> None:
    vllm = Vllm()
    sequences = [[number % 300 + 3] * (number % 40 + 1) for number in range(200)]
    with vllm_stand_in(vllm) as address:
        await client.load("m", declared(tmp_path / "m", checkpoint, address, max_outstanding_tokens=100))
        replies = await asyncio.gather(*(client.reward.ScoreBatch(tokens(*sequences[start : start + 20])) for start in range(0, 200, 20)))
    assert [raw for reply in replies for raw in raws(reply)] == pytest.approx([score_of(ids) for ids in sequences])
    assert 40 < vllm.most_at_once <= 100


async def test_a_sequence_longer_than_what_is_allowed_goes_alone(client: RewardClient, checkpoint: Path, tmp_path: Path) -> None:
    vllm = Vllm()
    with vllm_stand_in(vllm) as address:
        await client.load("m", declared(tmp_path / "m", checkpoint, address, max_outstanding_tokens=10))
        assert len(raws(await client.reward.ScoreBatch(tokens([5] * 4, [6] * 200, [7] * 4)))) == 3
    assert [len(request) for request in vllm.asked()] == [1, 1, 1]


# Health and retry


async def test_a_server_that_dies_in_the_middle_loses_nothing(client: RewardClient, checkpoint: Path, tmp_path: Path) -> None:
    dying, living = Vllm(holds=threading.Event()), Vllm()
    with ExitStack() as servers, vllm_stand_in(living) as other:
        one = servers.enter_context(vllm_stand_in(dying))
        await client.load("m", declared(tmp_path / "m", checkpoint, one, other))
        call = asyncio.ensure_future(client.reward.ScoreGroup(group(TEXTS)))
        while not dying.asked():
            await asyncio.sleep(0.01)
        dying.holds.set()
        dying.healthy = False
        await asyncio.to_thread(servers.close)
        reply = await call
        again = await client.reward.ScoreGroup(group(TEXTS))
    assert [score.raw for score in reply.scores] == [score.raw for score in again.scores]
    assert living.asked()


async def test_a_server_that_is_ill_is_left_alone_and_comes_back_when_it_is_well(
    client: RewardClient, checkpoint: Path, tmp_path: Path
) -> None:
    first, second = Vllm(), Vllm()
    with vllm_stand_in(first) as one, vllm_stand_in(second) as other:
        await client.load("m", declared(tmp_path / "m", checkpoint, one, other))
        first.healthy = False
        for number in range(3):
            await client.reward.ScoreBatch(tokens([number + 3, 4]))
        tried = len(first.asked())
        assert tried == 1 and len(second.asked()) == 3
        first.healthy = True
        while len(first.asked()) == tried:
            await client.reward.ScoreBatch(tokens([9, 9]))
            await asyncio.sleep(0.02)


@pytest.mark.parametrize("status", [500, 503, 429])
async def test_an_error_of_the_server_is_tried_again(client: RewardClient, checkpoint: Path, tmp_path: Path, status: int) -> None:
    vllm = Vllm(failures=[status, status])
    with vllm_stand_in(vllm) as address:
        await client.load("m", declared(tmp_path / "m", checkpoint, address))
        reply = await client.reward.ScoreBatch(tokens([5, 6]))
    assert REGISTRY.get_sample_value("assay_reward_vllm_failures_total", {"server": address}) == 2
    assert raws(reply) == pytest.approx([score_of([5, 6])]) and len(vllm.asked()) == 3


async def test_a_request_that_fails_everywhere_is_unavailable_and_leaves_the_servers_to_others(
    client: RewardClient, checkpoint: Path, tmp_path: Path
) -> None:
    vllm = Vllm(failures=[500] * 4)
    with vllm_stand_in(vllm) as address:
        await client.load("m", declared(tmp_path / "m", checkpoint, address))
        error = await refused(client.reward.ScoreBatch(tokens([5, 6])))
        after = await client.reward.ScoreBatch(tokens([7, 8]))
    assert error.code() is grpc.StatusCode.UNAVAILABLE and "says 500" in str(error.details()) and "4 times" in str(error.details())
    assert raws(after) == pytest.approx([score_of([7, 8])])


async def test_where_all_servers_are_down_the_call_is_unavailable_and_says_which(
    client: RewardClient, checkpoint: Path, tmp_path: Path
) -> None:
    with vllm_stand_in(Vllm()) as one, vllm_stand_in(Vllm()) as other:
        await client.load("m", declared(tmp_path / "m", checkpoint, one, other))
    errors = await asyncio.gather(*(refused(client.reward.ScoreGroup(group(TEXTS))) for _ in range(5)))
    assert {error.code() for error in errors} == {grpc.StatusCode.UNAVAILABLE}
    assert all(address in str(errors[0].details()) for address in (one, other))


async def test_a_deadline_ends_the_waiting_for_a_server(client: RewardClient, checkpoint: Path, tmp_path: Path) -> None:
    vllm = Vllm(holds=threading.Event())
    with vllm_stand_in(vllm) as address:
        await client.load("m", declared(tmp_path / "m", checkpoint, address))
        error = await refused(client.reward.ScoreGroup(group(TEXTS), timeout=0.5))
        vllm.holds.set()
        after = await client.reward.ScoreGroup(group(TEXTS))
    assert error.code() is grpc.StatusCode.DEADLINE_EXCEEDED and len(after.scores) == len(TEXTS)


async def test_a_server_that_gives_no_answer_in_time_counts_as_away(client: RewardClient, checkpoint: Path, tmp_path: Path) -> None:
    hanging, living = Vllm(holds=threading.Event()), Vllm()
    with vllm_stand_in(hanging) as one, vllm_stand_in(living) as other:
        await client.load("m", declared(tmp_path / "m", checkpoint, one, other, request_timeout_seconds=0.2))
        reply = await client.reward.ScoreBatch(tokens([5, 6]))
        hanging.holds.set()
    assert raws(reply) == pytest.approx([score_of([5, 6])]) and len(living.asked()) == 1


async def test_a_server_that_comes_back_with_another_checkpoint_is_not_let_in(
    client: RewardClient, checkpoint: Path, tmp_path: Path
) -> None:
    vllm = Vllm()
    with vllm_stand_in(vllm) as address:
        await client.load("m", declared(tmp_path / "m", checkpoint, address))
        vllm.off_by, vllm.failures = 0.5, [503]
        error = await refused(client.reward.ScoreBatch(tokens([5, 6])))
    assert error.code() is grpc.StatusCode.UNAVAILABLE and "another checkpoint" in str(error.details())


async def test_what_a_server_refuses_is_an_error_of_its_items_and_nobody_elses(
    client: RewardClient, checkpoint: Path, tmp_path: Path
) -> None:
    vllm = Vllm()
    with vllm_stand_in(vllm) as address:
        await client.load("m", declared(tmp_path / "m", checkpoint, address, max_outstanding_tokens=100))
        vllm.max_model_len = 50
        reply = await client.reward.ScoreBatch(tokens([5] * 10, [6] * 95))
    assert reply.results[0].score.raw == pytest.approx(score_of([5] * 10))
    assert reply.results[1].error.code == grpc.StatusCode.FAILED_PRECONDITION.value[0]
    assert "maximum context length is 50" in reply.results[1].error.message


# Loading


@pytest.mark.parametrize(
    ("behaviour", "code", "said"),
    [
        (Vllm(serves="other"), grpc.StatusCode.FAILED_PRECONDITION, "serves other, not rm"),
        (Vllm(knows_use_activation=False), grpc.StatusCode.FAILED_PRECONDITION, "puts an activation on"),
        (Vllm(labels=2), grpc.StatusCode.FAILED_PRECONDITION, "gives 2 labels"),
        (Vllm(api_key="secret"), grpc.StatusCode.FAILED_PRECONDITION, "api_key_env"),
        (Vllm(healthy=False), grpc.StatusCode.UNAVAILABLE, "says 503 to /health"),
    ],
    ids=["another model", "activation", "labels", "key", "ill"],
)
async def test_a_server_that_is_not_what_is_declared_is_refused_at_load(
    client: RewardClient, checkpoint: Path, tmp_path: Path, behaviour: Vllm, code: grpc.StatusCode, said: str
) -> None:
    with vllm_stand_in(behaviour) as address:
        error = await refused(client.load("m", declared(tmp_path / "m", checkpoint, address)))
    assert error.code() is code and said in str(error.details())


async def test_servers_that_score_otherwise_than_each_other_are_refused_at_load(
    client: RewardClient, checkpoint: Path, tmp_path: Path
) -> None:
    with vllm_stand_in(Vllm()) as one, vllm_stand_in(Vllm(off_by=0.25)) as other:
        error = await refused(client.load("m", declared(tmp_path / "m", checkpoint, one, other)))
    assert error.code() is grpc.StatusCode.FAILED_PRECONDITION and "another checkpoint" in str(error.details())


async def test_a_model_loads_while_one_of_its_servers_is_away(client: RewardClient, checkpoint: Path, tmp_path: Path) -> None:
    with vllm_stand_in(Vllm()) as gone:
        pass
    vllm = Vllm()
    with vllm_stand_in(vllm) as there:
        await client.load("m", declared(tmp_path / "m", checkpoint, gone, there))
        assert raws(await client.reward.ScoreBatch(tokens([5, 6]))) == pytest.approx([score_of([5, 6])])


async def test_the_shorter_of_what_servers_and_checkpoint_take_is_the_limit(client: RewardClient, checkpoint: Path, tmp_path: Path) -> None:
    vllm = Vllm(max_model_len=48)
    with vllm_stand_in(vllm) as address:
        info = await client.load("m", declared(tmp_path / "m", checkpoint, address))
        error = await refused(client.reward.ScoreGroup(group(["Knead it well. " * 20])))
        options = reward_pb2.ScoreOptions(truncation=reward_pb2.TRUNCATION_POLICY_RESPONSE_RIGHT)
        cut = await client.reward.ScoreGroup(group(["Knead it well. " * 20], options=options))
    assert info.max_input_tokens == 48 and "48 the model takes" in details(error)[0]["candidates[0].text"]
    assert cut.scores[0].truncated and [len(ids) for ids in vllm.asked()[0]] == [48]


async def test_a_key_is_sent_from_the_variable_that_is_declared(
    client: RewardClient, checkpoint: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("VLLM_API_KEY", "secret")
    with vllm_stand_in(Vllm(api_key="secret")) as address:
        await client.load("m", declared(tmp_path / "m", checkpoint, address, api_key_env="VLLM_API_KEY"))
        assert len(raws(await client.reward.ScoreBatch(tokens([5, 6])))) == 1


@pytest.mark.parametrize(
    ("fields", "said"),
    [
        ({"servers": []}, "servers"),
        ({"servers": ["localhost:8000"]}, "http://host:port"),
        ({"servers": ["http://a:1", "http://a:1/"]}, "each server is wanted once"),
        ({"api_key_env": "PATH"}, "api_key_env"),
        ({"api_key_env": "NOT_SET_API_KEY"}, "no such variable"),
        ({"max_outstanding_tokens": 0}, "max_outstanding_tokens"),
        ({"extra": 1}, "extra"),
    ],
)
async def test_a_declaration_that_is_wrong_is_refused_with_what_would_be_right(
    client: RewardClient, checkpoint: Path, tmp_path: Path, fields: dict[str, Any], said: str
) -> None:
    folder = declared(tmp_path / "m", checkpoint, "http://127.0.0.1:1", **fields)
    error = await refused(client.load("m", folder))
    assert error.code() is grpc.StatusCode.INVALID_ARGUMENT and said in details(error)[0]["uri"]


async def test_a_checkpoint_that_vllm_reads_at_another_position_is_refused(client: RewardClient, tmp_path: Path) -> None:
    checkpoint = write_tiny_reward_model(tmp_path / "bert", family="bert")
    error = await refused(client.load("m", declared(tmp_path / "m", checkpoint, "http://127.0.0.1:1")))
    assert error.code() is grpc.StatusCode.INVALID_ARGUMENT and "BertForSequenceClassification" in details(error)[0]["uri"]
