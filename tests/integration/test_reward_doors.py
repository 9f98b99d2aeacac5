"""The further doors to the reward service: the same text gets the same score through each, and what is wrong is said by name."""

import asyncio
import json
import math
from collections.abc import AsyncIterator
from pathlib import Path

import aiohttp
import grpc
import pytest
import pytest_asyncio
from prometheus_client import REGISTRY, generate_latest
from support.reward_doors import Doors, RawConnection, doors, texts_tensor
from support.reward_service import details, group, reward_service, selector
from support.tiny_models import write_tiny_reward_model

from assay.common.v1 import common_pb2
from assay.inference.v2 import open_inference_pb2 as oip
from assay.reward.v1 import reward_pb2
from assay_kit.kafka import EventProducer, KafkaConnection, ensure_topics
from assay_kit.topics import QUALITY_CARDS
from assay_reward.app import reward_app
from assay_reward.doors.http_server import HttpServer
from assay_reward.settings import RewardSettings

TEXTS = [
    "\n\nHuman: How do I bake bread?\n\nAssistant: Mix flour.<|eos|>",
    "  spaces before, a newline after\n",
    "\n",
    "Grüße, 世界, \U0001f35e\u200d\U0001f525, e\u0301",
    'a "quoted" \\ backslash \t tab \x00 nul',
    "word " * 90,
]


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    root = tmp_path_factory.mktemp("models")
    return {name: write_tiny_reward_model(root / name, seed=seed) for name, seed in (("rm", 21), ("other", 22))}


@pytest_asyncio.fixture
async def service(tmp_path: Path, folders: dict[str, Path]) -> AsyncIterator[Doors]:
    async with doors(tmp_path / "reward") as service:
        for name, folder in folders.items():
            await service.grpc.load(name, folder)
        yield service


async def batch_scores(service: Doors, texts: list[str], model: str = "rm") -> list[float]:
    items = [reward_pb2.ScoreItem(raw_text=text) for text in texts]
    reply = await service.grpc.reward.ScoreBatch(reward_pb2.ScoreBatchRequest(model=selector(model), items=items))
    return [result.score.raw for result in reply.results]


async def code_of(call: object) -> tuple[grpc.StatusCode, str, dict[str, str], float | None]:
    try:
        await call  # type: ignore[misc]
    except grpc.aio.AioRpcError as error:
        return error.code(), error.details() or "", *details(error)
    return grpc.StatusCode.OK, "", {}, None


async def test_the_same_text_has_the_same_score_through_every_door(service: Doors) -> None:
    expected = await batch_scores(service, TEXTS)
    assert len(set(expected)) == len(TEXTS)
    inferred = await service.inference.ModelInfer(oip.ModelInferRequest(model_name="rm", inputs=[texts_tensor("text", TEXTS)]))
    assert [(output.name, output.datatype, list(output.shape)) for output in inferred.outputs] == [("score", "FP64", [len(TEXTS)])]
    assert list(inferred.outputs[0].contents.fp64_contents) == expected
    status, rewards = await service.post("/get_reward?model=rm", {"query": TEXTS, "prompts": TEXTS, "labels": [None] * len(TEXTS)})
    assert (status, rewards) == (200, {"rewards": expected, "scores": expected, "extra_logs": {}})
    status, classes = await service.post("/classify", {"model": "rm", "input": TEXTS})
    assert status == 200 and [one["probs"] for one in classes["data"]] == [[score] for score in expected]
    for text, score in zip(TEXTS, expected, strict=True):  # and alone, where /classify takes a text that is no list
        assert (await service.post("/get_reward", {"query": [text]}))[1]["rewards"] == [score]
        assert (await service.post("/classify", {"input": text}))[1]["data"][0]["probs"] == [score]
    assert await batch_scores(service, TEXTS[:1], "other") != expected[:1]
    assert (await service.post("/get_reward?model=other", {"query": TEXTS[:1]}))[1]["rewards"] == await batch_scores(
        service, TEXTS[:1], "other"
    )


