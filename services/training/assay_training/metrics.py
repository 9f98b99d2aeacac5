"""Metrics of the training service."""

from __future__ import annotations

from prometheus_client import Counter, Gauge

STEPS = Counter("assay_training_steps_total", "Optimiser steps taken.", ["algorithm"])
JOBS = Gauge("assay_training_jobs", "Jobs in this process: waiting for room, or training.", ["state"])
RESTARTS = Counter("assay_training_restarts_total", "Runs started again after their process was killed.", ["algorithm"])
GATE_OVERRIDES = Counter("assay_training_gate_overrides_total", "Trainings that went on although the gate failed.")
GATE_REFUSALS = Counter("assay_training_gate_refusals_total", "Trainings that the gate refused.")
