"""PPO against a model of the reward service."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

from datasets import Dataset
from trl import RLOOConfig

from assay.reward.v1 import reward_pb2
from assay_client.channels import Security
from assay_client.reward import score_options
from assay_client.trl import RemoteReward
from assay_training.bases import load_policy, longest_input
from assay_training.examples import require
from assay_training.fitting import ProgressCallback, final_metrics, fit, settings
from assay_training.ppo_trainer import PpoTerms, PpoTrainer
from assay_training.prompts import planned_prompts, prompts_of
from assay_training.runs import Outcome, Run, TrainingError
from assay_training.snapshots import MIN_NEW_TOKENS, Snapshots, save_policy
from assay_training.spec import PpoSpec

BETA = 0.05
ROLLOUT_SIZE = 64
ROLLOUTS = 10
EPOCHS_PER_ROLLOUT = 2
MAX_NEW_TOKENS = 48
GENERATIONS = 4
"""Answers to each prompt of a rollout."""

FIGURES = {
    "reward": "reward",
    "reward_raw": "reward_raw",
    "kl_per_answer": "kl",
    "entropy": "entropy",
    "policy_loss": "policy_loss",
    "value_loss": "value_loss",
    "explained_variance": "explained_variance",
    "clipped_share": "clipped_share",
    "completions/mean_length": "answer_tokens",
    "scored_share": "scored_share",
    "loss": "loss",
}


class TrimmedReward:
    """Hands answers to the reward service as people would write them: without the space that a template puts before them."""

    __name__ = "reward_model"

    def __init__(self, remote: RemoteReward) -> None:
        self._remote = remote

    async def __call__(self, prompts: Any, completions: Any, **kwargs: Any) -> list[float | None]:
        """One raw score an answer; None where the service did not give one."""
        trimmed = [[{**turn, "content": turn["content"].strip()} for turn in completion] for completion in completions]
        scores: list[float | None] = await self._remote(prompts=prompts, completions=trimmed, **kwargs)
        return scores


def train(run: Run) -> Outcome:
    """Raises the reward of the policy's own answers, held to where it starts by a KL penalty in the reward."""
    spec = run.request.spec
    assert isinstance(spec, PpoSpec)
    shape = _shape(spec, run.options.batch_size)
    model, tokenizer = load_policy(spec.model_uri)
    tokenizer.padding_side = "left"
    longest = longest_input(model, run.options.max_length + shape["max_new_tokens"]) - shape["max_new_tokens"]
    prompts, too_long = prompts_of(run, tokenizer, longest=longest)
    require(prompts, uri=spec.data_uri, what=f"prompt whose last turn has at most {longest} tokens")
    planned = planned_prompts(prompts, shape["rollouts"] * shape["rollout_size"] // GENERATIONS, seed=run.request.seed)

    steps_per_rollout = shape["epochs"] * shape["minibatches"]
    steps = run.options.max_steps or shape["rollouts"] * steps_per_rollout
    every = max(1, round((run.options.checkpoint_steps or -(-steps // 4)) / steps_per_rollout)) * steps_per_rollout
    common = {**settings(run, steps=steps, checkpoint_every=every), "remove_unused_columns": False}
    common["per_device_train_batch_size"] = shape["rollout_size"] // shape["minibatches"]
    remote = RemoteReward(
        run.spec.reward_target,
        spec.gate.reward_model,
        patience_s=run.spec.reward_patience_s,
        options=score_options(truncation=reward_pb2.TRUNCATION_POLICY_PROMPT_LEFT),
        expected_fingerprint=run.spec.reward_fingerprint,
        security=Security.from_folder(run.spec.tls_dir),
    )
    trainer = PpoTrainer(
        model=model,
        reward_funcs=TrimmedReward(remote),
        args=RLOOConfig(
            **common,
            beta=spec.beta or BETA,
            num_generations=GENERATIONS,
            num_iterations=shape["epochs"],
            steps_per_generation=shape["minibatches"],
            max_completion_length=shape["max_new_tokens"],
            temperature=1.0,
            generation_kwargs={"min_new_tokens": min(MIN_NEW_TOKENS, shape["max_new_tokens"])},
            shuffle_dataset=False,
        ),
        train_dataset=Dataset.from_dict({"prompt": planned}),
        processing_class=tokenizer,
        callbacks=[ProgressCallback(run.reporter, FIGURES)],
        terms=PpoTerms(reward_mean=run.spec.reward_mean, reward_std=run.spec.reward_std),
    )
    saver = Snapshots(
        run, trainer, tokenizer, planned, every=spec.snapshot_rollouts * steps_per_rollout, steps_per_rollout=steps_per_rollout
    )
    trainer.add_callback(saver)
    fit(trainer, run)
    metrics = final_metrics(trainer, FIGURES, steps=2 * steps_per_rollout)
    divergence = saver.divergence()
    names = saver.written(steps)

    def save(folder: Path) -> None:
        save_policy(trainer, tokenizer, folder)
        for name in names:
            shutil.copytree(run.snapshots / name, folder / "snapshots" / name)

    return Outcome(
        save=save,
        steps=steps,
        metrics={**metrics, "kl": divergence["kl"], "kl_standard_error": divergence["standard_error"]},
        facts={
            "prompts": len(prompts),
            "prompts_too_long": too_long,
            "rollouts": _rollouts(trainer, steps_per_rollout),
            "kl_to_start": divergence,
            "snapshots": [
                json.loads((run.snapshots / name / "snapshot.json").read_text()) | {"path": f"snapshots/{name}"} for name in names
            ],
        },
    )


def _shape(spec: PpoSpec, batch_size: int) -> dict[str, int]:
    rollout_size = spec.rollout_size or ROLLOUT_SIZE
    minibatch = min(batch_size, rollout_size)
    if rollout_size % minibatch:
        raise TrainingError(f"optimizer.batch_size: {minibatch} must divide the rollout_size, {rollout_size}")
    return {
        "rollout_size": rollout_size,
        "rollouts": spec.rollouts or ROLLOUTS,
        "epochs": spec.epochs_per_rollout or EPOCHS_PER_ROLLOUT,
        "minibatches": rollout_size // minibatch,
        "max_new_tokens": spec.max_new_tokens or MAX_NEW_TOKENS,
    }


def _rollouts(trainer: PpoTrainer, steps_per_rollout: int) -> list[dict[str, float]]:
    """Reward and divergence of each rollout, from the trainer's log, which a resumed run has whole."""
    rows = []
    for log in trainer.state.log_history:
        if "kl_per_answer" in log:
            figures = {name: float(log[key]) for key, name in FIGURES.items() if isinstance(log.get(key), (int, float))}
            rows.append({"rollout": (int(log["step"]) - 1) // steps_per_rollout, **figures})
    return rows