@pytest.mark.parametrize("name", ["response", "responses"])
@pytest.mark.parametrize("prompts", [1, 3])
async def test_a_prompt_with_responses_goes_through_the_chat_template(service: Doors, name: str, prompts: int) -> None:
    answers = ["Mix flour.", "", "Grüße \U0001f35e"]
    expected = [score.raw for score in (await service.grpc.reward.ScoreGroup(group(answers))).scores]
    inputs = [texts_tensor("prompt", ["How do I bake bread?"] * prompts), texts_tensor(name, answers)]
    reply = await service.inference.ModelInfer(oip.ModelInferRequest(inputs=inputs, id="seven"))
    assert list(reply.outputs[0].contents.fp64_contents) == expected
    assert (reply.id, reply.model_name) == ("seven", "rm")
    info = (await service.grpc.reward.GetModel(reward_pb2.GetModelRequest())).model
    assert reply.model_version == info.revision
    assert {key: value.string_param for key, value in reply.parameters.items()} == {"fingerprint": info.provenance.fingerprint}


async def test_the_inference_door_says_what_there_is(service: Doors) -> None:
    stub = service.inference
    assert (await stub.ServerLive(oip.ServerLiveRequest())).live
    assert (await stub.ServerReady(oip.ServerReadyRequest())).ready
    info = (await service.grpc.reward.GetModel(reward_pb2.GetModelRequest(model=selector("other")))).model
    for name, version, ready in (("other", "", True), ("default", "", True), ("other", info.revision, True), ("other", "2", False)):
        assert (await stub.ModelReady(oip.ModelReadyRequest(name=name, version=version))).ready is ready
    assert not (await stub.ModelReady(oip.ModelReadyRequest(name="nobody"))).ready
    assert (await stub.ServerMetadata(oip.ServerMetadataRequest())).name == "assay-reward"
    metadata = await stub.ModelMetadata(oip.ModelMetadataRequest(name="other"))
    assert (metadata.name, list(metadata.versions), metadata.platform) == ("other", [info.revision], "assay_sequence_classifier")
    assert [(one.name, one.datatype, list(one.shape)) for one in metadata.inputs] == [
        (name, "BYTES", [-1]) for name in ("text", "prompt", "response")
    ]
    assert [one.name for one in metadata.outputs] == ["score"]
    code, said, violations, _ = await code_of(stub.ModelMetadata(oip.ModelMetadataRequest(name="nobody")))
    assert code is grpc.StatusCode.NOT_FOUND and "rm" in said and violations


def wrong(*inputs: oip.ModelInferRequest.InferInputTensor, **fields: object) -> oip.ModelInferRequest:
    return oip.ModelInferRequest(inputs=inputs, **fields)  # type: ignore[arg-type]


def shaped(shape: list[int], datatype: str = "BYTES") -> oip.ModelInferRequest.InferInputTensor:
    return oip.ModelInferRequest.InferInputTensor(name="text", datatype=datatype, shape=shape)


