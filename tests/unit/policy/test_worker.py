"""The Kafka door's handler on its own: requests in, generations and refusals out."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from support.generation_servers import Behaviour, openai_server
from support.policy_service import generate_request
from support.tiny_models import write_tiny_causal_lm

from assay.policy.v1 import policy_pb2
from assay_data.conversations import Message, prompt_key
from assay_kit.errors import Unavailable
from assay_kit.kafka import Record, Rejected
from assay_kit.topics import GENERATIONS_COMPLETED, GENERATIONS_REQUESTED
from assay_policy.backends.registry import BackendKind, Backends
from assay_policy.catalogue import Catalogue
from assay_policy.engine import Engine
from assay_policy.messages import Limits
from assay_policy.settings import PolicySettings
from assay_policy.worker import GenerationWorker


@pytest.fixture
def catalogue(tmp_path: Path) -> Iterator[Catalogue]:
    catalogue = Catalogue(Backends(PolicySettings(data_dir=tmp_path)), tmp_path / "models.json")
    catalogue.load("sft", str(write_tiny_causal_lm(tmp_path / "model")))
    yield catalogue
    catalogue.close()


def handle(catalogue: Catalogue, *requests: policy_pb2.GenerateRequest) -> list[Any]:
    worker = GenerationWorker(Engine(catalogue), Limits(max_answers=100, max_new_tokens=64))
    return worker.handle([Record(GENERATIONS_REQUESTED.name, 0, offset, b"", message, {}) for offset, message in enumerate(requests)])


def test_each_prompt_becomes_a_generation_under_its_prompts_key(catalogue: Catalogue):
    (outputs,) = handle(catalogue, generate_request("Hi", "Ho", n=2, max_new_tokens=4, request_id="r7"))
    assert [output.key for output in outputs] == [prompt_key((Message("user", text),)) for text in ("Hi", "Ho")]
    assert {output.topic for output in outputs} == {GENERATIONS_COMPLETED}
    assert [(output.message.prompt_id, output.message.request_id) for output in outputs] == [("p0", "r7"), ("p1", "r7")]
    assert all(len(output.message.completions) == 2 for output in outputs)


def test_the_same_record_again_gives_the_same_outputs(catalogue: Catalogue):
    request = generate_request("Hi", n=3, max_new_tokens=8, seed=2)
    assert handle(catalogue, request) == handle(catalogue, generate_request("Ho", max_new_tokens=8), request)[1:]


def test_a_request_that_can_never_be_answered_is_rejected_and_its_neighbours_are_not(catalogue: Catalogue):
    unknown, bad, good = handle(
        catalogue, generate_request("Hi", model="nope"), generate_request("Hi", temperature=9), generate_request("Hi", max_new_tokens=2)
    )
    assert isinstance(unknown, Rejected) and "sft" in unknown.reason
    assert isinstance(bad, Rejected) and "temperature" in bad.reason
    assert len(good) == 1


def test_a_bad_prompt_is_answered_with_its_error(catalogue: Catalogue):
    request = generate_request("Hi", max_new_tokens=2)
    request.prompts.append(policy_pb2.Prompt(id="empty"))
    (outputs,) = handle(catalogue, request)
    assert outputs[0].message.completions
    assert outputs[1].message.error.field == "prompts[1].conversation.messages"
    assert outputs[1].key == "empty"


def test_a_server_that_is_away_fails_the_batch_so_that_it_comes_again(catalogue: Catalogue):
    with openai_server(Behaviour()) as url:
        catalogue.load("remote", url, kind=BackendKind.OPENAI)
    with pytest.raises(Unavailable, match=url):
        handle(catalogue, generate_request("Hi", max_new_tokens=2), generate_request("Hi", model="remote"))
