"""The `assay` command without a stack: help, errors and exit codes."""

import subprocess
import sys

import pytest
from typer.testing import CliRunner

from assay_cli.main import app

COMMANDS = [
    "up", "demo", "clean", "score", "generate", "train sft", "train reward-model", "train dpo", "train ppo", "bench", "study run",
    "study status", "study validate", "models list", "models load", "models unload", "models alias", "jobs list", "jobs show",
    "jobs watch", "jobs cancel", "dead-letters list", "dead-letters replay", "doctor",
]  # fmt: skip


@pytest.mark.parametrize("command", COMMANDS)
def test_each_command_has_help_with_an_example(command):
    told = CliRunner().invoke(app, [*command.split(), "--help"])
    assert told.exit_code == 0
    assert "Example: " in told.output
    assert f"assay {command}" in told.output


def assay(*arguments, **more):
    return subprocess.run([sys.executable, "-m", "assay_cli.main", *arguments], capture_output=True, text=True, timeout=60, **more)


def test_without_a_stack_the_command_says_how_to_start_one(tmp_path):
    told = assay("models", "list", "--data-dir", str(tmp_path))
    assert told.returncode == 3
    assert "no stack in" in told.stderr
    assert "assay up" in told.stderr


def test_a_service_that_is_down_is_unavailable(tmp_path, monkeypatch):
    monkeypatch.setenv("ASSAY_REWARD_TARGET", "127.0.0.1:9")
    told = assay("score", "--prompt", "x", "y", "--data-dir", str(tmp_path))
    assert told.returncode == 3
    assert "UNAVAILABLE" in told.stderr
    assert "Traceback" not in told.stderr


def test_a_study_that_is_no_file_is_bad_input(tmp_path):
    told = assay("study", "run", str(tmp_path / "missing.yaml"), "--output", str(tmp_path))
    assert told.returncode == 2
    assert "missing.yaml" in told.stderr


def test_demo_refuses_data_that_is_not_there(tmp_path):
    told = assay("demo", "--data", str(tmp_path / "missing.jsonl"), "--out", str(tmp_path / "out"))
    assert told.returncode == 2
    assert "missing.jsonl" in told.stderr


def test_doctor_without_a_stack_says_what_to_do_and_exits_1(tmp_path):
    told = assay("doctor", "--data-dir", str(tmp_path))
    assert told.returncode == 1
    assert "assay up" in told.stdout
    assert "Java for the local broker" in told.stdout


def test_an_unknown_option_is_bad_input_without_a_traceback():
    told = assay("clean", "--no-such-option")
    assert told.returncode == 2
    assert "Traceback" not in told.stderr
