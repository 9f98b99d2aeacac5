"""Requests checked and turned into the domain's values, and its values turned into replies. Knows protobuf, not gRPC."""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from dataclasses import dataclass

from google.protobuf.timestamp_pb2 import Timestamp

from assay.common.v1 import common_pb2
from assay.policy.v1 import policy_pb2
from assay_data.wire import messages_from_proto
from assay_kit.errors import AssayError, InvalidArgument, item_error
from assay_policy.backends.registry import BackendKind
from assay_policy.catalogue import Policy
from assay_policy.engine import Asked
from assay_policy.generation import Answer, Finish, Outcome, Sampling, Turns

MAX_PROMPTS = 1024
MAX_ITEMS = 4096
MAX_BEST_OF = 256
MAX_TEMPERATURE = 2.0
MAX_STOPS = 16
_DEFAULT_NEW_TOKENS = 128
_NAME = re.compile(r"[A-Za-z0-9._-]{1,128}")

_KINDS: dict[int, BackendKind | None] = {
    policy_pb2.BACKEND_UNSPECIFIED: None,
    policy_pb2.BACKEND_TRANSFORMERS: BackendKind.TRANSFORMERS,
    policy_pb2.BACKEND_OPENAI: BackendKind.OPENAI,
    policy_pb2.BACKEND_TGI: BackendKind.TGI,
}
_BACKENDS = {
    BackendKind.TRANSFORMERS: policy_pb2.BACKEND_TRANSFORMERS,
    BackendKind.OPENAI: policy_pb2.BACKEND_OPENAI,
    BackendKind.TGI: policy_pb2.BACKEND_TGI,
}
_FINISHES = {
    Finish.UNKNOWN: policy_pb2.FINISH_REASON_UNSPECIFIED,
    Finish.STOP: policy_pb2.FINISH_REASON_STOP,
    Finish.LENGTH: policy_pb2.FINISH_REASON_LENGTH,
}
Violations = list[tuple[str, str]]


@dataclass(frozen=True, kw_only=True)
class Limits:
    """What one request may ask for."""

    max_answers: int
    """Most prompts times n."""
    max_new_tokens: int


def asked_from(request: policy_pb2.GenerateRequest, limits: Limits) -> Asked:
    """A request for answers.

    Raises:
        InvalidArgument: names every field at fault. A fault of one prompt is kept with the prompt instead.
    """
    wrong: Violations = []
    n = request.n or 1
    if not 1 <= len(request.prompts) <= MAX_PROMPTS:
        wrong.append(("prompts", f"{len(request.prompts)} of them; 1 to {MAX_PROMPTS:,} are wanted"))
    elif n * len(request.prompts) > limits.max_answers:
        wrong.append(("n", f"{n} for each of {len(request.prompts)} prompts is more than {limits.max_answers:,} answers in all"))
    sampling = _sampling(request.sampling, limits, wrong)
    if wrong:
        raise InvalidArgument.many(wrong)
    return Asked(
        model=request.model.name,
        revision=request.model.revision,
        prompt_ids=tuple(prompt.id for prompt in request.prompts),
        prompts=tuple(_turns_or_error(prompt) for prompt in request.prompts),
        n=n,
        sampling=sampling,
        request_id=request.request_id,
    )


def best_of_from(request: policy_pb2.BestOfNRequest, limits: Limits) -> Asked:
    """The answers that a best-of-n request needs.

    Raises:
        InvalidArgument: names every field at fault.
    """
    wrong: Violations = []
    if not 1 <= request.n <= MAX_BEST_OF:
        wrong.append(("n", f"{request.n}; 1 to {MAX_BEST_OF} are wanted"))
    sampling = _sampling(request.sampling, limits, wrong)
    turns = _turns_or_error(request.prompt)
    if isinstance(turns, InvalidArgument):
        wrong += [(f"prompt.{field}", description) for field, description in turns.violations]
    if wrong:
        raise InvalidArgument.many(wrong)
    return Asked(
        model=request.policy.name,
        revision=request.policy.revision,
        prompt_ids=(request.prompt.id,),
        prompts=(turns,),
        n=request.n,
        sampling=sampling,
    )


def scoring_items_from(request: policy_pb2.ComputeLogProbsRequest) -> list[tuple[Turns, Sequence[int]]]:
    """Prompts and token ids.

    Raises:
        InvalidArgument: names every field at fault.
    """
    if not 1 <= len(request.items) <= MAX_ITEMS:
        raise InvalidArgument("items", f"{len(request.items)} of them; 1 to {MAX_ITEMS:,} are wanted")
    wrong: Violations = []
    items: list[tuple[Turns, Sequence[int]]] = []
    for index, item in enumerate(request.items):
        turns = _turns_or_error(item.prompt)
        if isinstance(turns, AssayError):
            wrong += [(f"items[{index}].prompt.{field}", description) for field, description in turns.violations]
        else:
            items.append((turns, list(item.tokens.ids)))
    if wrong:
        raise InvalidArgument.many(wrong)
    return items


