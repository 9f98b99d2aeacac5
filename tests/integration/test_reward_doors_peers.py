"""The further doors with the clients that they are for: tritonclient and OpenRLHF's trainer.

Neither is among the project's packages, as their pins are not the project's. They are installed without what they pin, in a folder of the
test, from the package index or the installer's cache.
"""

from __future__ import annotations

import asyncio
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from support.reward_doors import Doors, doors
from support.reward_service import group
from support.tiny_models import write_tiny_reward_model

from assay.reward.v1 import reward_pb2

TRITON = ["tritonclient==2.73.0", "python-rapidjson==1.25", "ml-dtypes==0.5.4", "protobuf==6.33.5"]
OPENRLHF = ["openrlhf==0.11.2"]
TEXTS = ["\n\nHuman: Hello\n\nAssistant: Hi.<|eos|>", "  two spaces ", "Grüße, 世界 \U0001f35e", "word " * 60]
ANSWERS = ["Mix flour.", "", "No."]


def installed(folder: Path, packages: list[str]) -> Path:
    uv = shutil.which("uv") or str(Path(sys.executable).with_name("uv"))
    command = [uv, "pip", "install", "-q", "--python", sys.executable, "--no-deps", "--target", str(folder), *packages]
    ran = subprocess.run(command, capture_output=True, text=True)
    if ran.returncode:
        pytest.skip(f"{packages[0]} cannot be installed here: {ran.stderr.strip()[-300:]}")
    return folder


async def told(script: str, *arguments: str, asked: object, path: Path | None = None) -> dict[str, object]:
    """Runs a script of tests/support and gives the JSON of its last line."""
    environment = {**os.environ, **({"PYTHONPATH": str(path)} if path else {})}
    command = [sys.executable, str(Path(__file__).parents[1] / "support" / script), *arguments]
    process = await asyncio.create_subprocess_exec(
        *command, env=environment, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE
    )
    out, errors = await process.communicate(json.dumps(asked).encode())
    assert process.returncode == 0, errors.decode()[-3000:]
    found: dict[str, object] = json.loads(out.splitlines()[-1])
    return found


async def raw_scores(service: Doors, texts: list[str]) -> list[float]:
    items = [reward_pb2.ScoreItem(raw_text=text) for text in texts]
    reply = await service.grpc.reward.ScoreBatch(reward_pb2.ScoreBatchRequest(items=items))
    return [result.score.raw for result in reply.results]


async def test_tritonclient_works_unchanged(tmp_path: Path) -> None:
    folder = installed(tmp_path / "triton", TRITON)
    async with doors(tmp_path / "reward") as service:
        await service.grpc.load("rm", write_tiny_reward_model(tmp_path / "rm"))
        asked = {"texts": TEXTS, "prompt": "How do I bake bread?", "responses": ANSWERS}
        found = await told("triton_scores.py", service.target, asked=asked, path=folder)
        assert found["scores"] == await raw_scores(service, TEXTS) and found["type"] == "float64"
        assert found["answers"] == [score.raw for score in (await service.grpc.reward.ScoreGroup(group(ANSWERS))).scores]
    assert (found["live"], found["ready"], found["models"], found["server"]) == (True, True, [True, False], "assay-reward")
    assert (found["inputs"], found["id"], found["version"]) == (["text", "prompt", "response"], "seven", "2.73.0")
    refused = {name: found[name] for name in ("unknown", "numbers", "priority", "late")}
    assert {name: code for name, (code, _) in refused.items()} == {  # type: ignore[misc]
        "unknown": "StatusCode.NOT_FOUND",
        "numbers": "StatusCode.INVALID_ARGUMENT",
        "priority": "StatusCode.INVALID_ARGUMENT",
        "late": "StatusCode.DEADLINE_EXCEEDED",
    }
    assert "rm" in refused["unknown"][1] and "BYTES" in refused["numbers"][1]  # type: ignore[index]


async def test_openrlhfs_trainer_takes_its_rewards_from_the_service(tmp_path: Path) -> None:
    folder = installed(tmp_path / "openrlhf", OPENRLHF)
    async with doors(tmp_path / "reward") as service:
        await service.grpc.load("rm", write_tiny_reward_model(tmp_path / "rm"))
        asked = {"queries": TEXTS, "prompt": "\n\nHuman: Hello\n\nAssistant:", "answer": " Hi, how are you?"}
        found = await told("openrlhf_rewards.py", service.url, str(folder), asked=asked)
        assert (found["shards"], found["rewards"]) == (2, await raw_scores(service, TEXTS))
        [reward] = await raw_scores(service, ["\n\nHuman: Hello\n\nAssistant: Hi, how are you?"])
    assert (found["query"], found["rollout"]) == ("\n\nHuman: Hello\n\nAssistant: Hi, how are you?", [[reward], [reward], {}])
