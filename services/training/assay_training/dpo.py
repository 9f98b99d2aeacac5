"""Direct preference optimisation with TRL."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from datasets import Dataset
from trl import DPOConfig, DPOTrainer

from assay_training.bases import load_policy, longest_input
from assay_training.compact_head import use_compact_head
from assay_training.examples import chosen_and_rejected, encode, require
from assay_training.fitting import PlannedOrderMixin, ProgressCallback, final_metrics, fit, settings
from assay_training.order import planned_order, steps_of
from assay_training.runs import Outcome, Run
from assay_training.spec import DpoSpec

BETA = 0.1
"""Strength of the KL penalty where the spec has 0."""

FIGURES = {
    "loss": "loss",
    "rewards/accuracies": "accuracy",
    "rewards/margins": "margin",
    "rewards/chosen": "chosen_reward",
    "rewards/rejected": "rejected_reward",
    "grad_norm": "grad_norm",
}


class EncodedDpoTrainer(PlannedOrderMixin, DPOTrainer):  # type: ignore[misc]
    """TRL's DPO on pairs that are token ids already, in a planned order."""

    def _prepare_dataset(self, dataset: Dataset, *args: Any, **kwargs: Any) -> Dataset:
        return dataset


def train(run: Run) -> Outcome:
    """Raises the odds of the chosen answers against the rejected ones, held to the policy it starts from."""
    spec = run.request.spec
    assert isinstance(spec, DpoSpec)
    model, tokenizer = load_policy(spec.model_uri)
    reference, _ = load_policy(spec.model_uri)
    pairs = [pair for pair in run.pairs() if not pair.rejected_prompt and pair.chosen != pair.rejected]
    require(pairs, uri=spec.data_uri, what="pair of two different answers to one prompt")
    chosen, rejected = chosen_and_rejected(pairs)
    longest = longest_input(model, run.options.max_length)
    rows = []
    for better, worse in zip(encode(tokenizer, chosen), encode(tokenizer, rejected), strict=True):
        # One prompt for both: what fits beside the longer answer.
        longer = max(better, worse, key=lambda example: len(example.answer_ids))
        prompt_ids = longer.fitted(longest).prompt_ids
        room = longest - len(prompt_ids)
        rows.append({"prompt_ids": prompt_ids, "chosen_ids": better.answer_ids[:room], "rejected_ids": worse.answer_ids[:room]})

    steps = steps_of(len(rows), batch_size=run.options.batch_size, epochs=run.options.epochs, max_steps=run.options.max_steps)
    trainer = EncodedDpoTrainer(
        model=model,
        ref_model=reference,
        args=DPOConfig(**settings(run, steps=steps), beta=spec.beta or BETA, max_length=None),
        train_dataset=Dataset.from_list(rows),
        processing_class=tokenizer,
        callbacks=[ProgressCallback(run.reporter, FIGURES)],
    )
    use_compact_head(trainer.model)
    use_compact_head(trainer.ref_model)
    trainer.planned_order = planned_order(
        [len(row["prompt_ids"]) + max(len(row["chosen_ids"]), len(row["rejected_ids"])) for row in rows],
        batch_size=run.options.batch_size,
        steps=steps,
        seed=run.request.seed,
    )
    fit(trainer, run)

    def save(folder: Path) -> None:
        trainer.accelerator.unwrap_model(trainer.model).save_pretrained(folder)
        tokenizer.save_pretrained(folder)

    return Outcome(save=save, steps=steps, metrics=final_metrics(trainer, FIGURES), facts={"examples": len(rows)})
