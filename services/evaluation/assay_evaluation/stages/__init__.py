"""What each kind of stage does: one module a kind, found here by name."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from assay_evaluation.stages import (
    benchmark,
    best_of_n,
    clean,
    evaluate_policies,
    label,
    report,
    sample,
    split,
    train,
)
from assay_evaluation.stages.context import StageContext

Run = Callable[[StageContext, Any], dict[str, Any]]

RUNS: Mapping[str, Run] = {
    "clean": clean.run,
    "split": split.run,
    "sft": train.run_sft,
    "reward_model": train.run_reward_model,
    "sample": sample.run,
    "label": label.run,
    "benchmark": benchmark.run,
    "best_of_n": best_of_n.run,
    "dpo": train.run_dpo,
    "ppo": train.run_ppo,
    "evaluate_policies": evaluate_policies.run,
    "report": report.run,
}
"""A stage's function takes its context and its configuration, and returns {"artifacts": {output: uri}, "figures": …}; all JSON."""
