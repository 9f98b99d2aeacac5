"""The examples in Go, TypeScript and Java: built as their READMEs say, run against the real reward service."""

from __future__ import annotations

import contextlib
import json
import os
import re
import shutil
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import pytest
from support.judge_servers import Judge, better_by, judge_server
from support.reward_server import reward_in_thread, write_word_model
from support.tiny_models import write_tiny_reward_model

from assay_client import RewardClient

ROOT = Path(__file__).parents[2]
PROMPT = "How do I bake bread?"
ASK = [{"role": "user", "content": PROMPT}]
ANSWERS = ["Mix flour and water.", "", "日本語のパン 🍞", "--", "Mix flour and water.", "a\tb\nc"]
ROOM = len(ANSWERS)
"""Candidates that the service holds, and most of one group."""
# The Java runtime reads its arguments by the locale; buf comes with the project's own environment.
ENVIRONMENT = {**os.environ, "LC_ALL": "C.UTF-8", "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"}
BUILT = ("bin", "gen", "dist", "node_modules", "target", "score")


@dataclass(frozen=True)
class Service:
    target: str
    judge: Judge

    @contextlib.contextmanager
    def full(self) -> Iterator[threading.Event]:
        """Its room for the judge is taken until the event is set."""
        asked, release = len(self.judge.asked()), threading.Event()
        self.judge.holds = release
        with RewardClient.connect(self.target) as reward, ThreadPoolExecutor(1) as pool:
            holding = pool.submit(reward.score_group, ASK, ["x" * length for length in range(ROOM)], model="judge")
            try:
                while len(self.judge.asked()) == asked and not holding.done():
                    time.sleep(0.01)
                yield release
            finally:
                release.set()
            assert holding.result().best_index == ROOM - 1


