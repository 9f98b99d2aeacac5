"""Supervised fine-tuning with TRL, of a given causal LM or of a new one."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from itertools import chain
from pathlib import Path
from typing import Any

from datasets import Dataset
from transformers import PreTrainedModel, PreTrainedTokenizerBase
from trl import SFTConfig, SFTTrainer

from assay_data.conversations import Message
from assay_training.bases import load_policy, longest_input
from assay_training.compact_head import compact_head_fits, labelled_log_probs
from assay_training.examples import Encoded, as_turns, chosen_and_rejected, encode, render, require
from assay_training.fitting import PlannedOrderMixin, ProgressCallback, final_metrics, fit, settings
from assay_training.order import planned_order, steps_of
from assay_training.runs import Outcome, Run
from assay_training.spec import ScratchModel, SftSpec
from assay_training.tokenizer import CHAT_TEMPLATE, scratch_model, train_tokenizer

IGNORED = -100

FIGURES = {"loss": "loss", "grad_norm": "grad_norm"}


class LeanSftTrainer(PlannedOrderMixin, SFTTrainer):  # type: ignore[misc]
    """TRL's SFT without the metrics over the vocabulary, which cost as much as the training itself on small models."""

    def compute_loss(self, model: Any, inputs: dict[str, Any], return_outputs: bool = False, num_items_in_batch: Any = None) -> Any:
        """Mean negative log-likelihood of the labelled tokens."""
        if return_outputs or not self._compact:
            return super().compute_loss(model, inputs, return_outputs, num_items_in_batch)
        labels = inputs["labels"]
        mask, _, log_probs = labelled_log_probs(
            self.accelerator.unwrap_model(model), labels, input_ids=inputs["input_ids"], attention_mask=inputs["attention_mask"]
        )
        count = mask.sum() if num_items_in_batch is None else num_items_in_batch
        self._metrics["train"] = defaultdict(list)
        return -log_probs.sum() / count

    @property
    def _compact(self) -> bool:
        return compact_head_fits(self.accelerator.unwrap_model(self.model))


def train(run: Run) -> Outcome:
    """Trains on the chosen answers, and on the rejected where the spec says so."""
    spec = run.request.spec
    assert isinstance(spec, SftSpec)
    chosen, rejected = chosen_and_rejected(run.pairs())
    answered = chosen + rejected if spec.include_rejected else chosen
    answered = [(prompt, answer) for prompt, answer in answered if answer.strip()]
    require(answered, uri=spec.data_uri, what="pair with an answer that is not empty")

    if spec.scratch is not None:
        run.reporter.progress("tokenizer")
        model, tokenizer = _new_policy(spec.scratch, answered, seed=run.request.seed)
    else:
        model, tokenizer = load_policy(spec.model_uri)
    whole = encode(tokenizer, answered)
    longest = longest_input(model, run.options.max_length)
    examples = [example.fitted(longest) for example in whole]
    rows = _rows(examples, everything=spec.scratch is not None)

    steps = steps_of(len(rows), batch_size=run.options.batch_size, epochs=run.options.epochs, max_steps=run.options.max_steps)
    trainer = LeanSftTrainer(
        model=model,
        args=SFTConfig(**settings(run, steps=steps), max_length=None, warmup_steps=max(1, steps // 20), lr_scheduler_type="cosine"),
        train_dataset=rows,
        processing_class=tokenizer,
        callbacks=[ProgressCallback(run.reporter, FIGURES)],
    )
    trainer.planned_order = planned_order(
        [len(example) for example in examples], batch_size=run.options.batch_size, steps=steps, seed=run.request.seed
    )
    fit(trainer, run)

    def save(folder: Path) -> None:
        trainer.accelerator.unwrap_model(trainer.model).save_pretrained(folder)
        tokenizer.save_pretrained(folder)

    return Outcome(
        save=save,
        steps=steps,
        metrics=final_metrics(trainer, FIGURES),
        facts={"examples": len(rows), "examples_cut": sum(len(example) > longest for example in whole)},
    )


def _new_policy(
    shape: ScratchModel, answered: Sequence[tuple[Sequence[Message], str]], *, seed: int
) -> tuple[PreTrainedModel, PreTrainedTokenizerBase]:
    blank = train_tokenizer([], vocab_size=shape.vocab_size, max_context_tokens=shape.max_context_tokens)
    assert blank.chat_template == CHAT_TEMPLATE
    texts = render(blank, [as_turns(prompt) + [{"role": "assistant", "content": answer}] for prompt, answer in answered])
    tokenizer = train_tokenizer(texts, vocab_size=shape.vocab_size, max_context_tokens=shape.max_context_tokens)
    return scratch_model(shape, tokenizer, seed=seed), tokenizer


def _rows(examples: Sequence[Encoded], *, everything: bool) -> Dataset:
    """Ids and labels; a model made from nothing learns from prompts too, any other from answers only."""
    return Dataset.from_dict(
        {
            "input_ids": [example.ids for example in examples],
            "labels": [
                example.ids if everything else list(chain([IGNORED] * len(example.prompt_ids), example.answer_ids)) for example in examples
            ],
        }
    )
