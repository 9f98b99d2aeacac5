"""The chart's own containers as real processes, from `helm install` to `helm uninstall`: what a platform team will see happen."""

from __future__ import annotations

import contextlib
import json
import re
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import psycopg
import pytest
from cluster.control_plane import ControlPlane
from cluster.folder_volumes import FolderVolumes
from cluster.helm import RELEASE, Tools
from cluster.installation import COMPONENTS, PAIRS, Installation
from cluster.inventory import passing_objects
from cluster.kubernetes_api import KubernetesApi, Object, until
from cluster.running_node import RunningNode
from support.postgres import new_database, postgres_binaries, postgres_server
from support.reward_service import group, selector

from assay.jobs.v1 import jobs_pb2
from assay.training.v1 import training_pb2
from assay_cli.broker import LocalBroker
from assay_kit.kafka import EventProducer, KafkaConnection, Record, collect, end_offsets
from assay_kit.topics import REWARDS_REQUESTED, REWARDS_SCORED

QUESTION = "Is the earth flat?"
CALLS = Path(__file__).with_name("calls.py")


@pytest.fixture(scope="module")
def installation(
    control_plane: ControlPlane,
    api: KubernetesApi,
    tools: Tools,
    node: RunningNode,
    volumes: FolderVolumes,
    tmp_path_factory: pytest.TempPathFactory,
) -> Iterator[Installation]:
    """`helm install` in a restricted namespace, beside a Kafka and a PostgreSQL that the pods reach over the network."""
    namespace = "assay-running"
    labels = {"pod-security.kubernetes.io/enforce": "restricted"}
    api.create("/api/v1/namespaces", {"metadata": {"name": namespace, "labels": labels}})
    until("the namespace has its service account", lambda: api.find(f"/api/v1/namespaces/{namespace}/serviceaccounts/default"))
    binaries = postgres_binaries()
    assert binaries is not None, "PostgreSQL's initdb and pg_ctl are not on this machine"
    with (
        LocalBroker(tmp_path_factory.mktemp("kafka"), host=node.address) as broker,
        postgres_server(binaries, node.address) as server,
    ):
        one = Installation(
            api=api,
            tools=tools,
            node=node,
            volumes=volumes,
            namespace=namespace,
            kafka=broker.bootstrap,
            database=new_database(server),
        )
        one.prepare()
        one.install()
        yield one


@contextlib.contextmanager
def calling(installation: Installation, name: str) -> Iterator[dict[str, Any]]:
    """Has a user score without a pause while open; afterwards the answer is filled with what the calls gave."""
    answer: dict[str, Any] = {}
    end = f"/tmp/{name}"
    running = installation.node.executing(installation.user, "python", str(CALLS), "judge", end)
    try:
        yield answer
        installation.node.execute(installation.user, "touch", end)
        output, errors = running.communicate(timeout=60)
        assert running.returncode == 0, errors
        answer.update(json.loads(output))
    finally:
        if running.poll() is None:
            running.kill()
            with contextlib.suppress(subprocess.TimeoutExpired):
                running.communicate(timeout=5)


def calls_answered(pod: Object) -> float:
    """How many ScoreGroup calls the pod has answered, by its own metrics."""
    page = httpx.get(f"http://{pod['status']['podIP']}:9090/metrics", trust_env=False).text
    lines = re.findall(r'^grpc_server_handled_total\{.*grpc_method="ScoreGroup".*\} ([0-9.e+]+)$', page, re.MULTILINE)
    return sum(map(float, lines))


def restarts(pod: Object) -> int:
    return int(pod["status"]["containerStatuses"][0]["restartCount"])


def test_an_installation_ends_with_a_score_a_cleaning_job_and_the_best_of_n(installation: Installation) -> None:
    scored = installation.assay("score", "--model", "judge", "--prompt", QUESTION, "No.", "Yes.")
    assert len(scored["scores"]) == 2
    cleaned = installation.assay("clean", "/artifacts/pairs.jsonl", "--output", "/artifacts/cleaned")
    assert cleaned["rows_in"] == PAIRS
    assert (installation.artifacts / "cleaned" / "kept.jsonl").stat().st_size > 0
    best = installation.assay("generate", QUESTION, "--model", "writer", "-n", "4", "--best-by", "judge", "--max-new-tokens", "8")
    assert best["best"]["score"] == max(each["score"] for each in best["all"])
    with psycopg.connect(installation.database) as database:
        [(workflows,)] = database.execute("SELECT count(*) FROM assay_cleaning.workflow_status").fetchall()
    assert workflows >= 1, "jobs are kept in the database that the secret names"


def test_what_is_asked_over_kafka_is_answered_over_kafka(installation: Installation) -> None:
    connection = KafkaConnection(installation.kafka)
    start = end_offsets(connection, REWARDS_SCORED)
    ask(connection, [f"kafka-{number}" for number in range(8)])
    assert answered(connection, start, "kafka-", 8) == {f"kafka-{number}" for number in range(8)}


