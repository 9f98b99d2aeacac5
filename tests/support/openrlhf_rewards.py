"""OpenRLHF's own remote reward client against the reward service: python openrlhf_rewards.py URL FOLDER.

FOLDER holds OpenRLHF as it is installed. Its packages import deepspeed and ray as soon as anything of them is imported, so the two modules
that the client is made of are loaded from their files. Reads queries from its input and prints the rewards.
"""

from __future__ import annotations

import asyncio
import importlib.util
import json
import sys
from pathlib import Path
from types import ModuleType, SimpleNamespace

sys.path.insert(0, str(Path(__file__).parents[1]))

from support.tiny_models import tiny_tokenizer


def loaded(name: str, folder: Path) -> ModuleType:
    spec = importlib.util.spec_from_file_location(name, folder.joinpath(*name.split(".")).with_suffix(".py"))
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    spec.loader.exec_module(module)
    return module


class Policy:
    """Answers with the tokens it was given: what OpenRLHF asks its engine for."""

    def __init__(self, answer: list[int]) -> None:
        self.answer = answer

    async def generate(self, prompt_token_ids, sampling_params, multi_modal_data=None):
        return SimpleNamespace(outputs=[SimpleNamespace(token_ids=self.answer, finish_reason="stop", logprobs=None)])


async def main(url: str, folder: Path) -> None:
    asked = json.load(sys.stdin)
    loaded("openrlhf.utils.logging_utils", folder)
    agent = loaded("openrlhf.utils.agent", folder)
    executor = agent.SingleTurnAgentExecutor([f"{url}/get_reward", f"{url}/get_reward?model=rm"])
    queries = asked["queries"]
    shards = await executor._fetch_rewards_via_http(queries, queries, [None] * len(queries))
    tokenizer = tiny_tokenizer()
    policy = Policy(tokenizer.encode(asked["answer"], add_special_tokens=False))
    sampling = SimpleNamespace(max_tokens=64, logprobs=None)
    rollout = await executor.execute(asked["prompt"], "a label", sampling, 512, tokenizer, policy)
    print()
    print(
        json.dumps(
            {
                "shards": len(shards),
                "rewards": [reward for shard in shards for reward in shard["rewards"]],
                "rollout": [rollout["reward"], rollout["scores"], rollout["extra_logs"]],
                "query": tokenizer.decode(rollout["observation_tokens"], skip_special_tokens=False),
            }
        )
    )


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1], Path(sys.argv[2])))
