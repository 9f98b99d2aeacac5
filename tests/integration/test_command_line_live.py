"""The commands of `assay` against a stack that is up: one stack, tiny models, the real command as a process of its own."""

import json
import signal
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import pytest
from support.tiny_models import write_tiny_causal_lm

from assay.common.v1 import common_pb2
from assay.reward.v1 import reward_pb2
from assay_cli.stack import LocalStack
from assay_data.bag_of_words import fit_bag_of_words
from assay_data.generated import generate_pairs
from assay_data.pairs import read_pairs, write_pairs
from assay_kit.kafka import EventProducer, KafkaConnection
from assay_kit.topics import REWARDS_REQUESTED

pytestmark = pytest.mark.timeout(300)
GRADED = Path(__file__).parents[1] / "support" / "studies" / "graded.yaml"
QUESTION = "How do I bake bread?"


@dataclass(frozen=True)
class Stack:
    """A stack that is up, with a language model, pairs, and the reward models "good" and "turned" that are loaded."""

    folder: Path
    kafka: str
    base: str
    pairs: str
    held_out: str

    def command(self, *arguments):
        return [sys.executable, "-m", "assay_cli.main", *arguments, "--data-dir", str(self.folder)]

    def assay(self, *arguments, code=0, timeout=180):
        told = subprocess.run(self.command(*arguments), capture_output=True, text=True, timeout=timeout)
        assert told.returncode == code, told.stdout + told.stderr
        assert "Traceback" not in told.stderr
        return told.stdout if code == 0 else told.stderr

    def json(self, *arguments):
        return json.loads(self.assay(*arguments, "--json"))


@pytest.fixture(scope="module")
def stack(tmp_path_factory):
    folder = tmp_path_factory.mktemp("live")
    pairs, held_out = folder / "pairs.jsonl", folder / "held-out ünï.jsonl"
    write_pairs(str(pairs), generate_pairs(200, seed=5))
    write_pairs(str(held_out), generate_pairs(120, seed=6))
    fitted = [pair for pair in read_pairs(str(pairs)) if pair.metadata["planted_category"] == "SAME"]
    models = {"good": fit_bag_of_words(fitted), "turned": fit_bag_of_words([pair.turned_round() for pair in fitted])}
    base = write_tiny_causal_lm(folder / "base")
    with LocalStack(folder / "stack") as local:
        up = Stack(folder=folder / "stack", kafka=local.kafka_bootstrap, base=str(base), pairs=str(pairs), held_out=str(held_out))
        for name, model in models.items():
            model.save(folder / name)
            up.assay("models", "load", "reward", name, str(folder / name))
        up.assay("models", "load", "policy", "base", up.base)
        yield up


def test_from_pairs_to_a_measured_reward_model(stack, tmp_path):
    clean, model = str(tmp_path / "clean"), str(tmp_path / "model")
    cleaned = stack.json("clean", stack.pairs, "--output", clean)
    assert cleaned["rows_in"] == 200 == sum(cleaned["actions"].values())
    assert "Model in" in stack.assay("train", "reward-model", "--data", f"{clean}/clean.jsonl", "--output", model)
    stack.assay("models", "load", "reward", "words", model)
    assert "Nobody has measured this model" in stack.assay("score", "--model", "words", "--prompt", QUESTION, "Fine.", "")
    told = stack.assay("bench", "words", "--data", stack.pairs)
    assert "longest wins" in told and "words" in told
    assert "Paired tests" not in told
    assert "quality_card" in stack.assay("models", "list", "--json")
    assert {"cleaning", "training", "evaluation"} <= {job["service"] for job in stack.json("jobs", "list")}
    told = subprocess.run(stack.command("doctor"), capture_output=True, text=True, timeout=60)
    assert "quality card of words: there" in told.stdout
    assert told.returncode == ("nobody has measured it" in told.stdout)


def test_two_reward_models_are_compared_pair_by_pair(stack, tmp_path):
    out = tmp_path / "bench"
    told = stack.assay("bench", "good", "turned", "--data", stack.held_out, "--output", str(out))
    assert "Paired tests (exact McNemar" in told
    [test] = json.loads((out / "benchmark.json").read_text())["tests"]
    [row] = [line for line in told.splitlines() if "good" in line and "turned" in line]
    cells = [cell.strip() for cell in row.strip("│").split("│")]
    assert cells == ["good", "turned", str(test["first_only"]), str(test["second_only"]), "<0.001", "<0.001"]
    scores = [json.loads(line) for line in (out / "scores.jsonl").read_text().splitlines()]
    won = sum(row["chosen"] > row["rejected"] for row in scores if row["model"] == "good")
    ties = sum(row["chosen"] == row["rejected"] for row in scores if row["model"] == "good")
    again = stack.json("bench", "good", "turned", "--data", stack.held_out, "--limit", "120", "--no-publish")
    good = next(model for model in again["models"] if model["name"] == "good")
    assert good["accuracy"]["value"] == pytest.approx((won + ties / 2) / 120, abs=1e-3)


