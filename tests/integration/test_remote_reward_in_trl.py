"""RemoteReward in TRL's own RLOO trainer, on a tiny model."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from support.service_thread import served
from support.tiny_models import write_tiny_causal_lm
from support.word_reward import WordReward, reward_door

from assay_client.trl import RemoteReward
from assay_kit.errors import Unavailable

datasets = pytest.importorskip("datasets")
trl = pytest.importorskip("trl")


def test_rloo_trains_on_rewards_from_the_service_and_loses_none_to_its_absence(tmp_path: Path) -> None:
    servicer = WordReward()
    servicer.failures = [Unavailable("loading"), Unavailable("loading")]
    policy = write_tiny_causal_lm(tmp_path / "policy")
    prompts = datasets.Dataset.from_list([{"prompt": [{"role": "user", "content": f"Question {number}?"}]} for number in range(4)])
    with served([reward_door(servicer)], tmp_path) as target:
        trainer = trl.RLOOTrainer(
            model=str(policy),
            reward_funcs=[RemoteReward(target, "words", patience_s=20)],
            train_dataset=prompts,
            args=trl.RLOOConfig(
                output_dir=str(tmp_path / "out"),
                per_device_train_batch_size=4,
                num_generations=2,
                max_completion_length=8,
                max_steps=2,
                logging_steps=1,
                save_strategy="no",
                report_to=[],
                use_cpu=True,
                bf16=False,
                gradient_checkpointing=False,
                disable_tqdm=True,
            ),
        )
        trainer.train()
    logs = [entry for entry in trainer.state.log_history if "rewards/remote_reward/mean" in entry]
    assert len(logs) == 2, json.dumps(trainer.state.log_history)
    assert all(entry["remote_reward/missing"] == 0 for entry in logs)
    assert servicer.calls.count("group") >= 4