def check_name(name: str) -> None:
    """Raises where a model cannot have that name.

    Raises:
        InvalidArgument: says what a name is.
    """
    if not _NAME.fullmatch(name):
        raise InvalidArgument("name", f"{name!r}; 1 to 128 letters, digits, '.', '_' and '-'")


def kind_from(number: int) -> BackendKind | None:
    """The backend of a number; None where it is not said.

    Raises:
        InvalidArgument: there is no such backend.
    """
    if number not in _KINDS:
        raise InvalidArgument("backend", f"{number} is none; there are {', '.join(policy_pb2.Backend.keys())}")
    return _KINDS[number]


def _turns_or_error(prompt: policy_pb2.Prompt) -> Turns | InvalidArgument:
    try:
        turns = messages_from_proto(prompt.conversation.messages, "messages")
    except ValueError as error:
        field, _, description = str(error).partition(": ")
        return InvalidArgument(f"conversation.{field}", description)
    if not turns:
        return InvalidArgument("conversation.messages", "empty; at least one turn is wanted")
    if turns[-1].role == "assistant":
        return InvalidArgument(
            f"conversation.messages[{len(turns) - 1}].role", "the last turn is the assistant's, which is the policy's to write"
        )
    return turns


def _sampling(asked: policy_pb2.SamplingOptions, limits: Limits, wrong: Violations) -> Sampling:
    new = asked.max_new_tokens or min(_DEFAULT_NEW_TOKENS, limits.max_new_tokens)
    temperature = asked.temperature if asked.HasField("temperature") else 1.0
    top_p = asked.top_p if asked.HasField("top_p") else 1.0
    if new > limits.max_new_tokens:
        wrong.append(("sampling.max_new_tokens", f"{new}; at most {limits.max_new_tokens:,}"))
    if asked.min_new_tokens > new:
        wrong.append(("sampling.min_new_tokens", f"{asked.min_new_tokens} is more than max_new_tokens, {new}"))
    if not 0 <= temperature <= MAX_TEMPERATURE:
        wrong.append(("sampling.temperature", f"{temperature:g}; 0 (greedy) to {MAX_TEMPERATURE:g}"))
    if not 0 < top_p <= 1:
        wrong.append(("sampling.top_p", f"{top_p:g}; above 0, at most 1"))
    if len(asked.stop) > MAX_STOPS or not all(asked.stop):
        wrong.append(("sampling.stop", f"at most {MAX_STOPS} texts, none of them empty"))
    return Sampling(
        max_new_tokens=new,
        min_new_tokens=asked.min_new_tokens,
        temperature=temperature,
        top_p=top_p,
        seed=asked.seed,
        stop=tuple(asked.stop),
    )


def to_generation(asked: Asked, index: int, outcome: Outcome, policy: Policy) -> policy_pb2.Generation:
    """The answers to one prompt of a request."""
    generation = policy_pb2.Generation(
        prompt_id=asked.prompt_ids[index],
        completions=[to_completion(answer) for answer in outcome.answers],
        model_fingerprint=policy.facts.identity,
        request_id=asked.request_id,
    )
    if outcome.error is not None:
        generation.error.CopyFrom(prompt_error(outcome.error, index))
    return generation


def prompt_error(error: AssayError, index: int) -> common_pb2.ItemError:
    """Why a prompt has no answers."""
    return item_error(error, f"prompts[{index}]")


def to_completion(answer: Answer) -> policy_pb2.Completion:
    """An answer."""
    return policy_pb2.Completion(
        text=answer.text,
        tokens=common_pb2.TokenSequence(ids=answer.token_ids),
        finish_reason=_FINISHES[answer.finish],
        log_prob=answer.log_prob,
    )


def to_info(policy: Policy) -> policy_pb2.PolicyInfo:
    """A model."""
    loaded_at = Timestamp()
    loaded_at.FromDatetime(policy.loaded_at)
    return policy_pb2.PolicyInfo(
        name=policy.name,
        revision=policy.revision,
        uri=policy.source.uri,
        backend=_BACKENDS[policy.source.kind],
        fingerprint=policy.facts.fingerprint,
        max_context_tokens=policy.facts.max_context_tokens,
        loaded_at=loaded_at,
    )


def kl_of_best_of(n: int) -> float:
    """KL of best-of-n against the policy in nats, log n - (n-1)/n (arXiv 2210.10760)."""
    return math.log(n) - (n - 1) / n