def test_answers_are_sampled_and_the_best_is_chosen(stack):
    few = ("--model", "base", "--max-new-tokens", "6")
    [answer] = stack.json("generate", QUESTION, *few)["generations"][0]["completions"]
    assert answer["text"].rstrip() == stack.assay("generate", QUESTION, *few).rstrip()
    assert "3 answers" in stack.assay("generate", QUESTION, *few, "-n", "3")
    best = stack.json("generate", QUESTION, *few, "-n", "4", "--best-by", "good")
    assert len(best["all"]) == 4
    assert best["best"]["score"] == max(each["score"] for each in best["all"])
    assert "Best of 4 by good" in stack.assay("generate", QUESTION, *few, "-n", "4", "--best-by", "good")
    assert "the last turn is the assistant's" in stack.assay("generate", "Human: a\n\nAssistant: b", *few, "--json", code=2)
    assert "there are base" in stack.assay("generate", QUESTION, "--model", "nobody", code=2)


def test_a_language_model_is_tuned_in_each_way(stack, tmp_path):
    sft, dpo, ppo = (str(tmp_path / name) for name in ("sft", "dpo", "ppo"))
    short = ("--epochs", "0.1", "--batch-size", "16")
    told = stack.assay("train", "sft", "--model", stack.base, "--data", stack.pairs, "--output", sft, *short)
    assert told.startswith(f"Model in {sft} (fingerprint ")
    stack.assay("bench", "good", "--data", stack.held_out)
    from_sft = ("--model", sft, "--data", stack.pairs, "--reward-model", "good")
    tuned = stack.json("train", "dpo", *from_sft, "--output", dpo, *short)
    assert (tuned["algorithm"], tuned["model_uri"]) == ("dpo", dpo)
    assert tuned["gate"]["passed"] is True
    sizes = ("--rollouts", "1", "--rollout-size", "8", "--max-new-tokens", "4")
    assert f"Model in {ppo}" in stack.assay("train", "ppo", *from_sft, "--output", ppo, *sizes)
    assert {path.name for path in tmp_path.iterdir()} == {"sft", "dpo", "ppo"}
    stack.assay("models", "load", "policy", "ppo", ppo)
    refused = stack.assay("train", "ppo", *from_sft, "--output", f"{ppo}-2", "--min-accuracy", "0.999", code=1)
    assert "FAILED_PRECONDITION: gate: reward model 'good'" in refused
    assert "is there already" in stack.assay("train", "dpo", *from_sft, "--output", ppo, code=2)


def test_a_job_is_watched_until_somebody_cancels_it(stack, tmp_path):
    out = tmp_path / "long"
    asked = ("train", "sft", "--model", stack.base, "--data", stack.pairs, "--output", str(out), "--epochs", "1000", "--job-id", "long")
    assert "assay jobs watch training long" in stack.assay(*asked, "--no-wait")
    with subprocess.Popen(stack.command("jobs", "watch", "training", "long"), stderr=subprocess.PIPE, text=True) as left:
        assert "▶ " in left.stderr.readline()
        left.send_signal(signal.SIGINT)
        said = left.stderr.read()
        assert left.wait(timeout=30) == 130
        assert "job long goes on" in said
    with subprocess.Popen(stack.command("jobs", "watch", "training", "long"), stderr=subprocess.PIPE, text=True) as watching:
        assert "▶ " in watching.stderr.readline()
        assert stack.json("jobs", "cancel", "training", "long")["state"] == "JOB_STATE_CANCELLED"
        said = watching.stderr.read()
        assert watching.wait(timeout=60) == 1
    assert "training job long was cancelled" in said
    assert "long: cancelled" in stack.assay("jobs", "cancel", "training", "long")
    assert not out.exists()
    assert "no job 'nothing'" in stack.assay("jobs", "watch", "training", "nothing", code=2)


def test_a_study_is_run_and_its_stages_are_shown(stack, tmp_path):
    study = ("study", "run", str(GRADED), "--data", stack.pairs, "--output", str(tmp_path / "out"), "--job-id", "graded")
    result = json.loads(stack.assay(*study, "--json"))
    assert result["stages"] == 4
    assert Path(result["artifacts"]["gold_check"]["scores"]).exists()
    told = stack.assay("study", "status", "graded")
    assert [line.split()[1] for line in told.splitlines() if "succeeded" in line] == ["clean", "split", "gold", "gold_check"]
    assert {stage["state"] for stage in stack.json("study", "status", "graded")["stages"]} == {"JOB_STATE_SUCCEEDED"}
    assert "✓ gold_check (benchmark)" in stack.assay(*study)  # asking twice is asking once
    assert json.loads(stack.assay("jobs", "watch", "evaluation", "graded", "--json")) == result
    assert "not a study" in stack.assay("study", "status", "graded.clean", code=2)


