"""The finished model's folder: the model and ``training.json``, which says what it was made of; there whole or not at all."""

from __future__ import annotations

import hashlib
import json
import os
import platform
import shutil
import sys
import tempfile
from importlib import metadata
from pathlib import Path
from typing import Any

from assay_data.errors import DataError
from assay_data.fingerprints import fingerprint_folder
from assay_data.pairs import pair_files
from assay_data.storage import path_of, sha256_of
from assay_training.runs import Outcome, Run, TrainingError
from assay_training.spec import RunSpec

FILE = "training.json"
_FORMAT = "assay.training/1"
_DISTRIBUTIONS = ("assay-training", "torch", "transformers", "trl", "accelerate", "datasets", "tokenizers", "numpy", "scipy")


def identity_of(spec: RunSpec) -> str:
    """SHA-256 of all that decides the weights: two runs with one identity give one model."""
    content = {
        "request": spec.request.model_dump(mode="json", exclude={"job_id", "output_uri"}),
        "reward_mean": spec.reward_mean,
        "reward_std": spec.reward_std,
        "reward_fingerprint": spec.reward_fingerprint,
    }
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()


def read_lineage(output_uri: str) -> dict[str, Any] | None:
    """The lineage of a finished model; None where there is none."""
    try:
        content: dict[str, Any] = json.loads((path_of(output_uri) / FILE).read_text(encoding="utf-8"))
    except (FileNotFoundError, NotADirectoryError):
        return None
    except (ValueError, OSError) as error:
        raise TrainingError(f"output_uri: {output_uri} holds a {FILE} that cannot be read: {error}") from error
    return content


def finished(spec: RunSpec) -> bool:
    """Whether this very run has written its model already.

    Raises:
        TrainingError: something else is there.
    """
    uri = spec.request.output_uri
    lineage = read_lineage(uri)
    if lineage is not None and lineage.get("identity") == identity_of(spec) and lineage.get("job_id") == spec.request.job_id:
        return True
    if path_of(uri).exists():
        raise TrainingError(f"output_uri: {uri} is there already and is not of this job; name a folder that does not exist")
    return False


def publish(run: Run, outcome: Outcome) -> None:
    """Writes model and lineage beside the place, and moves them there in one step."""
    target = path_of(run.request.output_uri)
    target.parent.mkdir(parents=True, exist_ok=True)
    remove_partial(run.spec)
    staging = Path(tempfile.mkdtemp(prefix=_partial_prefix(run.spec), dir=target.parent))
    try:
        outcome.save(staging)
        lineage = _lineage(run, outcome, staging)
        (staging / FILE).write_text(json.dumps(lineage, ensure_ascii=False, indent=2, allow_nan=False) + "\n", encoding="utf-8")
        for file in staging.rglob("*"):
            if file.is_file():
                file.chmod(0o644)
                with file.open("rb") as stream:
                    os.fsync(stream.fileno())
        staging.chmod(0o755)
        try:
            staging.rename(target)
        except OSError as error:
            raise TrainingError(f"output_uri: {target} cannot be written: {error.strerror}") from error
    finally:
        shutil.rmtree(staging, ignore_errors=True)


def remove_partial(spec: RunSpec) -> None:
    """Removes what a killed run of the same job left half-written."""
    parent = path_of(spec.request.output_uri).parent
    for leftover in parent.glob(f"{_partial_prefix(spec)}*"):
        shutil.rmtree(leftover)


def _partial_prefix(spec: RunSpec) -> str:
    name = hashlib.sha256(f"{spec.request.output_uri} {spec.request.job_id}".encode()).hexdigest()[:16]
    return f".partial-{name}-"


def _lineage(run: Run, outcome: Outcome, folder: Path) -> dict[str, Any]:
    request = run.request
    return {
        "format": _FORMAT,
        "job_id": request.job_id,
        "algorithm": request.algorithm,
        "identity": identity_of(run.spec),
        "fingerprint": fingerprint_folder(folder).fingerprint,
        "request": request.model_dump(mode="json"),
        "optimizer": run.options.model_dump(mode="json"),
        "seed": request.seed,
        "threads": request.threads or 1,
        "data": {"uri": request.spec.data_uri, "sha256": _data_sha256(request.spec.data_uri), "limit": request.limit},
        "base": {"uri": request.base_uri, "fingerprint": _base_fingerprint(request.base_uri)},
        "reward": {"mean": run.spec.reward_mean, "std": run.spec.reward_std},
        "gate": run.spec.gate_verdict,
        "steps": outcome.steps,
        "metrics": dict(outcome.metrics),
        **outcome.facts,
        "versions": versions(),
    }


def versions() -> dict[str, str]:
    """Versions of Python and of the libraries that decide the weights."""
    found = {"python": platform.python_version(), "machine": f"{sys.platform} {platform.machine()}"}
    for name in _DISTRIBUTIONS:
        found[name] = metadata.version(name)
    return found


def _data_sha256(uri: str) -> str:
    """SHA-256 of the file, or of the names and hashes of the files where there are several."""
    files = pair_files(uri)
    if len(files) == 1:
        return sha256_of(files[0].path)
    return hashlib.sha256("".join(f"{file.name} {sha256_of(file.path)}\n" for file in files).encode()).hexdigest()


def _base_fingerprint(uri: str) -> str:
    """Fingerprint of the model that training started from; empty for none and for one that a hub holds."""
    if not uri:
        return ""
    try:
        return fingerprint_folder(path_of(uri)).fingerprint
    except DataError:
        return ""