ONE = texts_tensor("text", ["one"])
INVALID, NOT_FOUND = grpc.StatusCode.INVALID_ARGUMENT, grpc.StatusCode.NOT_FOUND
WRONG_INFERENCES = {
    "nothing": (wrong(), INVALID, ["inputs"]),
    "an unknown input": (wrong(texts_tensor("image", ["x"])), INVALID, ["inputs[0].name"]),
    "an input twice": (wrong(ONE, ONE), INVALID, ["inputs[1].name"]),
    "both spellings": (wrong(texts_tensor("response", ["x"]), texts_tensor("responses", ["x"])), INVALID, ["inputs[1].name"]),
    "a prompt alone": (wrong(texts_tensor("prompt", ["x"])), INVALID, ["inputs"]),
    "text and response": (wrong(ONE, texts_tensor("response", ["x"])), INVALID, ["inputs"]),
    "two prompts for three": (
        wrong(texts_tensor("prompt", ["a", "b"]), texts_tensor("response", ["x", "y", "z"])),
        INVALID,
        ["prompt"],
    ),
    "numbers": (wrong(shaped([1], "FP32")), INVALID, ["inputs[0].datatype"]),
    "a matrix": (wrong(shaped([2, 2])), INVALID, ["inputs[0].shape"]),
    "no elements": (wrong(shaped([0])), INVALID, ["inputs[0].shape"]),
    "a million elements": (wrong(shaped([1_000_000])), INVALID, ["inputs[0].shape"]),
    "fewer elements than said": (wrong(shaped([2]), raw_input_contents=[b"\x01\0\0\0x"]), INVALID, ["raw_input_contents"]),
    "a length beyond the end": (wrong(shaped([1]), raw_input_contents=[b"\xff\xff\xff\xffx"]), INVALID, ["raw_input_contents"]),
    "half a length": (wrong(shaped([1]), raw_input_contents=[b"\x01\0"]), INVALID, ["raw_input_contents"]),
    "raw contents for two": (wrong(shaped([1]), raw_input_contents=[b"", b""]), INVALID, ["raw_input_contents"]),
    "contents twice": (wrong(ONE, raw_input_contents=[b"\x01\0\0\0x"]), INVALID, ["inputs[0].contents"]),
    "no UTF-8": (wrong(texts_tensor("text", [b"fine", b"\xff"])), INVALID, ["text[1]"]),
    "an unknown output": (wrong(ONE, outputs=[{"name": "logits"}]), INVALID, ["outputs[0].name"]),
    "no quality card": (wrong(ONE, outputs=[{"name": "win_probability"}]), grpc.StatusCode.FAILED_PRECONDITION, []),
    "a parameter": (wrong(ONE, parameters={"top_k": oip.InferParameter(int64_param=1)}), INVALID, ["parameters[top_k]"]),
    "an unknown model": (wrong(ONE, model_name="nobody"), NOT_FOUND, ["model_name"]),
    "another version": (wrong(ONE, model_name="rm", model_version="2"), NOT_FOUND, ["model_version"]),
    "too long a text": (wrong(texts_tensor("text", ["fine", "word " * 600])), INVALID, ["text[1]"]),
}


@pytest.mark.parametrize("name", WRONG_INFERENCES)
async def test_a_wrong_inference_is_refused_with_what_is_wrong(service: Doors, name: str) -> None:
    request, expected, fields = WRONG_INFERENCES[name]
    code, said, violations, _ = await code_of(service.inference.ModelInfer(request))
    assert (code, list(violations)) == (expected, fields), said


async def test_classify_puts_the_logistic_function_on_scores_only_where_it_is_asked_to(service: Doors) -> None:
    raw = await batch_scores(service, TEXTS)
    status, body = await service.post("/classify", {"model": "rm", "input": TEXTS, "use_activation": True})
    assert status == 200
    assert [one["probs"][0] for one in body["data"]] == pytest.approx([1 / (1 + math.exp(-score)) for score in raw])
    assert (body["object"], body["model"]) == ("list", "rm") and body["id"].startswith("classify-") and body["created"] > 0
    assert [(one["index"], one["label"], one["num_classes"]) for one in body["data"]] == [(n, None, 1) for n in range(len(TEXTS))]
    assert body["usage"]["prompt_tokens"] == body["usage"]["total_tokens"] > len(TEXTS)


