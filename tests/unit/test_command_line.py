"""The `assay` command without a stack: help, errors and exit codes."""

import os
import subprocess
import sys

import pytest
from typer.testing import CliRunner

from assay_cli.main import app
from assay_data.generated import generate_pairs
from assay_data.pairs import write_pairs

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
    told = assay("study", "run", "missing.yaml", "--output", str(tmp_path), cwd=tmp_path)
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


@pytest.mark.parametrize("command", [("models", "list"), ("dead-letters", "list")])
def test_endpoints_that_nobody_can_read_are_told_without_a_traceback(tmp_path, command):
    (tmp_path / "endpoints.json").write_text("{")
    told = assay(*command, "--data-dir", str(tmp_path))
    assert told.returncode == 3
    assert "endpoints.json is not what `assay up` writes" in told.stderr
    assert "Traceback" not in told.stderr
    looked = assay("doctor", "--data-dir", str(tmp_path))
    assert looked.returncode == 1
    assert "Start it anew with `assay up`" in looked.stdout


def test_a_broker_that_is_down_is_unavailable(tmp_path, monkeypatch):
    monkeypatch.setenv("ASSAY_KAFKA_BOOTSTRAP", "127.0.0.1:9")
    told = assay("dead-letters", "replay", "--data-dir", str(tmp_path))
    assert told.returncode == 3
    assert "Kafka at 127.0.0.1:9 does not answer" in told.stderr


def test_a_stack_in_the_place_of_a_file_is_bad_input(tmp_path):
    (tmp_path / "taken").touch()
    told = assay("up", "--data-dir", str(tmp_path / "taken"))
    assert told.returncode == 2
    assert told.stderr.startswith("error: ") and "taken: File exists" in told.stderr


@pytest.mark.parametrize(
    ("study", "said"), [(b"a: [", "not YAML"), (b"- 1", "a study is a mapping"), (b"\xff", "no text"), (b"data: 1", "a study is a mapping")]
)
def test_a_demo_with_a_study_that_is_none_starts_nothing_and_removes_nothing(tmp_path, study, said):
    written, pairs, out = tmp_path / "study.yaml", tmp_path / "pairs.jsonl", tmp_path / "out"
    written.write_bytes(study)
    write_pairs(str(pairs), generate_pairs(5, seed=0))
    (out / "study").mkdir(parents=True)
    told = assay("demo", "--data", str(pairs), "--study", str(written), "--out", str(out))
    assert told.returncode == 2
    assert f"{written}: " in told.stderr and said in told.stderr
    assert told.stderr.count("\n") == 1
    assert (out / "study").exists()


WIDE = """
from assay_cli.output import print_table
print_table("Wide", ["name", "n"], [["w" * 60, "12"], ["[bold]" + "x" * 60, "127.0.0.1:1"]] )
print_table("Many", [f"column {n}" for n in range(8)], [["a cell of text"] * 8])
"""


def test_a_table_in_a_log_is_whole():
    environment = {name: value for name, value in os.environ.items() if name != "COLUMNS"}
    told = subprocess.run([sys.executable, "-c", WIDE], capture_output=True, text=True, timeout=60, env=environment)
    assert told.returncode == 0, told.stderr
    assert "w" * 60 in told.stdout and "[bold]" + "x" * 60 in told.stdout
    [row] = [line for line in told.stdout.splitlines() if "a cell" in line]
    assert row.count("a cell of text") == 8 and len(row) > 80
    narrow = subprocess.run([sys.executable, "-c", WIDE], capture_output=True, text=True, timeout=60, env={**environment, "COLUMNS": "70"})
    assert max(map(len, narrow.stdout.splitlines())) <= 70
