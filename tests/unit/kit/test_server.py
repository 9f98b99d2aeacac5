"""The server that each service runs, over real gRPC on loopback."""

import asyncio
import urllib.request

import grpc
import pytest
from google.rpc import error_details_pb2
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_status import rpc_status
from prometheus_client import REGISTRY, start_http_server

from assay.reward.v1 import reward_pb2, reward_pb2_grpc
from assay_kit.errors import FailedPrecondition, InvalidArgument, ResourceExhausted
from assay_kit.server import App, Door, running
from assay_kit.settings import ServiceSettings, settings_or_complaint

SERVICE = "assay.reward.v1.RewardService"


class Servicer(reward_pb2_grpc.RewardServiceServicer):
    async def GetModel(self, request, context):
        name = request.model.name
        if name == "bad":
            raise InvalidArgument("model.name", "must not be 'bad'")
        if name == "full":
            raise ResourceExhausted("the queue is full", 1.5)
        if name == "card":
            raise FailedPrecondition("no quality card")
        if name == "bug":
            raise RuntimeError("a secret of the inside")
        return reward_pb2.GetModelResponse(model=reward_pb2.ModelInfo(name=name))

    async def ScoreStream(self, request_iterator, context):
        async for request in request_iterator:
            if not request.batch.items:
                raise InvalidArgument("batch.items", "must hold 1 to 4,096 items")
            yield reward_pb2.ScoreStreamResponse(request_id=request.batch.request_id)


def app(tmp_path, **more):
    door = Door(add=reward_pb2_grpc.add_RewardServiceServicer_to_server, servicer=Servicer(), service_name=SERVICE)
    return App(name="reward", settings=ServiceSettings(data_dir=tmp_path, drain_seconds=5), doors=[door], **more)


@pytest.fixture
async def stub(tmp_path):
    async with running(app(tmp_path)) as target, grpc.aio.insecure_channel(target) as channel:
        yield reward_pb2_grpc.RewardServiceStub(channel)


async def failure_of(call) -> grpc.aio.AioRpcError:
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await call
    return caught.value


def ask(name):
    return reward_pb2.GetModelRequest(model={"name": name})


async def test_a_bad_field_is_invalid_argument_with_the_field_named(stub):
    error = await failure_of(stub.GetModel(ask("bad")))
    assert error.code() is grpc.StatusCode.INVALID_ARGUMENT
    details = error_details_pb2.BadRequest()
    status = await rpc_status_of(error)
    assert status.details[0].Unpack(details)
    assert details.field_violations[0].field == "model.name"
    assert details.field_violations[0].description == "must not be 'bad'"


async def rpc_status_of(error):
    class Call:
        def code(self):
            return error.code()

        def details(self):
            return error.details()

        def trailing_metadata(self):
            return error.trailing_metadata()

    return rpc_status.from_call(Call())


async def test_no_room_says_when_to_try_again(stub):
    error = await failure_of(stub.GetModel(ask("full")))
    assert error.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
    retry = error_details_pb2.RetryInfo()
    assert (await rpc_status_of(error)).details[0].Unpack(retry)
    assert retry.retry_delay.ToTimedelta().total_seconds() == 1.5


async def test_an_error_that_is_not_ours_leaks_nothing(stub):
    error = await failure_of(stub.GetModel(ask("bug")))
    assert error.code() is grpc.StatusCode.INTERNAL
    assert "secret" not in error.details()


async def test_an_error_inside_a_stream_has_its_code(stub):
    async def requests():
        yield reward_pb2.ScoreStreamRequest(batch={"request_id": "a", "items": [{"raw_text": "x"}]})
        yield reward_pb2.ScoreStreamRequest(batch={"request_id": "b"})

    seen = []
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        async for response in stub.ScoreStream(requests()):
            seen.append(response.request_id)
    assert seen == ["a"]
    assert caught.value.code() is grpc.StatusCode.INVALID_ARGUMENT


