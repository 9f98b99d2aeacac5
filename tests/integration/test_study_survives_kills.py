"""The whole line at the command line: kill -9 of each of the five services in turn does not change a figure, and nothing is left behind."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest

from assay.jobs.v1 import jobs_pb2
from assay_client.client import AssayClient
from assay_client.endpoints import Endpoints
from assay_data.generated import generate_pairs
from assay_data.pairs import write_pairs

TINY = Path(__file__).parents[1] / "support" / "studies" / "tiny.yaml"
KILLS = {"cleaning": "clean", "policy": "train_samples", "reward": "leaderboard", "training": "dpo_00", "evaluation": "ppo_00"}
FIGURES = ("data", "cleaning", "reward_models", "policies", "findings")


def demo(out, pairs):
    command = [sys.executable, "-m", "assay_cli.main", "demo", "--data", str(pairs), "--study", str(TINY), "--out", str(out)]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)


def left_behind(out):
    found = []
    for process in psutil.process_iter():
        try:
            if str(out) in " ".join(process.cmdline()) or str(out) in process.environ().get("ASSAY_DATA_DIR", ""):
                found.append(process.cmdline())
        except psutil.Error:
            continue
    return found


def figures(out):
    report = json.loads((out / "report.json").read_text())
    return {name: report[name] for name in FIGURES}


def kill_each_at_work(out, running):
    """Kills each service when its stage is at work; returns who was killed."""
    state = out / "state"
    while not (state / "endpoints.json").exists():
        assert running.poll() is None, running.stdout.read()
        time.sleep(0.1)
    left = dict(KILLS)
    with AssayClient(Endpoints.from_folder(state), patience_s=60) as client:
        while left and running.poll() is None:
            if (job := next(iter(client.jobs("evaluation").list(kind="study")), None)) is None:
                continue
            states = {stage.name: stage.state for stage in client.evaluation.get_study(job.id).stages}
            for service, stage in list(left.items()):
                if states[stage] == jobs_pb2.JOB_STATE_RUNNING:
                    pid = json.loads((state / service / "endpoint.json").read_text())["pid"]
                    os.kill(pid, signal.SIGKILL)
                    del left[service]
            time.sleep(0.05)
    return set(KILLS) - set(left)


@pytest.fixture(scope="module")
def pairs(tmp_path_factory):
    path = tmp_path_factory.mktemp("pairs") / "pairs.jsonl"
    write_pairs(str(path), generate_pairs(240, seed=3))
    return path


@pytest.mark.timeout(900)
def test_killing_every_service_in_the_middle_changes_no_figure_and_leaves_nothing_behind(tmp_path, pairs):
    undisturbed, disturbed = tmp_path / "undisturbed", tmp_path / "disturbed"
    former = [undisturbed / place / "runs" / "former" / "model" for place in ("study", "state/training")]
    for model in former:
        model.mkdir(parents=True)
    running = demo(undisturbed, pairs)
    said, _ = running.communicate(timeout=400)
    assert running.returncode == 0, said
    assert "What cleaning found" in said
    assert (undisturbed / "report.html").stat().st_size > 100_000
    assert not any(model.exists() for model in former)  # a demo takes the place of the one before
    assert len(list((undisturbed / "study" / "runs").iterdir())) == 1
    assert left_behind(tmp_path) == []

    running = demo(disturbed, pairs)
    killed = kill_each_at_work(disturbed, running)
    said, _ = running.communicate(timeout=400)
    assert running.returncode == 0, said
    assert killed == set(KILLS), said
    assert figures(disturbed) == figures(undisturbed)
    assert left_behind(tmp_path) == []


@pytest.mark.timeout(300)
def test_ctrl_c_in_the_middle_stops_all_that_was_started(tmp_path, pairs):
    running = demo(tmp_path / "out", pairs)
    told = []
    for line in running.stdout:
        told.append(line)
        if "clean (clean)" in line:
            break
    else:
        raise AssertionError("the demo ended by itself:\n" + "".join(told))
    running.send_signal(signal.SIGINT)
    said, _ = running.communicate(timeout=60)
    assert running.returncode == 130, said
    assert "`assay demo --resume` goes on from here" in said
    assert left_behind(tmp_path) == []
