import asyncio
import urllib.request
from collections.abc import AsyncIterator
from pathlib import Path

import grpc
import numpy as np
import pytest
import pytest_asyncio
from prometheus_client import start_http_server
from support.reward_service import ASSISTANT, USER, RewardClient, conversation, details, group, item, reward_service, selector
from support.tiny_models import write_tiny_causal_lm, write_tiny_reward_model

from assay.common.v1 import common_pb2
from assay.reward.v1 import reward_pb2
from assay_data.bag_of_words import BagOfWordsModel
from assay_data.fingerprints import fingerprint_folder

INVALID = grpc.StatusCode.INVALID_ARGUMENT


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("models")
    write_tiny_reward_model(folder / "llama")
    write_tiny_reward_model(folder / "two-labels", num_labels=2)
    write_tiny_causal_lm(folder / "causal")
    BagOfWordsModel(vocabulary=("bread", "flour"), idf=np.ones(2), weights=np.array([1.0, -2.0]), mean=0.0, std=1.0).save(folder / "gold")
    return folder


@pytest_asyncio.fixture
async def client(tmp_path: Path, models: Path) -> AsyncIterator[RewardClient]:
    async with reward_service(tmp_path / "reward") as client:
        await client.load("rm", models / "llama")
        yield client


async def refused(call: object) -> tuple[grpc.StatusCode, dict[str, str], str]:
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await call  # type: ignore[misc]
    return caught.value.code(), details(caught.value)[0], str(caught.value.details())


async def test_a_group_is_scored_with_provenance_and_usage(client: RewardClient, models: Path) -> None:
    texts = ["Mix flour.", "", "Mix flour.", "No."]
    reply = await client.reward.ScoreGroup(group(texts, request_id="r1"))
    assert [score.id for score in reply.scores] == ["c0", "c1", "c2", "c3"]
    assert reply.request_id == "r1"
    assert all(score.value == score.raw and score.scale == reward_pb2.SCORE_SCALE_RAW for score in reply.scores)
    assert reply.scores[0].raw == reply.scores[2].raw != reply.scores[1].raw
    assert reply.scores[reply.best_index].raw == max(score.raw for score in reply.scores)
    found = fingerprint_folder(models / "llama")
    assert reply.provenance.weights_sha256 == found.weights_sha256
    assert reply.provenance.fingerprint == found.fingerprint
    assert reply.provenance.model == "rm" and reply.provenance.revision == found.fingerprint[:12]
    assert reply.provenance.dtype == "float32" and not reply.provenance.has_quality_card
    lengths = [score.prompt_tokens + score.response_tokens for score in reply.scores]
    assert reply.usage.useful_tokens == sum(lengths)
    # Equal candidates are computed once, and so is what different ones begin with.
    assert max(lengths) <= reply.usage.computed_tokens < sum(lengths) - lengths[2]
    assert reply.usage.padded_tokens == 0
    assert reply.usage.batch_sequences == 3
    assert reply.usage.compute_time.ToNanoseconds() > 0


async def test_best_is_the_first_of_equals(client: RewardClient) -> None:
    assert (await client.reward.ScoreGroup(group(["same", "same", "same"]))).best_index == 0


async def test_a_batch_and_a_group_and_many_calls_at_once_give_the_same_bits(client: RewardClient) -> None:
    texts = [f"answer {index} " + "word " * (index % 17) for index in range(40)]
    alone = {text: (await client.reward.ScoreGroup(group([text]))).scores[0].raw for text in texts}
    replies = await asyncio.gather(
        client.reward.ScoreGroup(group(texts)),
        client.reward.ScoreGroup(group(texts[::-1])),
        *(client.reward.ScoreGroup(group(texts[index : index + 3])) for index in range(30)),
    )
    assert [score.raw for score in replies[0].scores] == [alone[text] for text in texts]
    assert [score.raw for score in replies[1].scores] == [alone[text] for text in texts[::-1]]
    for index, reply in enumerate(replies[2:]):
        assert [score.raw for score in reply.scores] == [alone[text] for text in texts[index : index + 3]]
    batch = await client.reward.ScoreBatch(reward_pb2.ScoreBatchRequest(items=[item(text) for text in texts]))
    assert [result.score.raw for result in batch.results] == [alone[text] for text in texts]


