"""What a trace says of calls; in a file of its own, since a process has one tracer provider."""

import grpc
import pytest
from opentelemetry import trace
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

from assay.reward.v1 import reward_pb2, reward_pb2_grpc
from assay_kit import interceptors
from assay_kit.errors import ResourceExhausted
from assay_kit.server import App, Door, running
from assay_kit.settings import ServiceSettings


class Outcomes(reward_pb2_grpc.RewardServiceServicer):
    async def GetModel(self, request, context):
        if request.model.name == "full":
            raise ResourceExhausted("no room", 0.5)
        if request.model.name == "broken":
            raise RuntimeError("inside")
        return reward_pb2.GetModelResponse()


@pytest.fixture
async def traced(tmp_path, monkeypatch):
    """Asks for a model by name, and gives the span of the call."""
    exporter = InMemorySpanExporter()
    provider = TracerProvider()
    provider.add_span_processor(SimpleSpanProcessor(exporter))
    monkeypatch.setattr(interceptors, "tracer", provider.get_tracer("test"))
    door = Door(add=reward_pb2_grpc.add_RewardServiceServicer_to_server, servicer=Outcomes(), service_name="assay.reward.v1.RewardService")
    app = App(name="reward", settings=ServiceSettings(data_dir=tmp_path), doors=[door])

    async def span(name):
        exporter.clear()
        try:
            await stub.GetModel(reward_pb2.GetModelRequest(model={"name": name}), timeout=10)
        except grpc.aio.AioRpcError as error:
            assert error.code() in (grpc.StatusCode.RESOURCE_EXHAUSTED, grpc.StatusCode.INTERNAL)
        [one] = exporter.get_finished_spans()
        return one

    async with running(app) as target, grpc.aio.insecure_channel(target) as channel:
        stub = reward_pb2_grpc.RewardServiceStub(channel)
        yield span


async def test_a_call_that_is_answered_has_a_span_without_complaint(traced):
    span = await traced("good")
    assert (span.name, span.status.status_code, span.events) == ("assay.reward.v1.RewardService/GetModel", trace.StatusCode.UNSET, ())


async def test_a_refused_call_names_its_code_and_carries_no_traceback_which_would_cost_more_than_the_refusal(traced):
    span = await traced("full")
    assert (span.status.status_code, span.status.description, span.events) == (trace.StatusCode.ERROR, "RESOURCE_EXHAUSTED", ())


async def test_a_failure_inside_the_service_carries_its_traceback(traced):
    span = await traced("broken")
    assert (span.status.status_code, span.status.description) == (trace.StatusCode.ERROR, "INTERNAL")
    [event] = span.events
    assert event.attributes["exception.type"] == "RuntimeError" and "inside" in event.attributes["exception.message"]
