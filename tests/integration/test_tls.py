"""Services that speak only to those who show a certificate, and to one another with their own."""

from __future__ import annotations

import json
import os
import ssl
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import grpc
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc
from support.certificates import Authority
from support.tiny_models import write_tiny_causal_lm, write_tiny_reward_model

from assay.policy.v1 import policy_pb2
from assay_client import AssayClient, Security
from assay_client.channels import open_channel
from assay_client.endpoints import Endpoints
from assay_client.errors import AssayClientError
from assay_evaluation.remote import Remote
from assay_evaluation.settings import EvaluationSettings
from assay_training.gate import reward_service

QUESTION = [{"role": "user", "content": "How do I bake bread?"}]
SERVING = health_pb2.HealthCheckResponse.SERVING


@contextmanager
def service(name: str, data_dir: Path, tls_dir: Path, **settings: str) -> Iterator[dict[str, Any]]:
    """Runs a service as a process; gives what its endpoint.json says."""
    environment = {
        **os.environ,
        "ASSAY_DATA_DIR": str(data_dir),
        "ASSAY_TLS_DIR": str(tls_dir),
        "ASSAY_HEALTH_PORT": "0",
        "ASSAY_DRAIN_SECONDS": "5",
        **settings,
    }
    data_dir.mkdir(parents=True, exist_ok=True)
    with (data_dir / "log").open("w") as log:
        process = subprocess.Popen([sys.executable, "-m", f"assay_{name}"], env=environment, stdout=log, stderr=log)
        try:
            endpoint = data_dir / "endpoint.json"
            deadline = time.monotonic() + 120
            while not endpoint.exists():
                assert process.poll() is None and time.monotonic() < deadline, (data_dir / "log").read_text()
                time.sleep(0.05)
            yield json.loads(endpoint.read_text())
        finally:
            process.terminate()
            assert process.wait(30) == 0, (data_dir / "log").read_text()


@pytest.fixture(scope="module")
def authority() -> Authority:
    return Authority()


@pytest.fixture(scope="module")
def reward(authority: Authority, tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[dict[str, Any], Path]]:
    """A reward service with one model and an HTTP door, and the folder of its certificate."""
    folder = tmp_path_factory.mktemp("reward")
    tls_dir = authority.write(folder / "tls", "reward")
    model = folder / "model"
    write_tiny_reward_model(model)
    preload = json.dumps({"tiny": str(model)})
    with service("reward", folder / "data", tls_dir, ASSAY_REWARD_HTTP_PORT="0", ASSAY_REWARD_PRELOAD=preload) as endpoint:
        yield endpoint, tls_dir


@pytest.fixture
def of_client(authority: Authority, tmp_path: Path) -> Security:
    security = Security.from_folder(authority.write(tmp_path / "client", "client"))
    assert security is not None
    return security


def models_at(target: str, security: Security | None) -> list[str]:
    with AssayClient(Endpoints(reward=target), timeout_s=5.0, security=security) as client:
        return [model.name for model in client.reward.list_models()]


def health_at(target: str, name: str = "") -> int:
    with grpc.insecure_channel(target) as channel:
        return health_pb2_grpc.HealthStub(channel).Check(health_pb2.HealthCheckRequest(service=name), timeout=5).status


def test_only_who_shows_a_certificate_of_the_authority_is_served(
    reward: tuple[dict[str, Any], Path], of_client: Security, tmp_path: Path
) -> None:
    endpoint, _ = reward
    target = endpoint["grpc"]
    assert models_at(target, of_client) == ["tiny"]
    stranger = Security.from_folder(Authority("another").write(tmp_path / "stranger"))
    assert stranger is not None
    for security in (
        None,
        Security(ca_file=of_client.ca_file),
        Security(ca_file=of_client.ca_file, cert_file=stranger.cert_file, key_file=stranger.key_file),
        stranger,
    ):
        with pytest.raises(AssayClientError) as refused:
            models_at(target, security)
        assert refused.value.code is grpc.StatusCode.UNAVAILABLE


def test_the_health_port_answers_without_a_certificate_and_knows_nothing_else(reward: tuple[dict[str, Any], Path]) -> None:
    endpoint, _ = reward
    assert health_at(endpoint["health"]) == SERVING
    assert health_at(endpoint["health"], "assay.reward.v1.RewardService") == SERVING
    with pytest.raises(AssayClientError) as refused:
        models_at(endpoint["health"], None)
    assert refused.value.code is grpc.StatusCode.UNIMPLEMENTED


