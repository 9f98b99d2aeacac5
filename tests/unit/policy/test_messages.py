import math
from typing import Any

import pytest
from support.policy_service import generate_request, prompt

from assay.common.v1 import common_pb2
from assay.policy.v1 import policy_pb2
from assay_kit.errors import InvalidArgument
from assay_policy import messages
from assay_policy.generation import Sampling
from assay_policy.messages import Limits

LIMITS = Limits(max_answers=100, max_new_tokens=64)


def test_what_is_not_said_has_the_defaults_of_the_contract():
    asked = messages.asked_from(generate_request("Hi"), Limits(max_answers=100, max_new_tokens=4096))
    assert asked.n == 1
    assert asked.sampling == Sampling(max_new_tokens=128, temperature=1.0, top_p=1.0, seed=0)


def test_temperature_zero_is_kept_apart_from_no_temperature():
    assert messages.asked_from(generate_request("Hi", temperature=0.0), LIMITS).sampling.temperature == 0.0


@pytest.mark.parametrize(
    ("field", "request_"),
    [
        ("prompts", generate_request()),
        ("prompts", generate_request(*["x"] * 1025)),
        ("n", generate_request("a", "b", n=51)),
        ("sampling.max_new_tokens", generate_request("a", max_new_tokens=65)),
        ("sampling.min_new_tokens", generate_request("a", max_new_tokens=4, min_new_tokens=5)),
        ("sampling.temperature", generate_request("a", temperature=-0.1)),
        ("sampling.temperature", generate_request("a", temperature=2.1)),
        ("sampling.temperature", generate_request("a", temperature=math.nan)),
        ("sampling.top_p", generate_request("a", top_p=0.0)),
        ("sampling.top_p", generate_request("a", top_p=1.01)),
        ("sampling.stop", generate_request("a", stop=["x", ""])),
        ("sampling.stop", generate_request("a", stop=["x"] * 17)),
    ],
)
def test_a_field_out_of_range_is_named(field: str, request_: Any):
    with pytest.raises(InvalidArgument) as refused:
        messages.asked_from(request_, LIMITS)
    assert [name for name, _ in refused.value.violations] == [field]


def test_all_fields_at_fault_are_named_at_once():
    with pytest.raises(InvalidArgument) as refused:
        messages.asked_from(generate_request("a", n=101, temperature=9, top_p=0), LIMITS)
    assert [name for name, _ in refused.value.violations] == ["n", "sampling.temperature", "sampling.top_p"]


@pytest.mark.parametrize(
    ("turns", "field"),
    [
        ([], "conversation.messages"),
        ([(common_pb2.ROLE_UNSPECIFIED, "x")], "conversation.messages[0].role"),
        ([(common_pb2.ROLE_USER, "x"), (common_pb2.ROLE_ASSISTANT, "y")], "conversation.messages[1].role"),
    ],
)
def test_a_fault_of_one_prompt_is_kept_with_the_prompt(turns: list[tuple[Any, str]], field: str):
    request = generate_request("good")
    turns_ = [common_pb2.Message(role=role, content=text) for role, text in turns]
    request.prompts.append(policy_pb2.Prompt(conversation=common_pb2.Conversation(messages=turns_)))
    good, bad = messages.asked_from(request, LIMITS).prompts
    assert isinstance(good, tuple)
    assert isinstance(bad, InvalidArgument)
    assert messages.prompt_error(bad, 1).field == f"prompts[1].{field}"


@pytest.mark.parametrize("n", [0, 257])
def test_best_of_takes_1_to_256(n: int):
    with pytest.raises(InvalidArgument) as refused:
        messages.best_of_from(policy_pb2.BestOfNRequest(prompt=prompt("a"), n=n), LIMITS)
    assert refused.value.violations[0][0] == "n"


def test_best_of_names_the_prompts_fault():
    with pytest.raises(InvalidArgument) as refused:
        messages.best_of_from(policy_pb2.BestOfNRequest(n=2), LIMITS)
    assert refused.value.violations[0][0] == "prompt.conversation.messages"


def test_scoring_items_at_fault_are_named():
    request = policy_pb2.ComputeLogProbsRequest(items=[policy_pb2.LogProbItem(prompt=prompt("a")), policy_pb2.LogProbItem()])
    with pytest.raises(InvalidArgument) as refused:
        messages.scoring_items_from(request)
    assert refused.value.violations[0][0] == "items[1].prompt.conversation.messages"
    with pytest.raises(InvalidArgument, match="items"):
        messages.scoring_items_from(policy_pb2.ComputeLogProbsRequest())


@pytest.mark.parametrize("name", ["", "a b", "a/b", "x" * 129])
def test_a_name_is_letters_digits_and_a_few_signs(name: str):
    with pytest.raises(InvalidArgument):
        messages.check_name(name)
    messages.check_name("sft-0.5_b")


def test_the_kl_of_best_of_n():
    assert messages.kl_of_best_of(1) == 0.0
    assert messages.kl_of_best_of(16) == pytest.approx(math.log(16) - 15 / 16)