WRONG_POSTS = {
    "a field of another name": ("/get_reward", {"queries": ["x"]}, 422, "query"),
    "one more field": ("/classify", {"input": "x", "softmax": True}, 422, "softmax"),
    "a text that is no list": ("/get_reward", {"query": "x"}, 422, "query"),
    "a number among texts": ("/get_reward", {"query": ["x", 7]}, 422, "query[1]"),
    "token ids": ("/classify", {"input": [1, 2]}, 422, "input[0]"),
    "text for a truth value": ("/classify", {"input": "x", "use_activation": "no"}, 422, "use_activation"),
    "a list for a body": ("/classify", ["x"], 422, "body"),
    "no texts": ("/get_reward", {"query": []}, 400, "query"),
    "too many texts": ("/get_reward", {"query": ["x"] * 4097}, 400, "query"),
    "too long a text": ("/get_reward", {"query": ["fine", "word " * 600]}, 400, "query[1]"),
    "an unknown model": ("/classify", {"model": "nobody", "input": "x"}, 404, "model"),
    "an unknown model in the URL": ("/get_reward?model=nobody", {"query": ["x"]}, 404, "model"),
    "another revision": ("/get_reward?model=rm&revision=2", {"query": ["x"]}, 404, "revision"),
    "an unknown parameter": ("/get_reward?modle=rm", {"query": ["x"]}, 400, "modle"),
    "another path": ("/score", {"query": ["x"]}, 404, "path"),
}


@pytest.mark.parametrize("name", WRONG_POSTS)
async def test_a_wrong_post_is_refused_with_what_is_wrong(service: Doors, name: str) -> None:
    path, sent, expected, field = WRONG_POSTS[name]
    status, body = await service.post(path, sent)
    assert (status, body["error"]["param"], body["error"]["code"]) == (expected, field, expected), body
    assert body["error"]["message"] and body["error"]["type"]


@pytest.mark.parametrize("body", [b"", b"{", b'{"query": ["\xff"]}', b'{"query": ["\\ud800"]}', b'{"query": [NaN'])
async def test_a_body_that_is_no_json_is_a_bad_request(service: Doors, body: bytes) -> None:
    async with service.http.post(service.url + "/get_reward", data=body) as response:
        assert response.status == 400
        assert (await response.json())["error"]["param"] == "body"


async def test_another_method_and_a_compressed_body_are_not_taken(service: Doors) -> None:
    async with service.http.get(service.url + "/get_reward") as response:
        assert (response.status, response.headers["Allow"]) == (405, "POST")
    async with service.http.post(service.url + "/get_reward", data=b"x", headers={"Content-Encoding": "gzip"}) as response:
        assert response.status == 415

    async def pieces() -> AsyncIterator[bytes]:
        yield b'{"query": ["x"]}'

    async with service.http.post(service.url + "/get_reward", data=pieces()) as response:
        assert response.status == 411


async def test_a_body_that_is_too_large_is_refused_before_it_is_read(tmp_path: Path, folders: dict[str, Path]) -> None:
    async with doors(tmp_path / "reward", grpc_max_message_bytes=64 * 1024) as service:
        await service.grpc.load("rm", folders["rm"])
        sending = await RawConnection.post(service.url, "/get_reward", 10**12)
        assert await sending.status() == 413
        await sending.close()
        status, body = await service.post("/get_reward", {"query": ["x" * 64 * 1024]})
        assert (status, body["error"]["param"]) == (413, "content-length")
        body = json.dumps({"query": ["fine"]}).encode()
        async with service.http.post(service.url + "/get_reward", data=body + b" " * (64 * 1024 - len(body))) as response:
            assert response.status == 200


async def test_bodies_in_work_are_bounded_together(tmp_path: Path, folders: dict[str, Path]) -> None:
    half = 700 * 1024
    body = json.dumps({"query": ["fine"]}).encode()
    body += b" " * (half - len(body))
    async with doors(tmp_path / "reward", reward_queue_mib=1) as service:
        await service.grpc.load("rm", folders["rm"])
        slow = await RawConnection.post(service.url, "/get_reward", half)
        await slow.send(body[:-1])
        async with service.http.post(service.url + "/get_reward", data=body) as response:
            assert response.status == 429 and int(response.headers["Retry-After"]) >= 1
            assert (await response.json())["error"]["type"] == "RESOURCE_EXHAUSTED"
        await slow.send(body[-1:])
        assert await slow.status() == 200
        await slow.close()
        async with service.http.post(service.url + "/get_reward", data=body) as response:
            assert response.status == 200


