"""Training runs for tests: tiny models that learn in seconds, in this process or in one of their own that can be killed."""

from __future__ import annotations

import io
import json
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch

from assay_training.run import do
from assay_training.runs import Reporter
from assay_training.spec import RunSpec

SCRATCH = {"vocab_size": 400, "hidden_size": 32, "layers": 2, "heads": 2, "max_context_tokens": 128}


def run_spec(folder: Path, name: str, *, work: str = "", **fields: Any) -> RunSpec:
    """The spec of a run that writes to folder/name; `reward_…` fields are the run's own, the others the request's."""
    own = {key: fields.pop(key) for key in list(fields) if key.startswith("reward_") and key != "reward_model"}
    request = {"job_id": name, "output_uri": str(folder / name), "seed": 7, **fields}
    return RunSpec.model_validate({"request": request, "work_dir": folder / "work" / (work or name), **own})


@contextmanager
def torch_left_alone() -> Iterator[None]:
    """Undoes what a run in this process sets in torch."""
    threads, deterministic = torch.get_num_threads(), torch.are_deterministic_algorithms_enabled()
    try:
        yield
    finally:
        torch.set_num_threads(threads)
        torch.use_deterministic_algorithms(deterministic)
        torch.utils.deterministic.fill_uninitialized_memory = True


def run_here(spec: RunSpec) -> list[dict[str, Any]]:
    """Does a run in this process; gives its lines of progress."""
    lines = io.StringIO()
    spec.work_dir.mkdir(parents=True, exist_ok=True)
    with torch_left_alone():
        do(spec, Reporter(lines))
    return [json.loads(line) for line in lines.getvalue().splitlines()]


@contextmanager
def process_of(spec: RunSpec, *arguments: str) -> Iterator[subprocess.Popen[str]]:
    """Does a run in a process of its own, which is gone when the context ends."""
    spec.work_dir.mkdir(parents=True, exist_ok=True)
    file = spec.work_dir / "spec.json"
    file.write_text(spec.model_dump_json())
    command = [sys.executable, "-m", "assay_training.run", "--run-spec", str(file), *arguments]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        try:
            yield process
        finally:
            if process.poll() is None:
                process.kill()


def kill_after(spec: RunSpec, steps: int) -> None:
    """Does a run in a process of its own until it has told of so many steps, and kills it as `kill -9` does."""
    with process_of(spec) as process:
        assert process.stdout is not None
        for line in process.stdout:
            told = json.loads(line)
            assert "error" not in told, told
            if told["stage"] == "train" and told["done"] >= steps:
                break
        process.kill()
        assert process.wait() == -9, "the run ended before it was killed"
    assert not Path(spec.request.output_uri).exists()


def weights_of(folder: str | Path) -> bytes:
    """The bytes of a model's weights."""
    return (Path(folder) / "model.safetensors").read_bytes()


def lineage_of(folder: str | Path) -> dict[str, Any]:
    """training.json of a model."""
    lineage: dict[str, Any] = json.loads((Path(folder) / "training.json").read_text())
    return lineage


def losses(lines: list[dict[str, Any]]) -> list[float]:
    """The loss of each step told of."""
    return [line["metrics"]["loss"] for line in lines if line["stage"] == "train"]


def mean(values: list[float]) -> float:
    return sum(values) / len(values)