async def test_a_batch_has_an_error_for_the_item_that_is_wrong_and_scores_for_its_neighbours(client: RewardClient) -> None:
    items = [
        item("fine", id="a"),
        reward_pb2.ScoreItem(id="b", conversation=conversation((USER, "no answer"))),
        reward_pb2.ScoreItem(id="c"),
        reward_pb2.ScoreItem(id="d", tokens=common_pb2.TokenSequence(ids=[70_000])),
        item("word " * 600, id="e"),
        reward_pb2.ScoreItem(id="f", conversation=common_pb2.Conversation(messages=[common_pb2.Message(role=0, content="x")])),
        reward_pb2.ScoreItem(id="g", raw_text="fine too"),
        item("x" * 2_000_000, id="h"),
    ]
    reply = await client.reward.ScoreBatch(reward_pb2.ScoreBatchRequest(items=items))
    assert [result.id for result in reply.results] == list("abcdefgh")
    assert [result.WhichOneof("outcome") for result in reply.results] == ["score", *["error"] * 5, "score", "error"]
    errors = {result.id: result.error for result in reply.results if result.HasField("error")}
    assert {error.code for error in errors.values()} == {INVALID.value[0]}
    assert {identity: error.field for identity, error in errors.items()} == {
        "b": "items[1].conversation.messages[0].role",
        "c": "items[2].conversation",
        "d": "items[3].tokens",
        "e": "items[4].conversation",
        "f": "items[5].conversation.messages[0].role",
        "h": "items[7].conversation.messages",
    }


async def test_a_stream_answers_every_batch_by_its_id(client: RewardClient) -> None:
    batches = [
        reward_pb2.ScoreStreamRequest(batch=reward_pb2.ScoreBatchRequest(items=[item(f"answer {index}")] * 3, request_id=str(index)))
        for index in range(50)
    ]
    batches.append(reward_pb2.ScoreStreamRequest(batch=reward_pb2.ScoreBatchRequest(request_id="empty")))
    replies = {reply.request_id: reply async for reply in client.reward.ScoreStream(iter(batches))}
    assert len(replies) == 51
    assert replies["empty"].error.code == INVALID.value[0] and replies["empty"].error.field == "batch.items"
    for index in (0, 17, 49):
        alone = await client.reward.ScoreGroup(group([f"answer {index}"]))
        assert [result.score.raw for result in replies[str(index)].batch.results] == [alone.scores[0].raw] * 3


async def test_an_answer_as_tokens_of_what_render_prompt_shows_scores_the_same(client: RewardClient) -> None:
    rendered = await client.reward.RenderPrompt(
        reward_pb2.RenderPromptRequest(conversation=conversation((USER, "How do I bake bread?"), (ASSISTANT, "Mix.")))
    )
    assert rendered.text == "\n\nHuman: How do I bake bread?\n\nAssistant: Mix.<|eos|>"
    assert not rendered.truncated and list(rendered.warnings) == []
    by_tokens = await client.reward.ScoreBatch(reward_pb2.ScoreBatchRequest(items=[reward_pb2.ScoreItem(tokens=rendered.tokens)]))
    by_text = await client.reward.ScoreGroup(group(["Mix."]))
    assert by_tokens.results[0].score.raw == by_text.scores[0].raw


async def test_truncation_is_refused_by_default_and_reported_when_asked_for(client: RewardClient) -> None:
    long = group(["short", "word " * 600])
    code, violations, _ = await refused(client.reward.ScoreGroup(long))
    assert code is INVALID and list(violations) == ["candidates[1].text"] and "RESPONSE_RIGHT" in violations["candidates[1].text"]
    long.options.truncation = reward_pb2.TRUNCATION_POLICY_RESPONSE_RIGHT
    reply = await client.reward.ScoreGroup(long)
    assert [score.truncated for score in reply.scores] == [False, True]
    assert reply.scores[1].tokens_dropped > 0 and reply.scores[1].prompt_tokens + reply.scores[1].response_tokens == 512


@pytest.mark.parametrize(
    ("change", "field"),
    [
        (lambda r: r.ClearField("conversation"), "conversation"),
        (lambda r: r.conversation.ClearField("messages"), "conversation.messages"),
        (lambda r: r.conversation.messages.add(role=ASSISTANT, content="x"), "conversation.messages[1].role"),
        (lambda r: r.conversation.messages.add(content="x"), "conversation.messages[1].role"),
        (lambda r: r.ClearField("candidates"), "candidates"),
        (lambda r: r.candidates.extend([reward_pb2.Candidate(text="x")] * 300), "candidates"),
        (lambda r: r.candidates.add(id="nothing"), "candidates[2].text"),
        (lambda r: r.candidates.add(text="x", id="i" * 300), "candidates[2].id"),
        (lambda r: r.candidates.add(text="x" * 2_000_000), "candidates[2].text"),
        (lambda r: r.candidates.add(tokens=common_pb2.TokenSequence(ids=[2**31])), "candidates[2].tokens"),
        (lambda r: r.context_tokens.ids.append(3), "candidates[0].text"),
        (lambda r: r.context_tokens.SetInParent(), "context_tokens.ids"),
        (lambda r: setattr(r.options, "scale", 77), "options.scale"),
        (lambda r: setattr(r.options, "truncation", 77), "options.truncation"),
        (lambda r: setattr(r.options, "priority", 77), "options.priority"),
        (lambda r: setattr(r, "request_id", "r" * 300), "request_id"),
    ],
)
async def test_a_bad_field_of_a_group_is_named(client: RewardClient, change: object, field: str) -> None:
    request = group(["one", "two"])
    change(request)  # type: ignore[operator]
    code, violations, _ = await refused(client.reward.ScoreGroup(request))
    assert code is INVALID
    assert field in violations


