"""`make bench-reward`: the reward service against its peers; writes out/bench/reward.json.

Exits 1 where a peer's raw score differs from this service's by more than 1e-4 relative, in float32.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import signal
import sys
import tempfile
import time
from pathlib import Path
from types import FrameType

from benchmarks.reward_peers.checkpoints import SIZES, checkpoint
from benchmarks.reward_peers.loads import LOADS
from benchmarks.reward_peers.report import OURS, document, print_report, wrong
from benchmarks.reward_peers.runs import Findings, Plan, lone_request, run, started
from benchmarks.reward_peers.subjects import SUBJECTS, Assay, Bound
from rich.console import Console

_QUICK_LOADS = ["single-hh", "best-of-16-hh"]


def main() -> int:
    options = _options()
    signal.signal(signal.SIGTERM, _interrupt)
    began, load_before = time.monotonic(), os.getloadavg()[0]
    findings = Findings()
    plan = Plan(
        subjects=options.subjects,
        loads=[LOADS[name] for name in options.loads],
        dtype=options.dtype,
        repetitions=options.repetitions,
        budget_seconds=options.budget,
        part=0.5 if options.quick else 1.0,
    )
    for model in options.models:
        folder = checkpoint(model, options.out / "models")
        with (
            tempfile.TemporaryDirectory() as state,
            started(plan.subjects, folder, dtype=plan.dtype, state=Path(state), findings=findings) as subjects,
        ):
            asyncio.run(run(plan, model, subjects, findings))
            assay = next((one for one in subjects if isinstance(one, Assay)), None)
            bound = next((one for one in subjects if isinstance(one, Bound)), None)
            if assay is not None and bound is not None:
                findings.lone_ms[model] = lone_request(assay, bound, times=50 if options.quick else 200)
    target = options.out / "reward.json"
    target.parent.mkdir(parents=True, exist_ok=True)
    found = document(findings, seconds=time.monotonic() - began, load_before=load_before)
    target.write_text(json.dumps(found, indent=2) + "\n")
    console = Console(width=None if sys.stdout.isatty() else 180)
    print_report(findings, console)
    machine = found["machine"]
    console.print(
        f"{machine['processor']}, {machine['cores']} cores; "
        f"load {machine['load_before']} before and {machine['load_after']} after; in {options.out.name}/{target.name}"
    )
    failures = wrong(findings)
    for line in failures:
        console.print(f"wrong: {line}", markup=False)
    return 1 if failures else 0


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="bench-reward", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "--quick", action="store_true", help="two minutes: half of the texts and, unless named, the small model and two loads"
    )
    parser.add_argument("--subjects", nargs="+", choices=SUBJECTS, default=list(SUBJECTS), help="who is measured")
    parser.add_argument("--loads", nargs="+", choices=LOADS, help="of which work")
    parser.add_argument("--models", nargs="+", choices=SIZES, help="with which models")
    parser.add_argument("--dtype", choices=("float32", "bfloat16"), default="float32", help="of every subject's weights")
    parser.add_argument("--repetitions", type=int, default=3, help="of each load")
    parser.add_argument(
        "--budget", type=float, default=12.0, help="seconds of one subject's repetitions of one load before it gets no more"
    )
    parser.add_argument("--out", type=Path, default=Path("out/bench"), help="folder for models and results")
    options = parser.parse_args()
    options.loads = options.loads or (_QUICK_LOADS if options.quick else list(LOADS))
    options.models = options.models or (["5m"] if options.quick else list(SIZES))
    if OURS not in options.subjects:
        parser.error(f"{OURS} is what the others are held against: name it too")
    options.out = options.out.resolve()
    return options


def _interrupt(number: int, frame: FrameType | None) -> None:
    raise KeyboardInterrupt


if __name__ == "__main__":
    try:
        raise SystemExit(main())
    except KeyboardInterrupt:
        raise SystemExit(130) from None