async def test_a_full_queue_says_when_to_come_again_at_every_door(tmp_path: Path, folders: dict[str, Path]) -> None:
    texts = [f"answer {index} " + "word " * 60 for index in range(250)]
    async with doors(tmp_path / "reward", reward_queue_candidates=300) as service:
        await service.grpc.load("rm", folders["rm"])

        async def post(path: str, body: object) -> tuple[int, int | None]:
            async with service.http.post(service.url + path, json=body) as response:
                await response.read()
                return response.status, int(response.headers.get("Retry-After", 0)) or None

        infer = service.inference.ModelInfer(wrong(texts_tensor("text", texts)))
        outcomes = await asyncio.gather(
            code_of(infer), post("/get_reward", {"query": texts}), post("/classify", {"input": texts}), post("/classify", {"input": texts})
        )
        inferred, *posted = outcomes
        codes = [200 if inferred[0] is grpc.StatusCode.OK else 429, *(status for status, _ in posted)]
        assert sorted(codes) == [200, 429, 429, 429]
        assert inferred[0] is grpc.StatusCode.OK or (inferred[0] is grpc.StatusCode.RESOURCE_EXHAUSTED and inferred[3])
        assert all(retry for status, retry in posted if status == 429)
        assert (await service.post("/get_reward", {"query": ["x"]}))[0] == 200


async def test_a_caller_says_how_long_it_waits(service: Doors) -> None:
    slow = await RawConnection.post(service.url, "/get_reward", 100, "x-assay-timeout-seconds: 0.05")
    assert await slow.status() == 504
    await slow.close()
    texts = [f"answer {index} " + "word " * 60 for index in range(2000)]
    status, body = await service.post("/get_reward", {"query": texts}, **{"x-assay-timeout-seconds": "0.02"})
    assert status in (429, 504), body  # 429 where it is known beforehand that it cannot be in time
    for said in ("soon", "0", "-1", "nan", "inf"):
        status, body = await service.post("/get_reward", {"query": ["x"]}, **{"x-assay-timeout-seconds": said})
        assert (status, body["error"]["param"]) == (400, "x-assay-timeout-seconds")


async def test_a_caller_who_goes_away_takes_its_work_with_it(service: Doors) -> None:
    texts = [f"answer {index} " + "word " * 60 for index in range(2000)]
    body = json.dumps({"query": texts}).encode()
    for sent in (body[:100], body):
        gone = await RawConnection.post(service.url, "/get_reward", len(body))
        await gone.send(sent)
        await gone.close()
    async with asyncio.timeout(60):
        while 'assay_reward_http_requests_total{path="/get_reward",status="499"} 2.0' not in generate_latest(REGISTRY).decode():
            await asyncio.sleep(0.02)
    assert (await service.post("/get_reward", {"query": ["quick"]}))[0] == 200


async def test_metrics_tell_the_doors_apart(tmp_path: Path, folders: dict[str, Path]) -> None:
    async with doors(tmp_path / "reward") as service:
        await service.grpc.load("counted", folders["rm"])
        await batch_scores(service, ["one"], "counted")
        await service.inference.ModelInfer(wrong(texts_tensor("text", ["one", "two"])))
        await service.post("/get_reward", {"query": ["one", "two", "three"]})
        await service.post("/anything", {})
        page = generate_latest(REGISTRY).decode()
    for door, count in (("grpc", 1), ("oip", 2), ("http", 3)):
        assert f'assay_reward_candidates_total{{door="{door}",model="counted"}} {count}.0' in page
    assert 'assay_reward_http_requests_total{path="/get_reward",status="200"}' in page
    assert 'assay_reward_http_requests_total{path="other",status="404"}' in page and "/anything" not in page
    assert 'grpc_method="ModelInfer",grpc_service="inference.GRPCInferenceService"' in page


