"""One run: ``python -m assay_training.run --run-spec spec.json --resume auto``.

Trains as the spec says, with checkpoints under ``work_dir``; progress goes to stdout as JSON lines. The model appears at ``output_uri``
whole or not at all, with ``training.json``, its lineage. A run that was killed goes on from its newest whole checkpoint and ends with
the same weights, bit for bit, on the same machine with the same number of threads.

Exit codes: 0 done, 1 cannot be done (the last line says why), 2 wrong arguments.
"""

from __future__ import annotations

import argparse
import ctypes
import importlib
import os
import signal
import sys
import traceback
from collections.abc import Sequence
from pathlib import Path

from pydantic import ValidationError

from assay_client.errors import AssayClientError
from assay_data.errors import DataError
from assay_training.lineage import finished, publish
from assay_training.registry import defaults_of, module_of
from assay_training.runs import Outcome, Reporter, Run, TrainingError
from assay_training.spec import RunSpec

_PR_SET_PDEATHSIG = 1


def main(argv: Sequence[str] | None = None) -> int:
    """Does one run; returns the exit code."""
    arguments = _arguments(argv)
    # What libraries print must not come between the lines of progress.
    progress = os.fdopen(os.dup(sys.stdout.fileno()), "w", encoding="utf-8")
    os.dup2(sys.stderr.fileno(), sys.stdout.fileno())
    reporter = Reporter(progress)
    if arguments.parent and not _die_with(arguments.parent):
        return 1
    try:
        spec = RunSpec.model_validate_json(arguments.run_spec.read_bytes())
    except (OSError, ValidationError) as error:
        reporter.error(f"--run-spec {arguments.run_spec}: {error}")
        return 2
    try:
        do(spec, reporter, resume=arguments.resume == "auto")
    except (TrainingError, DataError, AssayClientError) as error:
        reporter.error(str(error))
        return 1
    except Exception as error:
        traceback.print_exc()
        reporter.error(f"{type(error).__name__}: {error}")
        return 1
    return 0


def do(spec: RunSpec, reporter: Reporter, *, resume: bool = True) -> None:
    """Trains and publishes; a run whose model is there already has nothing left to do.

    Raises:
        TrainingError: it cannot be done; the message says why.
        DataError: the data is wrong; the message names the row.
    """
    if finished(spec):
        reporter.progress("done", message="the model is there already")
        return
    request = spec.request
    _prepare_environment(request.threads or 1)
    reporter.progress("start", message=f"{request.algorithm}: reading {request.spec.data_uri}")
    run = Run(spec=spec, options=request.optimizer.with_defaults(defaults_of(request)), reporter=reporter, resume=resume)
    module = importlib.import_module(module_of(request))
    _make_deterministic(request.threads or 1)
    outcome: Outcome = module.train(run)
    reporter.progress("export", message=f"writing {request.output_uri}")
    publish(run, outcome)
    reporter.progress("done", outcome.steps, outcome.steps, metrics=outcome.metrics)


def _prepare_environment(threads: int) -> None:
    """Sets what the numerical libraries read when they are imported."""
    for name in ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS"):
        os.environ[name] = str(threads)
    defaults = {
        "OMP_WAIT_POLICY": "PASSIVE",
        "TOKENIZERS_PARALLELISM": "false",
        "HF_HUB_DISABLE_TELEMETRY": "1",
        "HF_HUB_DISABLE_PROGRESS_BARS": "1",
        "TRANSFORMERS_VERBOSITY": "error",
        "CUBLAS_WORKSPACE_CONFIG": ":4096:8",
    }
    for name, value in defaults.items():
        os.environ.setdefault(name, value)


def _make_deterministic(threads: int) -> None:
    """Makes what torch computes, where it was imported, a function of its inputs and of the number of threads."""
    torch = sys.modules.get("torch")
    if torch is not None:
        torch.set_num_threads(threads)
        torch.use_deterministic_algorithms(True)
        torch.utils.deterministic.fill_uninitialized_memory = False


def _die_with(parent: int) -> bool:
    """Has the kernel kill this process when its parent dies; False when it is dead already."""
    ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    return os.getppid() == parent


def _arguments(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m assay_training.run", description="Does one training run.")
    parser.add_argument("--run-spec", type=Path, required=True, help="JSON file, assay_training.spec.RunSpec")
    parser.add_argument("--resume", choices=["auto", "never"], default="auto", help="go on from the newest whole checkpoint, or start anew")
    parser.add_argument("--parent", type=int, default=0, help="process id of the service; the run dies with it")
    return parser.parse_args(argv)


if __name__ == "__main__":
    raise SystemExit(main())
