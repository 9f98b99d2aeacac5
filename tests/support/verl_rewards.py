"""verl's own reward managers, with the client's reward functions as verl's configuration names them: python verl_rewards.py TARGET.

Runs where verl is importable, and prints the rewards that verl put into its tensors.
"""

from __future__ import annotations

import asyncio
import json
import sys
from pathlib import Path

import numpy as np
import torch

sys.path.insert(0, str(Path(__file__).parents[1]))

import verl
from omegaconf import OmegaConf
from support.tiny_models import tiny_tokenizer
from support.verl_answers import ANSWERS, PROMPT
from verl import DataProto
from verl.trainer.ppo.reward import get_custom_reward_fn, load_reward_manager
from verl.workers.reward_manager import get_reward_manager_cls


def config(function: str, target: str, **more: str) -> OmegaConf:
    wanted = {"path": "pkg://assay_client.verl", "name": function, "reward_kwargs": {"target": target, **more}}
    manager = {"source": "register", "name": "naive", "module": None}
    return OmegaConf.create({"reward": {"custom_reward_function": wanted, "reward_manager": manager, "num_workers": 1}})


def rollouts(tokenizer) -> DataProto:
    answers = [tokenizer.encode(text, add_special_tokens=False) for text in ANSWERS]
    longest = max(map(len, answers))
    prompt = tokenizer.encode(PROMPT[0]["content"], add_special_tokens=False)
    padded = [ids + [tokenizer.pad_token_id] * (longest - len(ids)) for ids in answers]
    mask = [[1] * (len(prompt) + len(ids)) + [0] * (longest - len(ids)) for ids in answers]
    return DataProto.from_dict(
        tensors={
            "prompts": torch.tensor([prompt] * len(answers)),
            "responses": torch.tensor(padded),
            "attention_mask": torch.tensor(mask),
        },
        non_tensors={
            "data_source": np.array(["chat"] * len(answers), dtype=object),
            "reward_model": np.array([{"ground_truth": ""} for _ in answers], dtype=object),
            "extra_info": np.array([{"prompt": PROMPT} for _ in answers], dtype=object),
        },
    )


def main(target: str) -> None:
    tokenizer = tiny_tokenizer()
    found: dict[str, object] = {"version": verl.__version__}
    for function in ("compute_score", "compute_score_blocking"):
        manager = load_reward_manager(config(function, target), tokenizer)

        async def scored(manager=manager) -> list[dict]:
            data = rollouts(tokenizer)
            return await asyncio.gather(*(manager.run_single(data[at : at + 1]) for at in range(len(data))))

        found[function] = [one["reward_score"] for one in manager.loop.run_until_complete(scored())]
    batch = get_reward_manager_cls("batch")(tokenizer, 0, get_custom_reward_fn(config("compute_scores", target)))
    found["compute_scores"] = batch(rollouts(tokenizer), return_dict=True)["reward_tensor"].sum(dim=-1).tolist()
    wrong = load_reward_manager(config("compute_score", target, model="nobody"), tokenizer)
    try:
        wrong.loop.run_until_complete(wrong.run_single(rollouts(tokenizer)[:1]))
    except Exception as error:
        found["unknown"] = str(error)
    print(json.dumps(found))


if __name__ == "__main__":
    main(sys.argv[1])