async def test_all_bad_fields_are_named_at_once(client: RewardClient) -> None:
    request = group([])
    request.options.scale = 77  # type: ignore[assignment]
    request.conversation.ClearField("messages")
    _, violations, _ = await refused(client.reward.ScoreGroup(request))
    assert set(violations) == {"candidates", "options.scale", "conversation.messages"}


async def test_an_unknown_model_or_revision_is_not_found_and_says_what_there_is(client: RewardClient) -> None:
    for call in (
        client.reward.ScoreGroup(group(["x"], model=selector("nobody"))),
        client.reward.ScoreBatch(reward_pb2.ScoreBatchRequest(items=[item("x")], model=selector("nobody"))),
        client.reward.GetModel(reward_pb2.GetModelRequest(model=selector("nobody"))),
        client.admin.UnloadModel(reward_pb2.UnloadModelRequest(model=selector("nobody"))),
        client.admin.SetAlias(reward_pb2.SetAliasRequest(alias="best", model=selector("nobody"))),
    ):
        code, violations, message = await refused(call)
        assert code is grpc.StatusCode.NOT_FOUND and "rm" in message and list(violations) == ["model.name"]
    code, violations, _ = await refused(client.reward.ScoreGroup(group(["x"], model=selector("rm", "v9"))))
    assert code is grpc.StatusCode.NOT_FOUND and list(violations) == ["model.revision"]


async def test_scales_of_a_quality_card_are_refused_without_one(client: RewardClient) -> None:
    for scale in (reward_pb2.SCORE_SCALE_STANDARDIZED, reward_pb2.SCORE_SCALE_CALIBRATED, reward_pb2.SCORE_SCALE_LENGTH_CORRECTED):
        code, _, message = await refused(client.reward.ScoreGroup(group(["x"], options=reward_pb2.ScoreOptions(scale=scale))))
        assert code is grpc.StatusCode.FAILED_PRECONDITION and "quality card" in message
    [score] = (await client.reward.ScoreGroup(group(["x"]))).scores
    assert not any(score.HasField(name) for name in ("standardized", "win_probability", "length_corrected", "stddev"))
    assert not score.members and not score.from_cache


async def test_models_are_loaded_listed_aliased_and_unloaded(client: RewardClient, models: Path) -> None:
    gold = await client.load("gold", models / "gold")
    assert gold.kind == "bag_of_words" and gold.state == reward_pb2.MODEL_STATE_READY
    listed = (await client.reward.ListModels(reward_pb2.ListModelsRequest())).models
    assert [(model.name, model.kind, list(model.aliases)) for model in listed] == [
        ("gold", "bag_of_words", []),
        ("rm", "sequence_classifier", ["default"]),
    ]
    assert listed[1].architecture == "LlamaForSequenceClassification" and listed[1].max_input_tokens == 512
    answer = await client.admin.SetAlias(reward_pb2.SetAliasRequest(alias="default", model=selector("gold")))
    assert (answer.previous.name, answer.current.name) == ("rm", "gold")
    reply = await client.reward.ScoreGroup(group(["bread", "flour", "neither"]))
    assert reply.provenance.model == "gold" and reply.best_index == 0
    assert [score.raw for score in reply.scores] == pytest.approx([1 / 7, -2 / 7, 0.0])
    assert (await client.reward.ScoreGroup(group(["bread"], model=selector("rm")))).provenance.model == "rm"
    await client.admin.UnloadModel(reward_pb2.UnloadModelRequest(model=selector("gold")))
    code, _, message = await refused(client.reward.ScoreGroup(group(["bread"])))
    assert code is grpc.StatusCode.NOT_FOUND and "set the alias" in message


async def test_a_bag_of_words_takes_text_only(client: RewardClient, models: Path) -> None:
    await client.load("gold", models / "gold")
    request = group(["bread"], model=selector("gold"))
    request.candidates.add(tokens=common_pb2.TokenSequence(ids=[1]))
    code, violations, _ = await refused(client.reward.ScoreGroup(request))
    assert code is INVALID and list(violations) == ["candidates[1].tokens"]
    rendered = await client.reward.RenderPrompt(
        reward_pb2.RenderPromptRequest(model=selector("gold"), conversation=conversation((USER, "q"), (ASSISTANT, " bread ")))
    )
    assert rendered.text == " bread " and not rendered.tokens.ids
    code, violations, _ = await refused(
        client.reward.RenderPrompt(reward_pb2.RenderPromptRequest(model=selector("gold"), conversation=conversation((USER, "q"))))
    )
    assert code is INVALID and list(violations) == ["conversation.messages[0].role"]


