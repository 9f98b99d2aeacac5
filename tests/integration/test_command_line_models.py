"""`assay models` against real services: what is listed of models that come, fail and leave."""

import asyncio
import os
import re
import subprocess
import sys
from pathlib import Path

from support.policy_service import policy_service
from support.reward_service import reward_service
from support.tiny_models import write_tiny_reward_model


async def test_the_list_shows_state_aliases_memory_and_why_a_model_is_not_there(tmp_path: Path) -> None:
    folders = [str(write_tiny_reward_model(tmp_path / f"m{seed}", seed, hidden_size=128)) for seed in range(3)]
    async with (
        reward_service(tmp_path / "reward", reward_memory_mib=5, reward_evict=True) as reward,
        policy_service(tmp_path / "policy") as policy,
    ):

        async def assay(*arguments: str) -> subprocess.CompletedProcess[str]:
            command = [sys.executable, "-m", "assay_cli.main", "models", *arguments, "--data-dir", str(tmp_path / "none")]
            environment = {**os.environ, "ASSAY_REWARD_TARGET": reward.target, "ASSAY_POLICY_TARGET": policy.target}
            return await asyncio.to_thread(
                subprocess.run, command, capture_output=True, text=True, timeout=120, env=environment, check=False
            )

        for name, folder in zip(("first", "second", "third"), folders, strict=True):
            told = await assay("load", "reward", name, folder)
            assert told.returncode == 0 and "is loaded" in told.stdout, told.stderr
        listed = (await assay("list")).stdout
        rows = {line.split()[1]: line for line in listed.splitlines() if line.startswith("│")}
        assert re.search(r"ready .* default .* [12]\.\d MiB .* –", rows["first"])
        assert re.search(r"evicted .* – .* –", rows["second"])
        assert re.search(r"ready .* [12]\.\d MiB", rows["third"]) and "default" not in rows["third"]
        assert "second: left memory to make room for third; load it again to use it" in listed
        assert (await assay("alias", "best", "third")).returncode == 0
        told = await assay("load", "reward", "second", folders[1])
        assert told.returncode == 3 and "try again" not in told.stderr
        for part in ("RESOURCE_EXHAUSTED", "unload a model such as", "ASSAY_REWARD_MEMORY_MIB", "(alias best)", "(alias default)"):
            assert part in told.stderr
