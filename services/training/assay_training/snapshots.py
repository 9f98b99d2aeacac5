"""Policies saved on the way of a PPO run, each with its divergence from where it started."""

from __future__ import annotations

import json
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from transformers import PreTrainedModel, PreTrainedTokenizerBase, TrainerCallback, TrainerControl, TrainerState, TrainingArguments

from assay_training.divergence import measure_kl
from assay_training.ppo_trainer import PpoTrainer
from assay_training.runs import Run

MIN_NEW_TOKENS = 4
"""Shortest answer; without it a policy this small can end at once and never learn what else it could have said."""
KL_ANSWERS = 64
"""Answers that the divergence of a saved policy is estimated on."""


def save_policy(trainer: PpoTrainer, tokenizer: PreTrainedTokenizerBase, folder: Path) -> None:
    """Writes the policy without its value head."""
    policy: PreTrainedModel = trainer.accelerator.unwrap_model(trainer.model)
    weights = {name: tensor for name, tensor in policy.state_dict().items() if not name.startswith("v_head.")}
    policy.save_pretrained(folder, state_dict=weights)
    tokenizer.save_pretrained(folder)


class Snapshots(TrainerCallback):  # type: ignore[misc]
    """Saves the policy on the way, each with its divergence from where it started."""

    def __init__(
        self,
        run: Run,
        trainer: PpoTrainer,
        tokenizer: PreTrainedTokenizerBase,
        prompts: Sequence[Any],
        *,
        every: int,
        steps_per_rollout: int,
    ) -> None:
        self._run, self._trainer, self._tokenizer = run, trainer, tokenizer
        self._prompts = list(prompts[: KL_ANSWERS // trainer.num_generations])
        self._every, self._steps_per_rollout = every, steps_per_rollout

    def on_step_end(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any) -> None:
        """Saves after the last step of a rollout whose turn it is; before a checkpoint of the same step is written."""
        if not self._every or state.global_step % self._every or state.global_step >= state.max_steps:
            return
        rollout = state.global_step // self._steps_per_rollout
        folder = self._run.snapshots / f"rollout-{rollout}"
        shutil.rmtree(folder, ignore_errors=True)
        save_policy(self._trainer, self._tokenizer, folder)
        facts = {"rollout": rollout, "step": state.global_step, "kl_to_start": self.divergence()}
        (folder / "snapshot.json").write_text(json.dumps(facts, indent=2) + "\n")

    def divergence(self) -> dict[str, float]:
        """KL divergence of the policy as it is from the one it started as, in nats an answer."""
        trainer = self._trainer
        return measure_kl(
            trainer.accelerator.unwrap_model(trainer.model),
            trainer.ref_model,
            self._tokenizer,
            self._prompts,
            answers_per_prompt=trainer.num_generations,
            max_new_tokens=trainer.max_completion_length,
            min_new_tokens=min(MIN_NEW_TOKENS, trainer.max_completion_length),
            seed=self._run.request.seed,
        )

    def written(self, steps: int) -> list[str]:
        """Names of the snapshots of the run, in order."""
        if not self._every:
            return []
        return [f"rollout-{step // self._steps_per_rollout}" for step in range(self._every, steps, self._every)]
