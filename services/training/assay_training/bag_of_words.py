"""The bag-of-words reward model: fitted at once, on the CPU, without torch."""

from __future__ import annotations

import math

from assay_data.bag_of_words import fit_bag_of_words
from assay_training.flips import flipped
from assay_training.runs import Outcome, Run, TrainingError
from assay_training.spec import RewardModelSpec


def train(run: Run) -> Outcome:
    """Fits the words of the answers to the labels."""
    spec = run.request.spec
    assert isinstance(spec, RewardModelSpec)
    pairs, flips = flipped(list(run.pairs()), rate=spec.label_flip_rate, seed=run.request.seed)
    run.reporter.progress("train", 0, 1, unit="fits")
    try:
        model = fit_bag_of_words(pairs, seed=run.request.seed)
    except ValueError as error:
        raise TrainingError(f"{spec.data_uri}: {error}") from error
    chosen = model.score([pair.chosen for pair in pairs])
    rejected = model.score([pair.rejected for pair in pairs])
    margins = chosen - rejected
    metrics = {
        "loss": float(sum(math.log1p(math.exp(-min(max(margin, -500.0), 500.0))) for margin in margins) / len(margins)),
        "accuracy": float(((margins > 0) + 0.5 * (margins == 0)).mean()),
        "margin": float(margins.mean()),
    }
    run.reporter.progress("train", 1, 1, unit="fits", metrics=metrics)
    return Outcome(
        save=model.save,
        steps=1,
        metrics=metrics,
        facts={"kind": "bag_of_words", "examples": len(pairs), "labels_flipped": flips, "words": len(model.vocabulary)},
    )
