"""Metrics of the training service."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager

from prometheus_client import Counter, Gauge

STEPS = Counter("assay_training_steps_total", "Optimiser steps taken.", ["algorithm"])
JOBS = Gauge("assay_training_jobs", "Jobs in this process: waiting for room, or training.", ["state"])
RESTARTS = Counter("assay_training_restarts_total", "Runs started again after their process was killed.", ["algorithm"])
GATE_OVERRIDES = Counter("assay_training_gate_overrides_total", "Trainings that went on although the gate failed.")
GATE_REFUSALS = Counter("assay_training_gate_refusals_total", "Trainings that the gate refused.")

_OF_A_RUN = ["algorithm", "slot"]
"""A run has a slot while it is at work, 0 to ASSAY_TRAINING_CONCURRENCY - 1: job ids would be labels without end."""

PROGRESS_TIME = Gauge("assay_training_run_progress_timestamp_seconds", "When a run at work began or last told of progress.", _OF_A_RUN)
STEP = Gauge("assay_training_run_step", "Optimiser step that a run at work has come to.", _OF_A_RUN)
PLANNED_STEPS = Gauge("assay_training_run_planned_steps", "Optimiser steps that a run at work is to take.", _OF_A_RUN)
FIGURES = {
    "loss": Gauge("assay_training_run_loss", "Loss of the newest step of a run at work.", _OF_A_RUN),
    "grad_norm": Gauge("assay_training_run_gradient_norm", "Norm of the gradient of the newest step of a run at work.", _OF_A_RUN),
    "accuracy": Gauge(
        "assay_training_run_preference_accuracy_ratio", "Share of the newest pairs that a run at work has the right way round.", _OF_A_RUN
    ),
    "reward_raw": Gauge(
        "assay_training_run_reward", "Mean raw score, by the reward model trained against, of the newest answers.", _OF_A_RUN
    ),
    "kl": Gauge("assay_training_run_kl_nats", "Divergence of the newest answers from the policy a run started from, an answer.", _OF_A_RUN),
    "entropy": Gauge("assay_training_run_entropy_nats", "Entropy of the policy in training, a token.", _OF_A_RUN),
    "answer_tokens": Gauge("assay_training_run_answer_tokens", "Mean length of the newest answers.", _OF_A_RUN),
    "clipped_share": Gauge("assay_training_run_clipped_ratio", "Share of tokens whose update was clipped.", _OF_A_RUN),
    "scored_share": Gauge("assay_training_run_scored_ratio", "Share of the newest answers that the reward service scored.", _OF_A_RUN),
}
"""Figures that algorithms tell of, by the name under which they do; an algorithm tells of some of them."""


class RunSeries:
    """The series of one run at work; use `run_series`."""

    def __init__(self, algorithm: str, slot: int) -> None:
        self._labels = (algorithm, str(slot))

    def told(self, stage: str, done: int, total: int, figures: Mapping[str, float]) -> None:
        """Takes a line of progress."""
        PROGRESS_TIME.labels(*self._labels).set(time.time())
        if stage in ("train", "resume"):
            STEP.labels(*self._labels).set(done)
            PLANNED_STEPS.labels(*self._labels).set(total)
        for name, value in figures.items():
            if name in FIGURES:
                FIGURES[name].labels(*self._labels).set(value)

    def forget(self) -> None:
        """Takes all series away."""
        for gauge in (PROGRESS_TIME, STEP, PLANNED_STEPS, *FIGURES.values()):
            gauge.remove_by_labels(dict(zip(_OF_A_RUN, self._labels, strict=True)))


@contextmanager
def run_series(algorithm: str, slot: int) -> Iterator[RunSeries]:
    """Shows how far a run is and what it tells of while the context is open; nothing is left of it after."""
    series = RunSeries(algorithm, slot)
    PROGRESS_TIME.labels(algorithm, str(slot)).set(time.time())
    try:
        yield series
    finally:
        series.forget()
