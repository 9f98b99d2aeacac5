"""The remote rewards in TRL's own trainers, on a tiny model."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from support.service_thread import served
from support.tiny_models import write_tiny_causal_lm
from support.word_reward import WordReward, reward_door

from assay_client.trl import RemoteReward, SyncRemoteReward
from assay_kit.errors import Unavailable

datasets = pytest.importorskip("datasets")
trl = pytest.importorskip("trl")


@pytest.mark.parametrize(("algorithm", "remote_reward"), [("RLOO", RemoteReward), ("GRPO", SyncRemoteReward)])
def test_training_on_rewards_from_the_service_loses_none_to_its_absence(
    algorithm: str, remote_reward: type[RemoteReward] | type[SyncRemoteReward], tmp_path: Path
) -> None:
    servicer = WordReward()
    servicer.failures = [Unavailable("loading"), Unavailable("loading")]
    policy = write_tiny_causal_lm(tmp_path / "policy")
    prompts = datasets.Dataset.from_list([{"prompt": [{"role": "user", "content": f"Question {number}?"}]} for number in range(4)])
    with served([reward_door(servicer)], tmp_path) as target:
        reward = remote_reward(target, "words", patience_s=20)
        trainer = getattr(trl, f"{algorithm}Trainer")(
            model=str(policy),
            reward_funcs=[reward],
            train_dataset=prompts,
            args=getattr(trl, f"{algorithm}Config")(
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
    assert reward.fingerprint == servicer.fingerprint
