"""Long work: cleaning a dataset, fitting a committee."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from typing import Any

from google.protobuf import json_format
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from assay.cleaning.v1 import cleaning_pb2
from assay_cleaning.cleaning import clean, committee_facts, fit_on
from assay_cleaning.committee import FEWEST_PAIRS
from assay_cleaning.metrics import count
from assay_cleaning.requests import Labellers
from assay_data.errors import DataError
from assay_data.hub import is_hub_id
from assay_data.pairs import pair_files
from assay_data.storage import is_local, path_of
from assay_kit.errors import InvalidArgument, Unavailable
from assay_kit.jobs import JobContext, Jobs

CLEAN = "clean"
COMMITTEE = "committee"


class _Spec(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True)

    input_uri: str = Field(min_length=1)
    output_uri: str = Field(min_length=1)
    limit: int = Field(default=0, ge=0)


class CleanSpec(_Spec):
    """What a cleaning job is asked for: the fields of CreateCleaningJobRequest."""

    options: dict[str, Any] = Field(default_factory=dict)


class CommitteeSpec(_Spec):
    """What a committee job is asked for: the fields of CreateCommitteeJobRequest."""

    seed: int = Field(default=0, ge=0)


_SPECS: dict[str, type[_Spec]] = {CLEAN: CleanSpec, COMMITTEE: CommitteeSpec}


def register(jobs: Jobs, labellers: Labellers, *, at_once: int) -> None:
    """Declares the kinds of work."""
    jobs.kind(CLEAN, lambda context, spec: run_clean(context, spec, labellers), concurrency=at_once)
    jobs.kind(COMMITTEE, run_committee, concurrency=at_once)


def checked_spec(kind: str, spec: Mapping[str, Any], labellers: Labellers) -> dict[str, Any]:
    """A spec that a job can be made of.

    Raises:
        InvalidArgument: names each field that is wrong.
    """
    model = _SPECS.get(kind)
    if model is None:
        raise InvalidArgument("kind", f"{kind!r}; one of {', '.join(_SPECS)}")
    try:
        checked = model.model_validate(dict(spec))
    except ValidationError as error:
        raise InvalidArgument.many([(".".join(map(str, one["loc"])), one["msg"]) for one in error.errors()]) from error
    _check_output(checked.output_uri, folder=kind == CLEAN)
    if isinstance(checked, CleanSpec):
        labellers.labeller(options_message(checked.options))
    if not is_hub_id(checked.input_uri):
        try:
            pair_files(checked.input_uri)
        except DataError as error:
            raise InvalidArgument("input_uri", str(error)) from error
    return checked.model_dump()


def options_message(options: Mapping[str, Any]) -> cleaning_pb2.CleaningOptions:
    """CleaningOptions from their JSON.

    Raises:
        InvalidArgument: where they are none.
    """
    try:
        return json_format.ParseDict(dict(options), cleaning_pb2.CleaningOptions())
    except json_format.ParseError as error:
        raise InvalidArgument("options", str(error)) from error


def run_clean(context: JobContext, spec: Mapping[str, Any], labellers: Labellers) -> dict[str, Any]:
    """Cleans a dataset; the result is the summary without the hashes."""
    wanted = CleanSpec.model_validate(dict(spec))
    labeller = labellers.labeller(options_message(wanted.options))

    def work() -> dict[str, Any]:
        return clean(
            input_uri=wanted.input_uri,
            output_uri=wanted.output_uri,
            options=labeller.options,
            limit=wanted.limit,
            committee=labeller.committee,
            tag=context.job_id,
            progress=_teller(context),
            on_verdict=lambda verdict: count(verdict, "job"),
        )

    return context.step("clean", _named("input_uri", work))


def run_committee(context: JobContext, spec: Mapping[str, Any]) -> dict[str, Any]:
    """Fits a committee and writes its file."""
    wanted = CommitteeSpec.model_validate(dict(spec))

    def work() -> dict[str, Any]:
        committee, rows = fit_on(wanted.input_uri, limit=wanted.limit, seed=wanted.seed, progress=_teller(context))
        if committee is None:
            raise InvalidArgument(
                "input_uri", f"{wanted.input_uri}: too few of its {rows} pairs have a direction; {FEWEST_PAIRS} are wanted"
            )
        artifact = committee.save(wanted.output_uri)
        return {"committee_uri": artifact.uri, "rows_in": rows, **committee_facts(committee), "file_sha256": artifact.sha256}

    return context.step("fit", _named("input_uri", work))


def _named(field: str, work: Callable[[], dict[str, Any]]) -> Callable[[], dict[str, Any]]:
    """The work, with faults of the data told as faults of a field."""

    def named() -> dict[str, Any]:
        try:
            return work()
        except DataError as error:
            raise InvalidArgument(field, str(error)) from error
        except ConnectionError as error:
            raise Unavailable(str(error)) from error

    return named


def _teller(context: JobContext) -> Callable[[str, int, int, str], None]:
    return lambda stage, done, total, unit: context.progress(stage, done, total, unit=unit)


def _check_output(uri: str, *, folder: bool) -> None:
    if not is_local(uri):
        return
    try:
        path = path_of(uri)
    except DataError as error:
        raise InvalidArgument("output_uri", str(error)) from error
    if not path.is_absolute():
        raise InvalidArgument("output_uri", f"{uri!r} is relative to nothing the caller knows; an absolute path or a URI is wanted")
    if folder and path.exists() and not path.is_dir():
        raise InvalidArgument("output_uri", f"{uri} is a file; a folder is wanted")
    if not folder and path.is_dir():
        raise InvalidArgument("output_uri", f"{uri} is a folder; a file is wanted, for example {uri.rstrip('/')}/committee.json.gz")
    home = next(parent for parent in path.parents if parent.exists())
    if not os.access(home, os.W_OK):
        raise InvalidArgument("output_uri", f"{home} may not be written by the service")
