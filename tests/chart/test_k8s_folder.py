"""The files of k8s/: each is what the API server takes, agrees with the chart, and the quick start ends with a score."""

from __future__ import annotations

import functools
import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from google.protobuf import json_format
from support.chart import CHART, ROOT, environment, render, values_of, workload
from support.kubernetes_schemas import VERSIONS, CustomSchemas, complaints, is_custom
from support.reward_service import reward_service

from assay.reward.v1 import reward_pb2

K8S = ROOT / "k8s"
FILES = sorted(K8S.rglob("*.yaml"))
VALUES = {path for path in FILES if path.name.endswith("values.yaml")}
# Kinds of clouds and tools, of whose definitions there is no copy.
UNCHECKED = {("EC2NodeClass", "karpenter.k8s.aws"), ("ContainerNodePool", "container.cnrm.cloud.google.com")}
NOT_OF_A_CLUSTER = {"kind.x-k8s.io", "eksctl.io"}


def manifests(*paths: Path) -> Iterator[dict[str, Any]]:
    for path in paths:
        yield from (one for one in yaml.safe_load_all(path.read_text()) if one)


def group(one: dict[str, Any]) -> str:
    return str(one["apiVersion"].rpartition("/")[0])


def of_the_cluster() -> list[Any]:
    found = [(path, one) for path in FILES if path not in VALUES for one in manifests(path) if group(one) not in NOT_OF_A_CLUSTER]
    return [pytest.param(one, id=f"{path.relative_to(K8S)}:{one['kind']}/{one['metadata']['name']}") for path, one in found]


@functools.cache
def custom_schemas(shared: Path) -> CustomSchemas:
    return CustomSchemas(shared / "crds")


def the_one(path: str, kind: str, name: str | None = None) -> dict[str, Any]:
    (found,) = [one for one in manifests(K8S / path) if one["kind"] == kind and name in (None, one["metadata"]["name"])]
    return found


@pytest.mark.parametrize("manifest", of_the_cluster())
def test_a_file_is_what_the_api_server_takes(manifest: dict[str, Any], request: pytest.FixtureRequest) -> None:
    if (manifest["kind"], group(manifest)) in UNCHECKED:
        pytest.skip(f"no definition of {manifest['kind']}")
    if is_custom(manifest) or group(manifest) in ("karpenter.sh", "monitoring.coreos.com"):
        assert custom_schemas(request.getfixturevalue("shared_data")).complaints(manifest) == []
        return
    for version in VERSIONS:
        assert complaints(manifest, version) == [], version


def test_values_of_other_charts_are_maps() -> None:
    assert len(VALUES) >= 6
    assert all(isinstance(yaml.safe_load(path.read_text()), dict) for path in VALUES)


def test_nothing_asks_for_the_latest_of_anything() -> None:
    """The version of a pod security standard is none of an image's."""
    text = {path: path.read_text().replace("enforce-version: latest", "") for path in FILES}
    assert [str(path) for path, content in text.items() if re.search(r"[:@]\s*latest\b", content)] == []


def test_gpu_nodes_have_the_taint_the_chart_tolerates_and_the_labels_its_values_ask_for() -> None:
    pools = [
        the_one("gpu/karpenter-eks.yaml", "NodePool")["spec"]["template"],
        *the_one("gpu/eksctl-node-groups.yaml", "ClusterConfig")["managedNodeGroups"],
        *(one["spec"]["nodeConfig"] for one in manifests(K8S / "gpu/gke-node-pools.yaml")),
    ]
    wanted = values_of("gpu")
    components = [wanted[name]["placement"]["nodeSelector"]["assay/pool"] for name in ("reward", "policy", "training")]
    labels = [pool.get("labels") or pool["metadata"]["labels"] for pool in pools]
    assert {label["assay/pool"] for label in labels} == set(components)
    assert all(wanted["accelerator"]["nodeSelector"].items() <= label.items() for label in labels)
    (toleration,) = yaml.safe_load((CHART / "values.yaml").read_text())["accelerator"]["tolerations"]
    # GKE taints its GPU nodes itself, with the same key
    taints = [taint for pool in pools for taint in (pool.get("taints") or pool.get("spec", {}).get("taints") or [])]
    assert len(taints) == 3
    assert {(taint["key"], taint["effect"]) for taint in taints} == {(toleration["key"], toleration["effect"])}


def test_gpus_are_cut_by_profiles_that_nodes_name() -> None:
    config = yaml.safe_load(the_one("gpu/mig-profiles.yaml", "ConfigMap")["data"]["config.yaml"])
    operator = yaml.safe_load((K8S / "gpu/gpu-operator-values.yaml").read_text())
    assert operator["migManager"]["config"]["name"] == "mig-profiles"
    assert operator["migManager"]["config"]["default"] in config["mig-configs"]
    groups = the_one("gpu/eksctl-node-groups.yaml", "ClusterConfig")["managedNodeGroups"]
    named = {one["labels"]["nvidia.com/mig.config"] for one in groups if "nvidia.com/mig.config" in one["labels"]}
    assert named and named <= config["mig-configs"].keys()