def test_a_study_whose_stage_fails_says_which_and_why(stack, tmp_path):
    empty = tmp_path / "empty.jsonl"
    empty.touch()
    told = stack.assay("study", "run", str(GRADED), "--data", str(empty), "--output", str(tmp_path / "out"), code=1)
    assert "stage 'clean' failed: " in told and "the file is empty" in told


def test_a_dead_letter_is_sent_back_once(stack):
    request = reward_pb2.ScoreGroupRequest(model=common_pb2.ModelSelector(name="latecomer"), request_id="late")
    request.conversation.messages.add(role=common_pb2.ROLE_USER, content=QUESTION)
    request.candidates.add(text="Mix flour and water.")
    producer = EventProducer(KafkaConnection(stack.kafka), client_id="test")
    producer.send(REWARDS_REQUESTED, "late", request)
    producer.close()
    [letter] = letters(stack, 1)
    assert (letter["topic"], letter["replayed"]) == (REWARDS_REQUESTED.name, False)
    assert "latecomer" in letter["error"]
    assert stack.json("dead-letters", "replay", "--topic", REWARDS_REQUESTED.name) == {REWARDS_REQUESTED.name: 1}
    assert [letter["replayed"] for letter in letters(stack, 2)] == [True, False]  # it was refused again
    told = stack.assay("dead-letters", "list")
    assert "sent back" in told and "kept" in told and "2 dead letters" in told
    assert "1 dead letters sent back" in stack.assay("dead-letters", "replay")
    refused = stack.assay("dead-letters", "list", "--topic", "nowhere", code=2)
    assert refused.startswith("error: there is no topic nowhere; the topics are assay.preferences.raw.v1")


def letters(stack, number):
    """The dead letters, once there are so many."""
    for _ in range(20):
        found = [json.loads(line) for line in stack.assay("dead-letters", "list", "--json").splitlines()]
        if len(found) >= number:
            return found
    raise AssertionError(f"only {len(found)} dead letters came")


def test_bad_input_is_told_in_a_line_that_says_what_to_do(stack, tmp_path):
    empty, typed, binary = tmp_path / "empty.jsonl", tmp_path / "typed.jsonl", tmp_path / "binary.yaml"
    empty.touch()
    typed.write_text("not json\n")
    binary.write_bytes(b"\xff\xfe\x00name: x")
    out = ("--output", str(tmp_path / "out"))
    for arguments, code, said in (
        (("clean", "missing.jsonl", *out), 2, "missing.jsonl: there is no such file or folder"),
        (("clean", "", *out), 2, "there is no such file or folder"),
        (("clean", str(empty), *out), 1, "the file is empty"),
        (("clean", str(typed), *out), 1, "row 1: not JSON"),
        (("clean", stack.pairs, "--output", str(typed)), 2, "output_uri"),
        (("clean", stack.pairs, *out, "--limit", "many"), 2, "--limit"),
        (("bench", "nobody", "--data", stack.pairs), 1, "failed: there is no model nobody; loaded are: good"),
        (("bench", "good", "good", "--data", stack.pairs), 2, "a name is given twice"),
        (("train", "sft", "--model", "./none", "--data", stack.pairs, *out), 2, "./none: there is no such file or folder"),
        (("train", "dpo", "--model", stack.base, "--data", stack.pairs, "--reward-model", "nobody", *out), 2, "no model nobody"),
        (("study", "run", str(binary), *out), 2, "no text"),
        (("study", "run", str(typed), *out), 2, "a study is a mapping"),
        (("models", "load", "reward", "a name", stack.base), 2, "'a name' is no name"),
        (("jobs", "cancel", "training", "nothing"), 2, "no job 'nothing'"),
        (("jobs", "show", "policy", "nothing"), 2, "policy"),
        (("score", "--prompt", b"\xff", "x"), 2, "not UTF-8"),
    ):
        told = stack.assay(*arguments, code=code)
        assert said in told, (arguments, told)
    assert not (tmp_path / "out").exists()


def test_a_name_in_any_script_passes(stack, tmp_path):
    out = tmp_path / "sauber 猫"
    assert stack.json("clean", stack.held_out, "--output", str(out))["rows_in"] == 120
    told = stack.assay("score", "--model", "good", "--prompt", "Was heißt 猫?", "Eine [bold]Katze[/].", "猫")
    assert "Eine [bold]Katze[/]." in told and "猫" in told
