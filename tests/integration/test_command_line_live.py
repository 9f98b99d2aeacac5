"""The commands of `assay` against a stack that is up: clean, train, load, score, measure, look."""

import json
import subprocess
import sys

import pytest

from assay_cli.stack import LocalStack
from assay_data.generated import generate_pairs
from assay_data.pairs import write_pairs


@pytest.fixture(scope="module")
def stack_dir(tmp_path_factory):
    folder = tmp_path_factory.mktemp("stack")
    with LocalStack(folder):
        yield folder


def test_from_pairs_to_a_measured_reward_model(stack_dir, tmp_path):
    def assay(*arguments):
        command = [sys.executable, "-m", "assay_cli.main", *arguments, "--data-dir", str(stack_dir)]
        told = subprocess.run(command, capture_output=True, text=True, timeout=180)
        assert told.returncode == 0, told.stdout + told.stderr
        return told.stdout

    pairs, clean, model = (str(tmp_path / name) for name in ("pairs.jsonl", "clean", "model"))
    write_pairs(pairs, generate_pairs(200, seed=5))
    cleaned = json.loads(assay("clean", pairs, "--output", clean, "--json"))
    assert cleaned["rows_in"] == 200 == sum(cleaned["actions"].values())
    assert "Model in" in assay("train", "reward-model", "--data", f"{clean}/clean.jsonl", "--output", model)
    assay("models", "load", "reward", "words", model)
    assert "Nobody has measured this model" in assay("score", "--model", "words", "--prompt", "How are you?", "Fine.", "")
    told = assay("bench", "words", "--data", pairs)
    assert "longest wins" in told
    assert "words" in told
    assert "quality_card" in assay("models", "list", "--json")
    assert {job["service"] for job in json.loads(assay("jobs", "list", "--json"))} == {"cleaning", "training", "evaluation"}
    assert "quality card of words: there" in assay("doctor")
    assert "0 dead letters" in assay("dead-letters", "list")