@pytest.mark.parametrize("authentication", ["scram-sha-512", "tls"])
def test_the_release_finds_the_listener_of_the_kafka_there(authentication: str) -> None:
    kafka = the_one("kafka/kafka.yaml", "Kafka")
    pool = the_one("kafka/kafka.yaml", "KafkaNodePool")
    (listener,) = [one for one in kafka["spec"]["kafka"]["listeners"] if one["authentication"]["type"] == authentication]
    strimzi = {"cluster": kafka["metadata"]["name"], "authentication": authentication, "port": listener["port"]}
    objects = render({"kafka": {"mode": "strimzi", "strimzi": strimzi}}, namespace=kafka["metadata"]["namespace"])
    assert environment(workload(objects, "reward"))["ASSAY_KAFKA_BOOTSTRAP"] == f"kafka-kafka-bootstrap.assay.svc:{listener['port']}"
    users = [one for one in objects if one["kind"] == "KafkaUser"]
    assert users and {one["spec"]["authentication"]["type"] for one in users} == {authentication}
    assert {one["metadata"]["labels"]["strimzi.io/cluster"] for one in users} == {pool["metadata"]["labels"]["strimzi.io/cluster"]}
    peers = [one["podSelector"]["matchLabels"] for one in listener["networkPolicyPeers"] if "podSelector" in one]
    pods = workload(objects, "reward")["spec"]["template"]["metadata"]["labels"]
    assert any(labels.items() <= pods.items() for labels in peers), "Kafka's listener shuts the services out"
    topics = [one for one in objects if one["kind"] == "KafkaTopic"]
    assert topics and all(one["spec"]["replicas"] <= pool["spec"]["replicas"] for one in topics)


def test_the_database_is_where_the_values_look_for_it() -> None:
    cluster = the_one("postgres/cluster.yaml", "Cluster")
    assert values_of("ha")["database"]["existingSecret"] == f"{cluster['metadata']['name']}-app"
    assert yaml.safe_load((CHART / "values.yaml").read_text())["database"]["key"] == "uri"


def test_the_priority_that_the_values_ask_for_is_there() -> None:
    classes = {one["metadata"]["name"] for one in manifests(K8S / "priority-classes.yaml")}
    assert {
        values_of("ha")["defaults"]["placement"]["priorityClassName"],
        values_of("gpu")["reward"]["placement"]["priorityClassName"],
    } <= classes


def test_prometheus_takes_the_monitors_and_grafana_the_dashboards_that_the_values_make() -> None:
    stack = yaml.safe_load((K8S / "kube-prometheus-stack-values.yaml").read_text())
    monitoring = yaml.safe_load((CHART / "values.yaml").read_text())["monitoring"]
    sidecar = stack["grafana"]["sidecar"]["dashboards"]
    assert (sidecar["label"], sidecar["labelValue"]) == (monitoring["dashboards"]["label"], monitoring["dashboards"]["labelValue"])
    assert (
        the_one("kafka/pod-monitor.yaml", "PodMonitor")["metadata"]["labels"].items()
        <= values_of("ha")["monitoring"]["additionalLabels"].items()
    )


def request_of_the_readme() -> reward_pb2.ScoreGroupRequest:
    found = re.search(
        r"grpcurl -plaintext -d '(\{.*?\})' localhost:50051 (\S+)", (K8S / "quickstart/README.md").read_text(), flags=re.DOTALL
    )
    assert found and found[2] == "assay.reward.v1.RewardService/ScoreGroup"
    return json_format.Parse(found[1], reward_pb2.ScoreGroupRequest())


def mounted(config_map: dict[str, Any], folder: Path) -> Path:
    """A folder as a kubelet mounts a ConfigMap: every file a link into a hidden folder."""
    hidden = folder / "..2026_01_01"
    hidden.mkdir(parents=True)
    (folder / "..data").symlink_to(hidden.name)
    for name, content in config_map["data"].items():
        (hidden / name).write_text(content)
        (folder / name).symlink_to(f"..data/{name}")
    return folder


async def test_the_quick_start_ends_with_a_score(tmp_path: Path) -> None:
    objects = render(yaml.safe_load((K8S / "quickstart/values.yaml").read_text()), release="assay", namespace="assay")
    reward = workload(objects, "reward")
    pod = reward["spec"]["template"]["spec"]
    model = the_one("quickstart/model.yaml", "ConfigMap")
    (volume,) = [one for one in pod["volumes"] if one.get("configMap", {}).get("name") == model["metadata"]["name"]]
    (mount,) = [one for one in pod["containers"][0]["volumeMounts"] if one["name"] == volume["name"]]
    ((name, uri),) = json.loads(environment(reward)["ASSAY_REWARD_PRELOAD"]).items()
    assert uri == mount["mountPath"]
    folder = mounted(model, tmp_path / "model")
    async with reward_service(tmp_path / "state", reward_preload={name: str(folder)}) as client:
        reply = await client.reward.ScoreGroup(request_of_the_readme(), wait_for_ready=True)
    scores = {one.id: one.raw for one in reply.scores}
    assert scores["kind"] > 0 > scores["rude"]
