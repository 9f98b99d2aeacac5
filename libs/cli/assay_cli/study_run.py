"""Following a study until it ends."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from importlib.resources.abc import Traversable
from typing import Any

import yaml

from assay.jobs.v1 import jobs_pb2
from assay_cli.output import console
from assay_cli.study_view import StudyView
from assay_client.client import AssayClient
from assay_client.errors import JobFailed
from assay_client.messages import plain
from assay_data.errors import DataError

_ENDED = {jobs_pb2.JOB_STATE_SUCCEEDED, jobs_pb2.JOB_STATE_FAILED, jobs_pb2.JOB_STATE_CANCELLED}
LOOK_EVERY_SECONDS = 1.0


def study_file(path: Traversable) -> str:
    """The text of a study's file.

    Raises:
        DataError: it is no text.
        OSError: it cannot be read.
    """
    try:
        return path.read_text(encoding="utf-8")
    except UnicodeDecodeError as error:
        raise DataError(str(path), 0, "", f"no text: {error}; a study is a YAML file in UTF-8") from error


def with_data(text: str, data: Mapping[str, Any], *, source: str) -> str:
    """A study's YAML with other data put in.

    Args:
        text: the study.
        data: what to set in the study's `data`: uri, name, limit.
        source: what to call it where it is wrong.

    Raises:
        DataError: it is no mapping in YAML.
    """
    try:
        parsed = yaml.safe_load(text)
    except yaml.YAMLError as error:
        raise DataError(source, 0, "", f"not YAML: {error}") from error
    if not isinstance(parsed, dict) or not isinstance(parsed.get("data", {}), dict | None):
        raise DataError(source, 0, "", "a study is a mapping with the keys name, seed, data and stages, and its data a mapping too")
    parsed["data"] = {**(parsed.get("data") or {}), **data}
    return yaml.safe_dump(parsed, sort_keys=False, allow_unicode=True)


def follow_study(client: AssayClient, job_id: str, *, on_stage: Callable[[str, str, dict[str, Any]], None] | None = None) -> None:
    """Shows a study's stages until it ends.

    Args:
        client: with patience, so that a restart of the evaluation service does not end the view.
        job_id: the study's job.
        on_stage: called with name, kind and result of each stage that has succeeded.

    Raises:
        JobFailed: the study failed or was cancelled.
    """
    jobs = client.jobs("evaluation")
    with StudyView(console) as view:
        while True:
            study = client.evaluation.get_study(job_id)
            kinds = {stage.name: stage.kind for stage in study.stages}
            for name in view.update(study.stages):
                if on_stage is not None:
                    on_stage(name, kinds[name], plain(jobs.get(f"{job_id}.{name}").result))
            if study.job.state in _ENDED:
                break
            time.sleep(LOOK_EVERY_SECONDS)
    if study.job.state != jobs_pb2.JOB_STATE_SUCCEEDED:
        raise JobFailed(study.job)
