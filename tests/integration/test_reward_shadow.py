"""A candidate beside a model, through the real doors."""

import asyncio
import itertools
import urllib.request
from collections.abc import AsyncIterator
from pathlib import Path

import grpc
import pytest
import pytest_asyncio
from prometheus_client import start_http_server
from support.reward_service import RewardClient, details, group, item, reward_service, selector
from support.tiny_models import write_tiny_reward_model

from assay.reward.v1 import reward_pb2
from assay_reward.statistics import rate

QUESTIONS = 12
TEXTS = [f"answer {index} " + "word " * index for index in range(5)]


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("models")
    for seed in (0, 1):
        write_tiny_reward_model(folder / str(seed), seed=seed)
    write_tiny_reward_model(folder / "bert", family="bert")
    return folder


@pytest_asyncio.fixture
async def client(tmp_path: Path, models: Path) -> AsyncIterator[RewardClient]:
    async with reward_service(tmp_path / "reward") as client:
        await client.load("current", models / "0")
        await client.load("other", models / "1")
        yield client


async def shadowed(client: RewardClient, candidate: str, **fields: object) -> reward_pb2.SetShadowResponse:
    request = reward_pb2.SetShadowRequest(candidate=selector(candidate), **fields)  # type: ignore[arg-type]
    return await client.admin.SetShadow(request)


async def traffic(client: RewardClient, model: str = "current", questions: int = QUESTIONS) -> list[list[float]]:
    replies = [await client.reward.ScoreGroup(group(TEXTS, f"What about {number}?", model=selector(model))) for number in range(questions)]
    return [[score.raw for score in reply.scores] for reply in replies]


async def report(client: RewardClient, calls: int) -> reward_pb2.ShadowReport:
    """The report once all calls have come to an end."""
    async with asyncio.timeout(60):
        while True:
            found = (await client.admin.GetShadow(reward_pb2.GetShadowRequest())).report
            if found.calls_compared + found.calls_skipped + found.calls_failed == calls:
                return found
            await asyncio.sleep(0.02)


async def refused(call: object) -> tuple[grpc.StatusCode, set[str]]:
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await call  # type: ignore[misc]
    return caught.value.code(), set(details(caught.value)[0])


async def test_a_model_beside_itself_turns_nothing_round(client: RewardClient, models: Path) -> None:
    await client.load("again", models / "0")
    await shadowed(client, "again")
    await traffic(client)
    found = await report(client, QUESTIONS)
    compared = found.calls_compared
    assert compared > 0 and found.calls_failed == 0 and found.calls_seen == QUESTIONS
    assert found.answers == compared * len(TEXTS)
    assert (found.flip_rate.value, found.flip_rate.low, found.flip_rate.n) == (0.0, 0.0, compared * 10)
    assert found.flip_rate.high == pytest.approx(rate(0, compared).high)  # a call counts as one, however many pairs it has
    assert found.rank_correlation.value == pytest.approx(1.0) and found.rank_correlation.n == found.answers
    assert found.standardized_difference.value == 0.0
    assert (found.best_agreement.value, found.best_agreement.n) == (1.0, compared)


async def test_another_model_is_compared_as_its_own_scores_say(client: RewardClient) -> None:
    before = await traffic(client)
    await shadowed(client, "other")
    during = []
    for number in range(QUESTIONS):  # one after the other, so that none is given up
        during.append([score.raw for score in (await client.reward.ScoreGroup(group(TEXTS, f"What about {number}?"))).scores])
        await report(client, number + 1)
    assert during == before  # callers get what they got
    found = await report(client, QUESTIONS)
    theirs = await traffic(client, "other")
    pairs = [
        (a[i] < a[j], b[i] < b[j]) for a, b in zip(during, theirs, strict=True) for i, j in itertools.combinations(range(len(TEXTS)), 2)
    ]
    flips = sum(ours != other for ours, other in pairs)
    assert 0 < flips < len(pairs)
    assert found.flip_rate.n == len(pairs) and found.flip_rate.value == pytest.approx(flips / len(pairs))
    assert found.flip_rate.low < found.flip_rate.value < found.flip_rate.high
    agreed = sum(a.index(max(a)) == b.index(max(b)) for a, b in zip(during, theirs, strict=True))
    assert (found.best_agreement.n, found.best_agreement.value) == (QUESTIONS, pytest.approx(agreed / QUESTIONS))
    assert -1 < found.rank_correlation.low < found.rank_correlation.value < found.rank_correlation.high < 1
    assert found.standardized_difference.low > 0
    assert (found.model.model, found.candidate.model) == ("current", "other")
    server, _ = start_http_server(0, "127.0.0.1")
    try:
        url = f"http://127.0.0.1:{server.server_port}/metrics"
        page = await asyncio.to_thread(lambda: urllib.request.urlopen(url, timeout=10).read().decode())
        [line] = [line for line in page.splitlines() if line.startswith("assay_reward_shadow_flip_rate{")]
        assert 'candidate="other"' in line and float(line.split()[-1]) == pytest.approx(found.flip_rate.value)
        ended = await shadowed(client, "")
        assert ended.previous.flip_rate == found.flip_rate and not ended.HasField("current")
        page = await asyncio.to_thread(lambda: urllib.request.urlopen(url, timeout=10).read().decode())
        assert "assay_reward_shadow_flip_rate{" not in page
    finally:
        server.shutdown()
    assert (await refused(client.admin.GetShadow(reward_pb2.GetShadowRequest())))[0] is grpc.StatusCode.NOT_FOUND


