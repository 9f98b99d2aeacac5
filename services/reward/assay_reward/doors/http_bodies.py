"""What HTTP callers send and get, checked field by field."""

from __future__ import annotations

import math
import time
import uuid
from typing import Annotated, Any, TypeVar

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, JsonValue, ValidationError

from assay_kit.errors import InvalidArgument
from assay_reward.doors.texts import Scores

Body = TypeVar("Body", bound=BaseModel)


class NotJson(InvalidArgument):
    """The body cannot be read at all."""


class WrongShape(InvalidArgument):
    """The body is JSON, but not of the fields and types that are wanted."""


class GetReward(BaseModel):
    """What OpenRLHF's trainer posts."""

    model_config = ConfigDict(strict=True, extra="forbid")

    query: list[str]
    """Prompts with their responses, special tokens included; scored as they are."""
    prompts: list[JsonValue] = Field(default_factory=list)
    """The prompts alone; not needed."""
    labels: list[JsonValue] = Field(default_factory=list)
    """References; not needed."""


class Classify(BaseModel):
    """What is posted to vLLM's /classify."""

    model_config = ConfigDict(strict=True, extra="forbid")

    model: str = ""
    input: Annotated[list[str], BeforeValidator(lambda value: [value] if isinstance(value, str) else value)]
    use_activation: bool = False
    """Puts the logistic function on the scores, which vLLM does unless told not to."""


def parsed(kind: type[Body], body: bytes) -> Body:
    """The body as a value.

    Raises:
        NotJson: it is no JSON in UTF-8.
        WrongShape: each field that is wrong is named.
    """
    try:
        return kind.model_validate_json(body)
    except ValidationError as error:
        found = error.errors(include_url=False, include_input=False, include_context=False)
    if found[0]["type"] == "json_invalid":
        raise NotJson("body", found[0]["msg"])
    raise WrongShape.many([(_path(one["loc"]), one["msg"]) for one in found])


def rewards_body(scores: Scores) -> dict[str, Any]:
    """As OpenRLHF's own server answers; `extra_logs` has the win probabilities of a model with a quality card."""
    raw = [score.raw for score in scores.each]
    probabilities = scores.win_probabilities
    return {"rewards": raw, "scores": raw, "extra_logs": {} if probabilities is None else {"win_probability": probabilities}}


def classify_body(scores: Scores, *, use_activation: bool) -> dict[str, Any]:
    """As vLLM answers for a model of one label. That has no name here: `label` is null."""
    tokens = scores.usage.useful_tokens
    return {
        "id": f"classify-{uuid.uuid4().hex}",
        "object": "list",
        "created": int(time.time()),
        "model": scores.provenance.model,
        "data": [
            {"index": index, "label": None, "probs": [_logistic(score.raw) if use_activation else score.raw], "num_classes": 1}
            for index, score in enumerate(scores.each)
        ],
        "usage": {"prompt_tokens": tokens, "total_tokens": tokens, "completion_tokens": 0, "prompt_tokens_details": None},
    }


def _logistic(value: float) -> float:
    return 1 / (1 + math.exp(-value)) if value >= 0 else math.exp(value) / (1 + math.exp(value))


def _path(location: tuple[int | str, ...]) -> str:
    path = "".join(f"[{part}]" if isinstance(part, int) else f".{part}" for part in location)
    return path.removeprefix(".") or "body"
