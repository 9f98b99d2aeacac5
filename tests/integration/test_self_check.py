"""What a pod sees of the world, asked as `assay doctor --cluster` asks it: on a real Kafka with rights and real services with TLS."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest
from support.certificates import Authority
from support.secure_kafka import SecureKafka

from assay_data.bag_of_words import BagOfWordsModel

Seen = dict[str, dict[str, object]]


@pytest.fixture(scope="module")
def kafka(tmp_path_factory: pytest.TempPathFactory) -> Iterator[SecureKafka]:
    with SecureKafka(tmp_path_factory.mktemp("secure-kafka")) as kafka:
        kafka.create_topics()
        yield kafka


@pytest.fixture(scope="module")
def pod(kafka: SecureKafka, tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, str]]:
    """The environment of a reward service that runs: mutual TLS, its own Kafka user, a model nobody has measured."""
    folder = tmp_path_factory.mktemp("pod")
    BagOfWordsModel(vocabulary=("good",), idf=np.ones(1), weights=np.ones(1), mean=0.0, std=1.0).save(folder / "model")
    environment = {
        "ASSAY_DATA_DIR": str(folder),
        "ASSAY_INSTANCE": "reward-0",
        "ASSAY_TLS_DIR": str(Authority().write(folder / "tls", days=90)),
        "ASSAY_REWARD_PRELOAD": json.dumps({"words": str(folder / "model")}),
        "ASSAY_DRAIN_SECONDS": "5",
        **kafka.environment("reward"),
    }
    with running("reward", folder, environment) as target:
        yield environment | {"ASSAY_GRPC_HOST": "127.0.0.1", "ASSAY_GRPC_PORT": target.rpartition(":")[2], "ASSAY_REWARD_TARGET": target}


@contextmanager
def running(name: str, data_dir: Path, environment: dict[str, str]) -> Iterator[str]:
    with (data_dir / "log").open("w") as log:
        process = subprocess.Popen([sys.executable, "-m", f"assay_{name}"], env=os.environ | environment, stdout=log, stderr=log)
        try:
            while not (data_dir / "endpoint.json").exists():
                assert process.poll() is None, (data_dir / "log").read_text()
                time.sleep(0.1)
            yield json.loads((data_dir / "endpoint.json").read_text())["grpc"]
        finally:
            process.terminate()
            assert process.wait(60) == 0, (data_dir / "log").read_text()


def seen(service: str, environment: dict[str, str], *options: str) -> Seen:
    command = [sys.executable, "-m", "assay_kit.self_check", service, *options]
    done = subprocess.run(command, env=os.environ | environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return {one["what"]: one for one in json.loads(done.stdout)}


def test_a_pod_sees_that_all_is_well_but_what_is_not(pod: dict[str, str]) -> None:
    found = seen("reward", pod)
    assert {what: one["good"] for what, one in found.items()} == {
        "reaches reward": True,
        "reaches Kafka": True,
        "Kafka rights": True,
        "certificate": True,
        "quality card of words": False,
    }
    assert found["certificate"]["found"] in ("good for 89 days", "good for 90 days")
    assert "assay-reward" in str(found["reaches Kafka"]["found"])
    assert "assay bench words" in str(found["quality card of words"]["remedy"])


def test_it_sees_each_right_that_is_missing(pod: dict[str, str]) -> None:
    """The user of the reward service, held against the rights of the cleaning service."""
    rights = seen("cleaning", pod)["Kafka rights"]
    assert rights["good"] is False
    for missing in ("assay.preferences.raw.v1", "assay.preferences.clean.v1", "group assay-cleaning"):
        assert missing in str(rights["found"])
    assert "assay.jobs.events.v1" in str(rights["found"])
    assert "assay_kit.acls" in str(rights["remedy"])


def test_it_sees_brokers_that_do_not_let_it_in(pod: dict[str, str]) -> None:
    reached = seen("reward", pod | {"ASSAY_KAFKA_PASSWORD": "wrong"})["reaches Kafka"]
    assert reached["good"] is False


def test_it_sees_peers_that_are_not_there_and_names_that_are_none(pod: dict[str, str]) -> None:
    found = seen("reward", pod | {"ASSAY_POLICY_TARGET": "dns:///nobody.invalid:50051", "ASSAY_TRAINING_TARGET": "127.0.0.1:1"})
    assert found["reaches policy"]["good"] is False and "nobody.invalid" in str(found["reaches policy"]["found"])
    assert found["reaches training"]["good"] is False and "UNAVAILABLE" in str(found["reaches training"]["found"])


def test_it_sees_a_certificate_of_another_authority(pod: dict[str, str], tmp_path: Path) -> None:
    other = seen("reward", pod | {"ASSAY_TLS_DIR": str(Authority("other").write(tmp_path / "other", days=90))})
    assert other["certificate"]["good"] is False and other["reaches reward"]["good"] is False


def test_it_says_where_there_is_no_gpu(pod: dict[str, str]) -> None:
    without = {name: value for name, value in pod.items() if not name.startswith("ASSAY_KAFKA")} | {"CUDA_VISIBLE_DEVICES": ""}
    assert seen("reward", without, "--device")["GPU"]["good"] is False
