"""Whether a training can be asked for: every field looked at before a job is accepted."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from assay_data.errors import DataError, HubUnavailable
from assay_data.hub import is_hub_id
from assay_data.pairs import read_pairs
from assay_data.storage import is_local, path_of
from assay_kit.errors import InvalidArgument
from assay_training.lineage import read_lineage
from assay_training.runs import TrainingError
from assay_training.spec import RewardModelKind, RewardModelSpec, TrainingRequest

Violation = tuple[str, str]


def parsed(spec: Mapping[str, Any]) -> TrainingRequest:
    """The request of a spec, each field within its range.

    Raises:
        InvalidArgument: names each field that is not.
    """
    try:
        return TrainingRequest.model_validate(dict(spec))
    except ValidationError as error:
        raise InvalidArgument.many([_violation(one) for one in error.errors()]) from error


def checked(request: TrainingRequest) -> TrainingRequest:
    """The request, if what it names is there and its output can be written.

    Raises:
        InvalidArgument: names each field that is wrong.
    """
    violations = [*_data(request), *_base(request), *_output(request)]
    if violations:
        raise InvalidArgument.many(violations)
    return request


def checked_spec(kind: str, spec: dict[str, Any]) -> dict[str, Any]:
    """The spec of a job that was asked for over Kafka, checked as the gRPC door checks it; the gate is asked when the job runs.

    Raises:
        InvalidArgument: names each field that is wrong.
    """
    request = checked(parsed(spec))
    if request.algorithm != kind:
        raise InvalidArgument("kind", f"is {kind!r}, but the spec is one for {request.algorithm!r}")
    return job_spec(request)


def job_spec(request: TrainingRequest) -> dict[str, Any]:
    """The spec of a job: the request as JSON, without what is not set and without the id, which the job has itself."""
    return request.model_dump(mode="json", exclude_none=True, exclude={"job_id"})


def _violation(error: Any) -> Violation:
    place = ".".join(str(part) for part in error["loc"])
    message = str(error["msg"]).removeprefix("Value error, ")
    if not place:
        # A message about the whole names its field itself.
        place, separator, rest = message.partition(": ")
        return (place, rest) if separator else ("spec", message)
    return place, message


def _data(request: TrainingRequest) -> list[Violation]:
    field = f"{request.algorithm}.data_uri"
    uri = request.spec.data_uri
    if not uri.startswith("hf://") and _is_relative(uri) and not is_hub_id(uri):
        return [(field, f"{uri!r} is relative to nothing the caller knows; an absolute path or a URI is wanted")]
    try:
        first = next(iter(read_pairs(uri, limit=1)), None)
    except HubUnavailable as error:
        return [(field, str(error))]
    except DataError as error:
        return [(field, str(error))]
    return [] if first is not None else [(field, f"{uri} holds no pair")]


def _base(request: TrainingRequest) -> list[Violation]:
    uri = request.base_uri
    bag_of_words = isinstance(request.spec, RewardModelSpec) and request.spec.kind == RewardModelKind.BAG_OF_WORDS
    if not uri or bag_of_words or is_hub_id(uri):
        return []
    field = f"{request.algorithm}.model_uri"
    if not is_local(uri):
        return []
    try:
        path = path_of(uri)
    except DataError as error:
        return [(field, str(error))]
    if not path.is_absolute():
        return [(field, f"{uri!r} is neither an absolute path, nor a URI, nor a hub id (owner/name)")]
    missing = [name for name in ("config.json", "tokenizer_config.json") if not (path / name).is_file()]
    if missing:
        return [(field, f"{uri} is no folder of a causal LM: {' and '.join(missing)} not there")]
    return []


def _output(request: TrainingRequest) -> list[Violation]:
    field, uri = "output_uri", request.output_uri
    if not is_local(uri):
        return [(field, f"{uri}: models are written to a folder that this service mounts; an absolute path or file:// is wanted")]
    try:
        path = path_of(uri)
        lineage = read_lineage(uri)
    except (DataError, TrainingError) as error:
        return [(field, str(error))]
    if not path.is_absolute():
        return [(field, f"{uri!r} is relative to nothing the caller knows; an absolute path is wanted")]
    if path.exists() and (lineage is None or not request.job_id or lineage.get("job_id") != request.job_id):
        return [(field, f"{uri} is there already; name a folder that does not exist")]
    home = next(parent for parent in path.parents if parent.exists())
    if not home.is_dir() or not os.access(home, os.W_OK):
        return [(field, f"{home} may not be written by the service")]
    return []


def _is_relative(uri: str) -> bool:
    return is_local(uri) and not uri.startswith("file://") and not Path(uri).expanduser().is_absolute()
