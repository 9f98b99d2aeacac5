"""Bradley-Terry reward models: a sequence classifier on a causal LM, trained with TRL."""

from __future__ import annotations

from pathlib import Path

import torch
from datasets import Dataset
from transformers import AutoModelForSequenceClassification, PreTrainedModel, PreTrainedTokenizerBase
from trl import RewardConfig, RewardTrainer
from trl.trainer.reward_trainer import suppress_seqcls_warning

from assay_training.bases import load_tokenizer, longest_input, model_path
from assay_training.examples import chosen_and_rejected, encode, require
from assay_training.fitting import PlannedOrderMixin, ProgressCallback, final_metrics, fit, settings
from assay_training.flips import flipped
from assay_training.order import planned_order, steps_of
from assay_training.runs import Outcome, Run, TrainingError
from assay_training.spec import RewardModelSpec

CENTER_REWARDS = 0.01
"""Weight of the pull of the scores to mean 0 (Eisenstein et al. 2023); without it only differences are determined."""

FIGURES = {"loss": "loss", "accuracy": "accuracy", "margin": "margin", "mean_reward": "mean_reward", "grad_norm": "grad_norm"}


class PlannedRewardTrainer(PlannedOrderMixin, RewardTrainer):  # type: ignore[misc]
    """TRL's reward trainer in a planned order."""


def train(run: Run) -> Outcome:
    """Trains a sequence classifier; its scores are the raw logits of the last token, the end mark of the answer."""
    spec = run.request.spec
    assert isinstance(spec, RewardModelSpec)
    pairs, flips = flipped(list(run.pairs()), rate=spec.label_flip_rate, seed=run.request.seed)
    require(pairs, uri=spec.data_uri, what="pair")
    model, tokenizer = _classifier(spec.model_uri, seed=run.request.seed)

    chosen, rejected = chosen_and_rejected(pairs)
    longest = longest_input(model, run.options.max_length)
    encoded = list(zip(encode(tokenizer, chosen), encode(tokenizer, rejected), strict=True))
    fitting = [(better, worse) for better, worse in encoded if max(len(better.answer_ids), len(worse.answer_ids)) < longest]
    examples = [(better.with_whole_answer(longest).ids, worse.with_whole_answer(longest).ids) for better, worse in fitting]
    require(examples, uri=spec.data_uri, what=f"pair whose answers are shorter than {longest} tokens")

    steps = steps_of(len(examples), batch_size=run.options.batch_size, epochs=run.options.epochs, max_steps=run.options.max_steps)
    trainer = PlannedRewardTrainer(
        model=model,
        args=RewardConfig(**settings(run, steps=steps), max_length=None, center_rewards_coefficient=CENTER_REWARDS),
        train_dataset=Dataset.from_dict({"chosen_ids": [c for c, _ in examples], "rejected_ids": [r for _, r in examples]}),
        processing_class=tokenizer,
        callbacks=[ProgressCallback(run.reporter, FIGURES)],
    )
    trainer.planned_order = planned_order(
        [max(len(better), len(worse)) for better, worse in examples], batch_size=run.options.batch_size, steps=steps, seed=run.request.seed
    )
    fit(trainer, run)

    def save(folder: Path) -> None:
        trainer.accelerator.unwrap_model(trainer.model).save_pretrained(folder)
        tokenizer.save_pretrained(folder)

    return Outcome(
        save=save,
        steps=steps,
        metrics=final_metrics(trainer, FIGURES),
        facts={
            "kind": "sequence_classifier",
            "examples": len(examples),
            "pairs_too_long": len(encoded) - len(examples),
            "prompts_cut": sum(max(len(better), len(worse)) > longest for better, worse in fitting),
            "labels_flipped": flips,
        },
    )


def _classifier(uri: str, *, seed: int) -> tuple[PreTrainedModel, PreTrainedTokenizerBase]:
    """A classifier with one output, whose new head depends on the seed only."""
    path = model_path(uri)
    tokenizer = load_tokenizer(path)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        try:
            with suppress_seqcls_warning():
                model = AutoModelForSequenceClassification.from_pretrained(path, num_labels=1, dtype="float32")
        except (OSError, ValueError) as error:
            raise TrainingError(f"model_uri: {uri} is no model that can be made a classifier: {error}") from error
        _separate_pad(model, tokenizer)
    model.config.pad_token_id = tokenizer.pad_token_id
    return model, tokenizer


def _separate_pad(model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase) -> None:
    """Sees to it that padding is not the end mark: the score is read at the last token that is not padding."""
    if tokenizer.pad_token_id not in (None, tokenizer.eos_token_id):
        return
    tokenizer.add_special_tokens({"pad_token": "<|pad|>"})
    if len(tokenizer) > model.get_input_embeddings().num_embeddings:
        model.resize_token_embeddings(len(tokenizer))