@pytest.mark.parametrize(
    ("folder", "code", "wanted"),
    [
        ("nowhere", grpc.StatusCode.NOT_FOUND, "no such"),
        ("two-labels", INVALID, "reward_heads.json"),
        ("causal", INVALID, "implicit_reward.json"),
        ("", INVALID, "config.json"),
    ],
)
async def test_a_uri_that_holds_no_reward_model_is_refused(
    client: RewardClient, models: Path, folder: str, code: grpc.StatusCode, wanted: str
) -> None:
    got, violations, _ = await refused(client.load("new", models / folder))
    assert got is code and list(violations) == ["uri"] and wanted in violations["uri"]
    listed = (await client.reward.ListModels(reward_pb2.ListModelsRequest())).models
    assert [model.name for model in listed] == ["rm"]


async def test_a_full_queue_is_resource_exhausted_with_the_time_to_come_again(tmp_path: Path, models: Path) -> None:
    async with reward_service(tmp_path / "reward", reward_queue_candidates=300) as client:
        await client.load("rm", models / "llama")
        texts = [f"answer {index} " + "word " * 60 for index in range(250)]
        calls = [asyncio.ensure_future(_code_of(client.reward.ScoreGroup(group(texts)))) for _ in range(4)]
        outcomes = await asyncio.gather(*calls)
        codes = [code for code, _ in outcomes]
        assert codes.count(grpc.StatusCode.OK) == 1 and codes.count(grpc.StatusCode.RESOURCE_EXHAUSTED) == 3
        retries = [retry for code, retry in outcomes if code is grpc.StatusCode.RESOURCE_EXHAUSTED]
        assert all(retry is not None and 0 < retry <= 30 for retry in retries)
        assert (await client.reward.ScoreGroup(group(texts[:3]))).scores


async def _code_of(call: object) -> tuple[grpc.StatusCode, float | None]:
    try:
        await call  # type: ignore[misc]
        return grpc.StatusCode.OK, None
    except grpc.aio.AioRpcError as error:
        return error.code(), details(error)[1]


async def test_a_call_that_goes_away_leaves_the_queue(client: RewardClient) -> None:
    texts = [f"answer {index} " + "word " * 60 for index in range(250)]
    first = asyncio.ensure_future(client.reward.ScoreGroup(group(texts)))
    await asyncio.sleep(0.05)
    code, _, _ = await refused(client.reward.ScoreGroup(group(texts), timeout=0.1))
    assert code is grpc.StatusCode.DEADLINE_EXCEEDED
    gone = client.reward.ScoreGroup(group(texts))
    await asyncio.sleep(0.05)
    gone.cancel()
    assert (await first).scores
    reply = await client.reward.ScoreGroup(group(["quick"]))
    assert reply.usage.queue_time.ToNanoseconds() < 1e9


async def test_an_interactive_call_goes_before_bulk(client: RewardClient) -> None:
    texts = [f"answer {index} " + "word " * 60 for index in range(250)]
    bulk = reward_pb2.ScoreOptions(priority=reward_pb2.PRIORITY_BULK)
    loads = [asyncio.ensure_future(client.reward.ScoreGroup(group(texts, question=str(n), options=bulk))) for n in range(3)]
    await asyncio.sleep(0.3)
    interactive = reward_pb2.ScoreOptions(priority=reward_pb2.PRIORITY_INTERACTIVE)
    await client.reward.ScoreGroup(group(["quick"], options=interactive))
    assert not loads[-1].done()
    await asyncio.gather(*loads)


async def test_metrics_tell_of_queue_models_and_scores(client: RewardClient) -> None:
    server, _ = start_http_server(0, "127.0.0.1")
    try:
        await client.reward.ScoreGroup(group(["one", "two"]))
        page = await asyncio.to_thread(
            lambda: urllib.request.urlopen(f"http://127.0.0.1:{server.server_port}/metrics", timeout=10).read().decode()
        )
    finally:
        server.shutdown()
    assert 'assay_reward_model_ready{model="rm",revision="' in page
    assert "assay_reward_queue_candidates 0.0" in page
    assert 'assay_reward_candidates_total{door="grpc",model="rm"}' in page
    assert 'assay_reward_score_count{model="rm",revision="' in page
    assert "assay_reward_compute_seconds_bucket" in page
    assert "assay_reward_model_accuracy{" not in page
