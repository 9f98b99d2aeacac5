"""Errors as they travel: over real gRPC, whatever they have to say."""

import grpc
import pytest
from google.rpc import error_details_pb2
from grpc_status import rpc_status

from assay.reward.v1 import reward_pb2, reward_pb2_grpc
from assay_kit.errors import InvalidArgument
from assay_kit.server import App, Door, running
from assay_kit.settings import ServiceSettings

SERVICE = "assay.reward.v1.RewardService"


class Servicer(reward_pb2_grpc.RewardServiceServicer):
    async def ScoreGroup(self, request, context):
        wrong = [(f"candidates[{index}].text", f"is wrong: é{candidate.text}") for index, candidate in enumerate(request.candidates)]
        raise InvalidArgument.many(wrong)


@pytest.fixture
async def stub(tmp_path):
    door = Door(add=reward_pb2_grpc.add_RewardServiceServicer_to_server, servicer=Servicer(), service_name=SERVICE)
    settings = ServiceSettings(data_dir=tmp_path, drain_seconds=5)
    async with running(App(name="reward", settings=settings, doors=[door])) as target, grpc.aio.insecure_channel(target) as channel:
        yield reward_pb2_grpc.RewardServiceStub(channel)


async def fields_of(call) -> list[tuple[str, str]]:
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await call
    assert caught.value.code() is grpc.StatusCode.INVALID_ARGUMENT
    bad = error_details_pb2.BadRequest()
    assert rpc_status.from_call(caught.value).details[0].Unpack(bad)
    return [(violation.field, violation.description) for violation in bad.field_violations]


def group(texts: list[str]) -> reward_pb2.ScoreGroupRequest:
    return reward_pb2.ScoreGroupRequest(candidates=[reward_pb2.Candidate(text=text) for text in texts])


async def test_a_few_wrong_fields_are_all_told(stub):
    assert await fields_of(stub.ScoreGroup(group(["x", "y"]))) == [
        ("candidates[0].text", "is wrong: éx"),
        ("candidates[1].text", "is wrong: éy"),
    ]


async def test_very_many_wrong_fields_arrive_as_the_first_of_them_and_their_number(stub):
    for _ in range(5):  # between its two limits gRPC refuses metadata at random
        fields = await fields_of(stub.ScoreGroup(group(["x" * 60] * 4096)))
        assert fields[0] == ("candidates[0].text", "is wrong: é" + "x" * 60)
        assert fields[-1] == ("", f"{4096 - len(fields) + 1} more fields are wrong")


async def test_a_very_long_description_arrives_cut(stub):
    (only,) = await fields_of(stub.ScoreGroup(group(["é" * 100_000])))
    assert only[0] == "candidates[0].text" and only[1].endswith(" …") and 900 < len(only[1].encode()) <= 1024
