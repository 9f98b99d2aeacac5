"""The reward functions for verl in verl's own reward managers.

verl wants ray and pins that the project does not have, so it is installed without them, in a folder of this test, from the package
index or the installer's cache.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from support.reward_server import reward_in_thread
from support.tiny_models import write_tiny_reward_model
from support.verl_answers import ANSWERS, PROMPT

from assay_client import RewardClient

PACKAGES = [
    "verl==0.9.1",
    "ray==2.60.0",
    "tensordict==0.10.0",
    "codetiming==1.4.0",
    "hydra-core==1.3.8",
    "omegaconf==2.3.0",
    "antlr4-python3-runtime==4.9.3",
    "cloudpickle==3.1.2",
    "msgpack==1.2.4",
    "pyvers==0.2.3",
    "orjson==3.13.0",
    "aiohttp==3.14.5",
    "aiohappyeyeballs==2.7.1",
    "aiosignal==1.4.0",
    "frozenlist==1.8.0",
    "multidict==7.2.1",
    "propcache==0.5.4",
    "yarl==1.25.1",
]


@pytest.fixture
def with_verl(tmp_path: Path) -> dict[str, str]:
    """An environment in which verl is importable."""
    uv = shutil.which("uv") or str(Path(sys.executable).with_name("uv"))
    folder = tmp_path / "verl"
    command = [uv, "pip", "install", "-q", "--python", sys.executable, "--no-deps", "--target", str(folder), *PACKAGES]
    installed = subprocess.run(command, capture_output=True, text=True)
    if installed.returncode:
        pytest.skip(f"verl cannot be installed here: {installed.stderr.strip()[-300:]}")
    environment = {**os.environ, "PYTHONPATH": str(folder)}
    imported = subprocess.run([sys.executable, "-c", "import verl"], env=environment, capture_output=True, text=True)
    if imported.returncode:
        pytest.skip(f"verl cannot be imported here: {imported.stderr.strip()[-300:]}")
    return environment


def test_verl_takes_rewards_from_the_service_in_each_of_its_managers(with_verl: dict[str, str], tmp_path: Path) -> None:
    script = Path(__file__).parents[1] / "support" / "verl_rewards.py"
    with reward_in_thread(tmp_path / "service", {"tiny": write_tiny_reward_model(tmp_path / "tiny")}) as target:
        ran = subprocess.run([sys.executable, str(script), target], env=with_verl, capture_output=True, text=True)
        assert ran.returncode == 0, ran.stderr[-3000:]
        with RewardClient.connect(target) as reward:
            expected = [score.raw for score in reward.score_group(PROMPT, ANSWERS).scores]
    found = json.loads(ran.stdout.splitlines()[-1])
    assert found["version"] == "0.9.1"
    assert found["compute_score"] == found["compute_score_blocking"] == expected
    assert found["compute_scores"] == pytest.approx(expected, rel=1e-6)  # verl keeps float32
    assert "NOT_FOUND" in found["unknown"]
