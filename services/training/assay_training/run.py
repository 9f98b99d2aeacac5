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

PROCESS_NAME = "assay-run"
"""What `ps` and `top` call the process of a run."""
_PR_SET_PDEATHSIG, _PR_SET_NAME = 1, 15


def main(argv: Sequence[str] | None = None) -> int:
    """Does one run; returns the exit code."""
    arguments = _arguments(argv)
    # What libraries print must not come between the lines of progress.
    progress = os.fdopen(os.dup(sys.stdout.fileno()), "w", encoding="utf-8")
    os.dup2(sys.stderr.fileno(), sys.stdout.fileno())
    reporter = Reporter(progress)
    if arguments.parent and not die_with(arguments.parent):
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
    reporter.progress("start", message=f"{request.algorithm}: reading {request.spec.data_uri}")
    run = Run(spec=spec, options=request.optimizer.with_defaults(defaults_of(request)), reporter=reporter, resume=resume)
    importlib.import_module("assay_training.preloaded")
    module = importlib.import_module(module_of(request))
    _make_deterministic(request.threads or 1)
    outcome: Outcome = module.train(run)
    reporter.progress("export", message=f"writing {request.output_uri}")
    publish(run, outcome)
    reporter.progress("done", outcome.steps, outcome.steps, metrics=outcome.metrics)


def _make_deterministic(threads: int) -> None:
    """Makes what torch computes, where it was imported, a function of its inputs and of the number of threads."""
    torch = sys.modules.get("torch")
    if torch is not None:
        torch.set_num_threads(threads)
        torch.use_deterministic_algorithms(True)
        torch.utils.deterministic.fill_uninitialized_memory = False


def die_with(parent: int) -> bool:
    """Names this process, and has the kernel kill it when its parent dies; False when that is dead already."""
    libc = ctypes.CDLL(None, use_errno=True)
    libc.prctl(_PR_SET_NAME, PROCESS_NAME.encode())
    libc.prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    return os.getppid() == parent


def _arguments(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m assay_training.run", description="Does one training run.")
    parser.add_argument("--run-spec", type=Path, required=True, help="JSON file, assay_training.spec.RunSpec")
    parser.add_argument("--resume", choices=["auto", "never"], default="auto", help="go on from the newest whole checkpoint, or start anew")
    parser.add_argument("--parent", type=int, default=0, help="process id of the parent; the run dies with it")
    return parser.parse_args(argv)


if __name__ == "__main__":
    raise SystemExit(main())