async def test_what_has_begun_is_answered_in_the_drain_and_nothing_more_is_taken(tmp_path: Path, folders: dict[str, Path]) -> None:
    body = json.dumps({"query": ["fine"]}).encode()
    service_of = doors(tmp_path / "reward")
    service = await service_of.__aenter__()
    await service.grpc.load("rm", folders["rm"])
    begun = await RawConnection.post(service.url, "/get_reward", len(body))
    kept = await RawConnection.post(service.url, "/get_reward", len(body))
    await kept.send(body)
    assert b"rewards" in await kept.answer(200)
    ending = asyncio.ensure_future(service_of.__aexit__(None, None, None))
    async with asyncio.timeout(20):
        while True:
            try:
                async with aiohttp.ClientSession() as session, session.post(service.url + "/get_reward", data=body) as response:
                    await response.read()
            except aiohttp.ClientError:
                break
    assert not ending.done()
    await kept.again("/get_reward", body)  # over a connection that was there before
    assert b"UNAVAILABLE" in await kept.answer(503)
    await begun.send(body)
    assert b"rewards" in await begun.answer(200)
    for connection in (kept, begun):
        assert await connection.reader.read() == b""  # closed after the answer
        await connection.close()
    await ending


def test_without_a_port_there_is_no_http_door(tmp_path: Path) -> None:
    workers = reward_app(RewardSettings(data_dir=tmp_path / "reward")).workers
    assert not [worker for worker in workers if isinstance(worker, HttpServer)]


async def test_a_port_that_is_taken_stops_the_start(tmp_path: Path) -> None:
    async with doors(tmp_path / "first") as service:
        port = int(service.url.rpartition(":")[2])
        with pytest.raises(OSError, match="in use"):
            async with reward_service(tmp_path / "second", reward_http_port=port):
                pass


async def test_win_probabilities_come_through_every_door_for_a_model_with_a_quality_card(
    tmp_path: Path, folders: dict[str, Path], kafka_bootstrap: str
) -> None:
    connection = KafkaConnection(kafka_bootstrap)
    await asyncio.to_thread(ensure_topics, connection)
    async with doors(tmp_path / "reward", kafka_bootstrap=kafka_bootstrap) as service:
        info = await service.grpc.load("rm", folders["rm"])
        card = common_pb2.QualityCard(fingerprint=info.provenance.fingerprint, model="rm", mean=0.5, std=2.0, temperature=4.0)
        card.calibration.id = "0123abcd"
        await asyncio.to_thread(publish, connection, card)
        async with asyncio.timeout(30):
            while not (await service.grpc.reward.GetModel(reward_pb2.GetModelRequest())).model.HasField("quality_card"):
                await asyncio.sleep(0.05)
        raw = await batch_scores(service, TEXTS)
        expected = pytest.approx([1 / (1 + math.exp(-(score - 0.5) / 4.0)) for score in raw])
        wanted = [{"name": "win_probability"}, {"name": "score"}]
        reply = await service.inference.ModelInfer(wrong(texts_tensor("text", TEXTS), outputs=wanted))
        assert [output.name for output in reply.outputs] == ["win_probability", "score"]
        assert list(reply.outputs[0].contents.fp64_contents) == expected and list(reply.outputs[1].contents.fp64_contents) == raw
        assert reply.parameters["calibration_id"].string_param == "0123abcd"
        metadata = await service.inference.ModelMetadata(oip.ModelMetadataRequest())
        assert [one.name for one in metadata.outputs] == ["score", "win_probability"]
        rewards = (await service.post("/get_reward", {"query": TEXTS}))[1]
        assert rewards["rewards"] == raw and rewards["extra_logs"]["win_probability"] == expected


def publish(connection: KafkaConnection, card: common_pb2.QualityCard) -> None:
    producer = EventProducer(connection, "test")
    try:
        producer.send(QUALITY_CARDS, card.fingerprint, card)
        producer.flush()
    finally:
        producer.close()