def test_a_pod_whose_process_is_killed_comes_back_and_its_job_goes_on(installation: Installation) -> None:
    many, out = "/artifacts/many.jsonl", "/artifacts/killed"
    sft = training_pb2.SftSpec(model_uri="/models/writer", data_uri="/artifacts/pairs.jsonl")
    before = {name: restarts(installation.pods(name)[0]) for name in COMPONENTS}
    for component in ("policy", "reward"):
        installation.node.kill(installation.pods(component)[0])
    for component in ("policy", "reward"):
        until(f"{component} is started again", lambda name=component: restarts(installation.pods(name)[0]) > before[name])
        installation.wait_until_ready(component)
    with installation.client() as assay:
        starts = {
            "cleaning": lambda: assay.cleaning.create_cleaning_job(many, f"{out}/clean"),
            "training": lambda: assay.training.create_training_job(sft, f"{out}/sft"),
            "evaluation": lambda: assay.evaluation.create_benchmark_job(["judge"], many, output_uri=f"{out}/bench"),
        }
        jobs = {}
        for component, start in starts.items():
            [pod] = installation.pods(component)
            jobs[component] = start().id
            until("the job runs", lambda name=component: has_begun(assay.jobs(name).get(jobs[name])), pause_s=0.02)
            installation.node.kill(pod)
        for component, job in jobs.items():
            until(f"{component} is started again", lambda name=component: restarts(installation.pods(name)[0]) > before[name])
            assert assay.jobs(component).wait(job)
            installation.wait_until_ready(component)
        assert assay.reward.score_group([{"role": "user", "content": QUESTION}], ["No."], model="judge").scores
        assert assay.policy.list_models()[0].name == "writer"


def test_an_upgrade_of_the_reward_service_under_load_fails_no_call_and_mixes_no_models(installation: Installation) -> None:
    with calling(installation, "upgrade") as load:
        installation.upgrade("--set", "reward.preload.judge=/models/second")
        until("the old pod has gone", lambda: installation.ends("reward"))
        [pod] = installation.wait_until_ready("reward")
        until("the new pod answers", lambda: calls_answered(pod) > 50)
    assert load["failed"] == {}
    assert load["mixed"] == 0
    assert len(load["replies"]) == 2, "replies of both models, each of one alone"
    with calling(installation, "afterwards") as load:
        installation.assay("score", "--model", "judge", "--prompt", QUESTION, "No.")
    assert load["failed"] == {}
    assert len(load["replies"]) == 1


def test_calls_spread_over_new_pods_and_none_is_lost_when_pods_go(installation: Installation) -> None:
    connection = KafkaConnection(installation.kafka)
    start = end_offsets(connection, REWARDS_SCORED)
    changed = ("--set", "reward.preload.judge=/models/second")
    with calling(installation, "scale") as load:
        installation.upgrade(*changed, "--set", "reward.replicas=3")
        pods = installation.wait_until_ready("reward", 3)
        gone = len(installation.ends("reward"))
        until("all pods answer calls", lambda: all(calls_answered(pod) > 50 for pod in pods))
        ask(connection, [f"scale-{number}" for number in range(200)])
        installation.upgrade(*changed, "--set", "reward.replicas=1")
        until("two have gone", lambda: len(installation.pods("reward")) == 1)
        until("their ends are known", lambda: len(installation.ends("reward")) >= gone + 2)
    assert load["failed"] == {}
    assert load["mixed"] == 0
    assert answered(connection, start, "scale-", 200) == {f"scale-{number}" for number in range(200)}


def test_all_pods_drain_within_their_grace_and_nothing_is_left(installation: Installation) -> None:
    installation.uninstall()
    until("only the user's pod is left", lambda: passing_objects(installation.api, installation.namespace) == ["pods/user"])
    ends = installation.ends()
    assert {end["pod"].rsplit("-", 1)[0].removeprefix(f"{RELEASE}-").split("-")[0] for end in ends} >= set(COMPONENTS)
    assert [end for end in ends if end["killed"] or any(end["codes"].values()) or end["seconds"] > end["grace"]] == []


def has_begun(job: jobs_pb2.Job) -> bool:
    assert job.state in (jobs_pb2.JOB_STATE_QUEUED, jobs_pb2.JOB_STATE_RUNNING), f"too late to be killed: {job}"
    return bool(job.state == jobs_pb2.JOB_STATE_RUNNING)


def ask(connection: KafkaConnection, names: list[str]) -> None:
    producer = EventProducer(connection, "test")
    for name in names:
        request = group(["No.", "Yes."], QUESTION, model=selector("judge"), request_id=name)
        producer.send(REWARDS_REQUESTED, name, request)
    producer.close()


def answered(connection: KafkaConnection, start: dict[int, int], prefix: str, count: int) -> set[str]:
    """Names of the requests that were answered; an answer that comes twice is an error."""
    found: list[str] = []

    def keep(record: Record) -> bool:
        name = record.message.request_id
        if name.startswith(prefix):
            found.append(name)
        return bool(name.startswith(prefix))

    collect(connection, REWARDS_SCORED, start=start, wanted=keep, until=lambda: len(found) >= count, timeout_s=120)
    assert len(found) == len(set(found))
    return set(found)
