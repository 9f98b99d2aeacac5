"""`assay models shadow` against a real reward service."""

import asyncio
import json
import os
import subprocess
import sys
from pathlib import Path

import grpc
from support.reward_service import RewardClient, group
from support.tiny_models import write_tiny_reward_model

from assay_kit.server import running
from assay_reward.app import reward_app
from assay_reward.settings import RewardSettings


async def test_a_candidate_is_set_looked_at_and_ended_from_the_command_line(tmp_path: Path) -> None:
    app = reward_app(RewardSettings(data_dir=tmp_path / "reward"))
    async with running(app) as target, grpc.aio.insecure_channel(target) as channel:
        client = RewardClient(channel)
        await client.load("current", write_tiny_reward_model(tmp_path / "0"))
        await client.load("other", write_tiny_reward_model(tmp_path / "1", seed=1))

        async def assay(*arguments: str) -> subprocess.CompletedProcess[str]:
            command = [sys.executable, "-m", "assay_cli.main", "models", "shadow", *arguments, "--data-dir", str(tmp_path / "none")]
            environment = {**os.environ, "ASSAY_REWARD_TARGET": target}
            return await asyncio.to_thread(
                subprocess.run, command, capture_output=True, text=True, timeout=120, env=environment, check=False
            )

        begun = await assay("current", "--candidate", "other")
        assert begun.returncode == 0 and "0 of 0 calls compared" in begun.stdout, begun.stderr
        await client.reward.ScoreGroup(group(["one", "two", "three"]))
        told = json.loads((await assay("current", "--json")).stdout)
        assert told["candidate"]["model"] == "other" and told["calls_seen"] in (1, "1")
        ended = await assay("current", "--end")
        assert ended.returncode == 0 and "of 1 calls compared" in ended.stdout, ended.stderr
        assert "had no shadow" in (await assay("current", "--end")).stdout