async def test_pairs_of_a_batch_are_held_against_each_other_by_conversation(client: RewardClient) -> None:
    await shadowed(client, "other")
    items = [item(text, question) for question in ("One?", "Two?") for text in TEXTS[:2]]
    items.append(reward_pb2.ScoreItem(raw_text="alone"))
    items.append(reward_pb2.ScoreItem(id="nothing"))
    await client.reward.ScoreBatch(reward_pb2.ScoreBatchRequest(items=items))
    found = await report(client, 1)
    assert (found.answers, found.flip_rate.n, found.best_agreement.n) == (5, 2, 2)


async def test_only_the_share_that_was_asked_for_is_drawn_and_the_window_is_kept(client: RewardClient) -> None:
    current = (await shadowed(client, "other", share=1e-9, window=100)).current
    assert current.share == 1e-9 and current.window == 100 and not current.HasField("flip_rate")
    await traffic(client)
    assert (await report(client, 0)).calls_seen == QUESTIONS
    again = await shadowed(client, "other", window=100)
    assert again.previous.calls_seen == QUESTIONS and again.current.calls_seen == 0
    for number in range(25):
        await traffic(client, questions=1)
        found = await report(client, number + 1)
    assert found.calls_compared == 25 and found.answers == 100


async def test_a_candidate_that_cannot_score_is_told_of_and_costs_the_callers_nothing(client: RewardClient) -> None:
    await shadowed(client, "other")
    await client.admin.UnloadModel(reward_pb2.UnloadModelRequest(model=selector("other")))
    await traffic(client)
    found = await report(client, QUESTIONS)
    assert found.calls_failed > 0 and found.calls_compared == 0
    assert "other" in found.last_failure


async def test_other_weights_under_the_name_end_the_comparison(client: RewardClient, models: Path) -> None:
    await shadowed(client, "other")
    await client.load("current", models / "bert")
    await traffic(client, questions=1)
    code, _ = await refused(client.admin.GetShadow(reward_pb2.GetShadowRequest()))
    assert code is grpc.StatusCode.NOT_FOUND


@pytest.mark.parametrize(
    ("fields", "wrong"),
    [
        ({"share": 0.0}, {"share"}),
        ({"share": 1.5}, {"share"}),
        ({"share": float("nan"), "window": 5}, {"share", "window"}),
        ({"window": 2_000_000}, {"window"}),
    ],
)
async def test_a_bad_field_is_named(client: RewardClient, fields: dict[str, float], wrong: set[str]) -> None:
    assert await refused(shadowed(client, "other", **fields)) == (grpc.StatusCode.INVALID_ARGUMENT, wrong)


async def test_a_candidate_that_is_not_loaded_is_not_found(client: RewardClient) -> None:
    assert await refused(shadowed(client, "nobody")) == (grpc.StatusCode.NOT_FOUND, {"candidate.name"})


async def test_room_that_callers_could_need_is_left_to_them(tmp_path: Path, models: Path) -> None:
    async with reward_service(tmp_path / "small", reward_queue_candidates=8) as client:
        await client.load("current", models / "0")
        await client.load("other", models / "1")
        await shadowed(client, "other")
        await traffic(client, questions=3)
        found = await report(client, 3)
        assert (found.calls_skipped, found.calls_compared, found.calls_failed) == (3, 0, 0)
        await client.reward.ScoreGroup(group(TEXTS[:4]))
        assert (await report(client, 4)).calls_compared == 1