@pytest.fixture(scope="module")
def service(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    folder = tmp_path_factory.mktemp("reward")
    judge = Judge(says=better_by(len))
    with judge_server(judge) as address:
        (folder / "judge").mkdir()
        declared = {"base_url": address, "model": "org/judge", "mode": "pairwise", "temperature": 0, "max_tokens": 64}
        (folder / "judge" / "generative_judge.json").write_text(json.dumps(declared))
        models = {
            "tiny": write_tiny_reward_model(folder / "tiny"),
            "words": write_word_model(folder / "words"),
            "judge": folder / "judge",
        }
        with reward_in_thread(folder / "service", models, reward_queue_candidates=ROOM) as target:
            yield Service(target, judge)


def told(*command: str, folder: Path) -> str:
    result = subprocess.run(command, cwd=folder, env=ENVIRONMENT, stdin=subprocess.DEVNULL, capture_output=True, text=True)
    assert result.returncode == 0, f"{' '.join(command)}:\n{result.stdout[-4000:]}{result.stderr[-4000:]}"
    return result.stdout


def needs(*programs: str) -> None:
    for program in programs:
        if shutil.which(program, path=ENVIRONMENT["PATH"]) is None:
            pytest.skip(f"there is no {program} on this machine")


def needs_at_least(what: str, wanted: str, found: str) -> None:
    def numbers(version: str) -> list[int]:
        return [int(number) for number in re.findall(r"\d+", version)]

    if numbers(found) < numbers(wanted):
        pytest.skip(f"the example needs {what} {wanted}, and this machine has {found.strip()}")


def go(folder: Path) -> list[str]:
    needs("go")
    wanted = re.search(r"^go (\S+)$", (folder / "go.mod").read_text(), re.MULTILINE)
    assert wanted is not None
    # Outside the module, where an older Go neither refuses nor fetches a newer one.
    needs_at_least("Go", wanted[1], told("go", "env", "GOVERSION", folder=folder.parent))
    told("go", "generate", "./...", folder=folder)
    told("go", "vet", "./...", folder=folder)
    told("go", "build", "-o", "score", ".", folder=folder)
    return [str(folder / "score")]


def typescript(folder: Path) -> list[str]:
    needs("node", "npm")
    engines = json.loads((folder / "package.json").read_text())["engines"]
    needs_at_least("Node.js", engines["node"], told("node", "--version", folder=folder))
    told("npm", "ci", "--ignore-scripts", "--no-audit", "--no-fund", folder=folder)
    told("npm", "run", "build", folder=folder)
    return ["node", str(folder / "dist" / "score.js")]


def java(folder: Path) -> list[str]:
    needs("java", "javac", "mvn")
    told("mvn", "-B", "-ntp", "-q", "package", folder=folder)
    return ["java", "-jar", str(folder / "target" / "score.jar")]


@pytest.fixture(scope="module", params=[go, typescript, java], ids=lambda build: build.__name__)
def program(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    """How to run an example that was built in a copy of its folder."""
    copy = tmp_path_factory.mktemp("checkout")
    folder = copy / "examples" / request.param.__name__
    shutil.copytree(ROOT / "protos", copy / "protos")
    shutil.copytree(ROOT / "examples" / folder.name, folder, ignore=shutil.ignore_patterns(*BUILT))
    return request.param(folder)


def command(program: list[str], service: Service, *answers: str, **options: object) -> list[str]:
    given = {"target": service.target, "prompt": PROMPT, "timeout": 100, **options}
    return [*program, *(part for name, value in given.items() for part in (f"--{name}", str(value))), "--", *answers]


def run(program: list[str], service: Service, *answers: str, **options: object) -> subprocess.CompletedProcess[str]:
    line = command(program, service, *answers, **options)
    return subprocess.run(line, env=ENVIRONMENT, stdin=subprocess.DEVNULL, capture_output=True, text=True)


def shown(output: str) -> dict[str, str]:
    return dict(line.split("\t", 1) for line in output.splitlines())


def scores(output: Mapping[str, str]) -> list[float]:
    return [float(value) for name, value in output.items() if name.startswith("candidates[")]


@pytest.mark.parametrize("model", ["", "tiny", "words"])
def test_scores_and_provenance_are_those_of_the_python_client(program: list[str], service: Service, model: str) -> None:
    with RewardClient.connect(service.target) as reward:
        group = reward.score_group(ASK, ANSWERS, model=model)
    result = run(program, service, *ANSWERS, model=model)
    assert result.returncode == 0, result.stderr
    output = shown(result.stdout)
    assert scores(output) == [score.value for score in group.scores]
    assert output["best"] == f"candidates[{group.best_index}]"
    assert output["model"] == f"{group.provenance.model}@{group.provenance.revision}"
    assert output["fingerprint"] == group.provenance.fingerprint and output["dtype"] == group.provenance.dtype
    assert output["engine"] == group.provenance.engine_version


def test_a_deadline_that_is_too_near_ends_the_call(program: list[str], service: Service) -> None:
    result = run(program, service, *ANSWERS, timeout=0.001)
    assert (result.returncode, result.stdout) == (4, "") and "DEADLINE_EXCEEDED: " in result.stderr


def test_a_deadline_ends_a_call_that_the_service_works_on(program: list[str], service: Service) -> None:
    asked, service.judge.holds = len(service.judge.asked()), threading.Event()
    try:
        result = run(program, service, "long", "longer", model="judge", timeout=6)
    finally:
        service.judge.holds.set()
    assert (result.returncode, result.stdout) == (4, "") and "DEADLINE_EXCEEDED: " in result.stderr
    assert len(service.judge.asked()) > asked


def test_a_full_service_is_asked_again_when_it_says(program: list[str], service: Service) -> None:
    with service.full() as release:
        line = command(program, service, "long", "longer", model="judge")
        with subprocess.Popen(line, env=ENVIRONMENT, stdin=subprocess.DEVNULL, stdout=-1, stderr=-1, text=True) as process:
            assert process.stderr is not None
            refusal = next((said for said in process.stderr if said.startswith("full, again in ")), "")
            release.set()
            output, complaints = process.communicate()
    assert refusal.endswith(f"{ROOM} of {ROOM} candidates are with remote models and there is no room for 2\n"), complaints
    # What RetryInfo said is one second; up to half of it comes on top.
    assert 1.0 <= float(refusal.split()[3]) <= 1.5
    assert process.returncode == 0, complaints
    assert scores(shown(output)) == [0.0, 1.0] and shown(output)["best"] == "candidates[1]"


def test_a_service_that_stays_full_is_given_up_before_the_deadline(program: list[str], service: Service) -> None:
    with service.full():
        result = run(program, service, "long", "longer", model="judge", timeout=6)
    assert (result.returncode, result.stdout) == (5, "")
    assert "full, again in " in result.stderr and f"RESOURCE_EXHAUSTED: {ROOM} of {ROOM} candidates" in result.stderr


def test_a_bad_field_is_named(program: list[str], service: Service) -> None:
    result = run(program, service, "fine", "word " * 1000, "fine", "word " * 2000, model="tiny")
    assert (result.returncode, result.stdout) == (3, "") and "INVALID_ARGUMENT: " in result.stderr
    assert re.findall(r"^  (\S+): .+ more than the 512", result.stderr, re.MULTILINE) == ["candidates[1].text", "candidates[3].text"]


def test_a_model_that_is_not_there_is_an_error_of_no_special_kind(program: list[str], service: Service) -> None:
    result = run(program, service, "fine", model="none")
    assert (result.returncode, result.stdout) == (1, "") and "NOT_FOUND: there is no model none" in result.stderr


@pytest.mark.parametrize("options", [{"timeout": "soon"}, {"timeout": 0}, {"prompt": ""}, {"nonsense": 1}], ids=str)
def test_a_wrong_command_line_asks_nobody(program: list[str], service: Service, options: dict[str, object]) -> None:
    result = run(program, service, "fine", **options)
    assert (result.returncode, result.stdout) == (2, "") and "usage: score --target" in result.stderr