async def test_metrics_count_calls_by_code(stub):
    def count(code):
        labels = {"grpc_type": "unary", "grpc_service": SERVICE, "grpc_method": "GetModel", "grpc_code": code}
        return REGISTRY.get_sample_value("grpc_server_handled_total", labels) or 0

    before = count("OK"), count("FailedPrecondition")
    await stub.GetModel(ask("x"))
    await failure_of(stub.GetModel(ask("card")))
    assert (count("OK"), count("FailedPrecondition")) == (before[0] + 1, before[1] + 1)
    server, thread = start_http_server(0, "127.0.0.1")
    page = await asyncio.to_thread(lambda: urllib.request.urlopen(f"http://127.0.0.1:{server.server_port}/metrics").read().decode())
    server.shutdown()
    thread.join()
    assert "grpc_server_handling_seconds_bucket" in page


async def test_a_service_is_alive_before_it_is_ready_and_workers_start_after(tmp_path):
    order = []
    loading = asyncio.Event()
    loop = asyncio.get_running_loop()
    go_on = asyncio.Event()

    def startup():
        loop.call_soon_threadsafe(loading.set)
        asyncio.run_coroutine_threadsafe(go_on.wait(), loop).result()
        order.append("startup")

    class Worker:
        def start(self):
            order.append("start")

        def stop(self):
            order.append("stop")

    settings_port = free_port()
    made = app(tmp_path, startup=startup, shutdown=lambda: order.append("shutdown"), workers=[Worker()])
    made.settings.grpc_port = settings_port

    async def check(name):
        async with grpc.aio.insecure_channel(f"127.0.0.1:{settings_port}") as channel:
            answer = await health_pb2_grpc.HealthStub(channel).Check(health_pb2.HealthCheckRequest(service=name))
            return answer.status

    async def while_loading():
        await loading.wait()
        alive, ready = await check(""), await check(SERVICE)
        go_on.set()
        return alive, ready

    watch = asyncio.create_task(while_loading())
    async with running(made):
        assert await watch == (health_pb2.HealthCheckResponse.SERVING, health_pb2.HealthCheckResponse.NOT_SERVING)
        assert await check(SERVICE) == health_pb2.HealthCheckResponse.SERVING
    assert order == ["startup", "start", "stop", "shutdown"]


def free_port():
    import socket

    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def test_an_unknown_setting_is_refused_with_the_nearest_name():
    class RewardSettings(ServiceSettings):
        reward_queue_candidates: int = 10

    complaint = settings_or_complaint(RewardSettings, "reward", {"ASSAY_REWARD_QUEUE_CANDIDATE": "3", "ASSAY_POLICY_X": "1"})
    assert complaint == ("ASSAY_REWARD_QUEUE_CANDIDATE is no setting of the reward service; did you mean ASSAY_REWARD_QUEUE_CANDIDATES?")


def test_a_bad_value_is_one_line_with_the_name(monkeypatch):
    monkeypatch.setenv("ASSAY_GRPC_PORT", "seventy")
    complaint = settings_or_complaint(ServiceSettings, "reward", {})
    assert isinstance(complaint, str)
    assert complaint.startswith("ASSAY_GRPC_PORT='seventy':")
    assert "\n" not in complaint


async def test_health_has_a_port_of_its_own_from_before_the_start_to_the_end_of_the_drain(tmp_path):
    seen = {}
    loop = asyncio.get_running_loop()
    made = app(tmp_path)
    made.settings.health_port = free_port()

    async def check(when):
        async with grpc.aio.insecure_channel(f"127.0.0.1:{made.settings.health_port}") as channel:
            stub = health_pb2_grpc.HealthStub(channel)
            seen[when] = [(await stub.Check(health_pb2.HealthCheckRequest(service=name))).status for name in ("", SERVICE)]

    def check_at(when):
        return lambda: asyncio.run_coroutine_threadsafe(check(when), loop).result()

    made.startup, made.shutdown = check_at("start"), check_at("end")
    async with running(made):
        await check("between")
        assert made.health == f"127.0.0.1:{made.settings.health_port}"
    serving, not_serving = health_pb2.HealthCheckResponse.SERVING, health_pb2.HealthCheckResponse.NOT_SERVING
    assert seen == {"start": [serving, not_serving], "between": [serving, serving], "end": [serving, not_serving]}