def test_the_http_door_is_https_and_asks_for_no_certificate(reward: tuple[dict[str, Any], Path]) -> None:
    endpoint, tls_dir = reward
    assert endpoint["http"].startswith("https://127.0.0.1:")
    body = json.dumps({"query": ["How do I bake bread? Knead."]}).encode()
    request = urllib.request.Request(endpoint["http"] + "/get_reward", body, {"Content-Type": "application/json"})
    with urllib.request.urlopen(request, timeout=10, context=ssl.create_default_context(cafile=str(tls_dir / "ca.crt"))) as answer:
        assert len(json.loads(answer.read())["rewards"]) == 1
    with pytest.raises((urllib.error.URLError, ConnectionError)):
        urllib.request.urlopen(endpoint["http"].replace("https", "http") + "/get_reward", body, timeout=10)


def test_a_service_calls_another_with_its_own_certificate(
    authority: Authority, reward: tuple[dict[str, Any], Path], of_client: Security, tmp_path: Path
) -> None:
    endpoint, tls_dir = reward
    own = authority.write(tmp_path / "tls", "policy")
    settings = {
        "ASSAY_REWARD_TARGET": endpoint["grpc"],
        "ASSAY_POLICY_PRELOAD": json.dumps({"sft": str(write_tiny_causal_lm(tmp_path / "sft"))}),
    }
    with (
        service("policy", tmp_path / "data", own, **settings) as policy,
        AssayClient(Endpoints(policy=policy["grpc"]), timeout_s=60.0, security=of_client) as client,
    ):
        chosen = client.policy.best_of_n(QUESTION, n=2, sampling=policy_pb2.SamplingOptions(max_new_tokens=4))
        assert chosen.reward_model_fingerprint
    assert reward_service(endpoint["grpc"], Security.from_folder(tls_dir))("tiny").name == "tiny"  # of the training service
    of_evaluation = Remote(EvaluationSettings(reward_target=endpoint["grpc"], tls_dir=own), patience_seconds=0.0)
    assert [model.name for model in of_evaluation.reward.list_models()] == ["tiny"]
    of_evaluation.close()


def test_renewed_certificates_are_used_without_a_restart(tmp_path: Path) -> None:
    old, new = Authority("old"), Authority("new")
    tls_dir = old.write(tmp_path / "tls")
    mine = old.write(tmp_path / "mine")
    with service("cleaning", tmp_path / "data", tls_dir, ASSAY_GRPC_MAX_CONNECTION_AGE_SECONDS="1") as endpoint:
        target = endpoint["grpc"]
        before = Security.from_folder(old.write(tmp_path / "before"))
        with AssayClient(Endpoints(cleaning=target), timeout_s=5.0, security=Security.from_folder(mine)) as client:
            assert client.cleaning.list_detectors().detectors
            new.write(tls_dir)
            with pytest.raises(AssayClientError):  # who has the old ones is refused, on a new connection
                AssayClient(Endpoints(cleaning=target), timeout_s=5.0, security=before).cleaning.list_detectors()
            new.write(mine)
            assert client.cleaning.list_detectors().detectors  # the client, too, goes on with what is in its folder now
        (tls_dir / "..data").unlink()
        (tls_dir / "..data").symlink_to("nowhere")
        with open_channel(target, Security.from_folder(mine)) as channel:
            status = health_pb2_grpc.HealthStub(channel).Check(health_pb2.HealthCheckRequest(), timeout=5).status
        assert status == SERVING  # with the last good ones
    assert "cannot be read" in (tmp_path / "data" / "log").read_text()


def test_an_expired_certificate_stops_the_start_with_one_line(authority: Authority, tmp_path: Path) -> None:
    authority.write(tmp_path / "tls", days=-1)
    environment = {**os.environ, "ASSAY_TLS_DIR": str(tmp_path / "tls"), "ASSAY_DATA_DIR": str(tmp_path / "data")}
    done = subprocess.run([sys.executable, "-m", "assay_cleaning"], env=environment, capture_output=True, text=True, timeout=120)
    assert done.returncode == 2 and done.stdout == ""
    [line] = done.stderr.splitlines()
    assert line.startswith("assay-cleaning: ASSAY_TLS_DIR: ") and line.endswith("certificate has expired")
