"""What the trainers share: settings, the planned order, progress, and checkpoints that survive `kill -9`."""

from __future__ import annotations

import math
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from transformers import PrinterCallback, Trainer, TrainerCallback, TrainerControl, TrainerState, TrainingArguments

from assay_training.order import PlannedSampler
from assay_training.runs import Reporter, Run

WHOLE = "assay-checkpoint-is-whole"
"""Empty file that is written last into a checkpoint; a folder without it was cut short and is not used."""


def device_settings() -> dict[str, Any]:
    """The part of the trainer's settings that depends on the machine: no bf16 and no recomputation on a CPU."""
    on_cpu = not torch.cuda.is_available()
    return {"use_cpu": on_cpu, "bf16": not on_cpu, "gradient_checkpointing": False, "dataloader_pin_memory": not on_cpu}


def settings(run: Run, *, steps: int, checkpoint_every: int = 0) -> dict[str, Any]:
    """Keyword arguments of every `TrainingArguments` of the service.

    Args:
        run: the run.
        steps: optimiser steps of the whole run.
        checkpoint_every: steps between checkpoints; 0 means what the run asks for, or a quarter of the run.
    """
    every = checkpoint_every or run.options.checkpoint_steps or max(1, math.ceil(steps / 4))
    return {
        "output_dir": str(run.checkpoints),
        "max_steps": steps,
        "per_device_train_batch_size": run.options.batch_size,
        "learning_rate": run.options.learning_rate,
        "logging_steps": 1,
        "logging_nan_inf_filter": False,
        "save_steps": every,
        "save_total_limit": 2,
        "report_to": "none",
        "disable_tqdm": True,
        "seed": run.request.seed,
        "data_seed": run.request.seed,
        "remove_unused_columns": True,
        **device_settings(),
    }


class PlannedOrderMixin(Trainer):  # type: ignore[misc]
    """Feeds the examples in a planned order that covers the whole run as one pass."""

    planned_order: Sequence[int] = ()

    def _get_train_sampler(self, train_dataset: Any = None) -> PlannedSampler:
        return PlannedSampler(self.planned_order)

    def create_model_card(self, *args: Any, **kwargs: Any) -> None:
        """Writes no model card: training.json says where a model comes from."""


class ProgressCallback(TrainerCallback):  # type: ignore[misc]
    """Reports each logged step, and marks checkpoints as whole."""

    def __init__(self, reporter: Reporter, names: Mapping[str, str]) -> None:
        self._reporter = reporter
        self._names = names

    def on_log(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, logs: Mapping[str, Any] | None = None, **_: Any
    ) -> None:
        """Passes the figures of a step on, under the names that people know."""
        if not logs or "train_runtime" in logs:
            return
        metrics = {name: float(logs[key]) for key, name in self._names.items() if _is_number(logs.get(key))}
        self._reporter.progress("train", state.global_step, state.max_steps, metrics=metrics)

    def on_save(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any) -> None:
        """Marks the checkpoint that was just written."""
        (Path(str(args.output_dir)) / f"checkpoint-{state.global_step}" / WHOLE).touch()


def _is_number(value: Any) -> bool:
    return isinstance(value, (int, float)) and math.isfinite(value)


def newest_checkpoint(folder: Path) -> Path | None:
    """The newest whole checkpoint; what was cut short is removed."""
    whole: list[Path] = []
    for checkpoint in folder.glob("checkpoint-*"):
        if (checkpoint / WHOLE).exists():
            whole.append(checkpoint)
        else:
            shutil.rmtree(checkpoint)
    return max(whole, key=lambda path: int(path.name.rsplit("-", 1)[1]), default=None)


def fit(trainer: Trainer, run: Run) -> None:
    """Trains from the newest whole checkpoint, or from the start."""
    checkpoint = newest_checkpoint(run.checkpoints) if run.resume else None
    if checkpoint is not None:
        run.reporter.progress("resume", int(checkpoint.name.rsplit("-", 1)[1]), trainer.args.max_steps)
    trainer.remove_callback(PrinterCallback)
    trainer.train(resume_from_checkpoint=str(checkpoint) if checkpoint else None)


def final_metrics(trainer: Trainer, names: Mapping[str, str], *, steps: int = 20) -> dict[str, float]:
    """Mean of each figure over the last steps of the run, whatever process took them."""
    logs = [log for log in trainer.state.log_history if "train_runtime" not in log][-steps:]
    found = {name: [float(log[key]) for log in logs if _is_number(log.get(key))] for key, name in names.items()}
    return {name: sum(values) / len(values) for name, values in found.items() if values}
