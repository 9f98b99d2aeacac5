"""Kafka from the outside and by Strimzi: topics, users, how each service shows who it is, and scaling on lag."""

from __future__ import annotations

from typing import Any

import pytest
import yaml
from support.chart import CHART, COMPONENTS, VALUE_FILES, component_of, environment, named, of_kind, pod_of, render, rendered, workload

from assay_kit.acls import USERS, kafka_users
from assay_kit.groups import GROUPS
from assay_kit.topics import ALL_TOPICS

CLUSTER = {"strimzi.io/cluster": "kafka"}


def test_every_topic_of_the_table_is_made_and_stays_when_the_release_goes() -> None:
    topics = of_kind(rendered("strimzi"), "KafkaTopic")
    assert {topic["spec"]["topicName"]: topic["spec"]["partitions"] for topic in topics} == {one.name: one.partitions for one in ALL_TOPICS}
    for topic, one in zip(topics, ALL_TOPICS, strict=True):
        assert CLUSTER.items() <= topic["metadata"]["labels"].items()
        assert topic["metadata"]["annotations"]["helm.sh/resource-policy"] == "keep"
        assert topic["spec"]["replicas"] == 3
        assert topic["spec"]["config"] == {"min.insync.replicas": 2, **one.configs}


def test_every_user_has_the_rights_of_the_table_and_no_other() -> None:
    users = {one["metadata"]["name"].removeprefix("rel-assay-"): one for one in of_kind(rendered("strimzi"), "KafkaUser")}
    assert set(users) == set(USERS)
    for wanted in kafka_users():
        user = users[wanted["name"]]
        assert user["spec"]["authorization"] == wanted["spec"]["authorization"]
        assert user["spec"]["authentication"] == {"type": "scram-sha-512"}
        assert CLUSTER.items() <= user["metadata"]["labels"].items()


def test_each_service_logs_in_as_its_own_user_with_what_strimzi_keeps_for_it() -> None:
    objects = rendered("strimzi")
    for component in COMPONENTS:
        one = workload(objects, component)
        found = environment(one)
        assert found["ASSAY_KAFKA_BOOTSTRAP"] == "kafka-kafka-bootstrap.ns.svc:9093"
        assert found["ASSAY_KAFKA_SECURITY_PROTOCOL"] == "SASL_SSL"
        assert found["ASSAY_KAFKA_USERNAME"] == f"rel-assay-{component}"
        assert found["ASSAY_KAFKA_PASSWORD"] == {"secretKeyRef": {"name": f"rel-assay-{component}", "key": "password"}}
        named(objects, "KafkaUser", f"rel-assay-{component}")
        assert kafka_files(one) == {"kafka-cluster-ca-cert": ["ca.crt"]}


def kafka_files(one: dict[str, Any]) -> dict[str, list[str]]:
    (volume,) = [volume for volume in pod_of(one)["volumes"] if volume["name"] == "kafka"]
    return {source["secret"]["name"]: [item["path"] for item in source["secret"]["items"]] for source in volume["projected"]["sources"]}


def test_client_certificates_lie_where_the_service_looks_for_them() -> None:
    one = workload(render({"kafka": {"mode": "strimzi", "strimzi": {"authentication": "tls"}}}), "reward")
    assert environment(one)["ASSAY_KAFKA_SECURITY_PROTOCOL"] == "SSL"
    assert "ASSAY_KAFKA_PASSWORD" not in environment(one)
    assert kafka_files(one) == {"kafka-cluster-ca-cert": ["ca.crt"], "rel-assay-reward": ["user.crt", "user.key"]}
    external = workload(rendered("external-kafka"), "training")
    assert kafka_files(external) == {"kafka-ca": ["ca.crt"], "kafka-training": ["user.crt", "user.key"]}


def test_a_broker_without_users_is_spoken_to_plainly() -> None:
    one = workload(rendered("mtls"), "cleaning")
    found = environment(one)
    assert found["ASSAY_KAFKA_SECURITY_PROTOCOL"] == "PLAINTEXT" and found["ASSAY_KAFKA_CREATE_TOPICS"] == "true"
    assert not {"ASSAY_KAFKA_USERNAME", "ASSAY_KAFKA_TLS_DIR"} & set(found)
    assert all(volume["name"] != "kafka" for volume in pod_of(one)["volumes"])


def test_the_groups_that_are_scaled_on_are_those_of_the_services() -> None:
    facts = yaml.safe_load((CHART / "files" / "components.yaml").read_text())
    lags = {(component, one["lag"]["group"], one["lag"]["topic"]) for component, one in facts.items() if one["lag"]}
    groups = {(group.service, group.name, group.topic.name) for group in GROUPS if not group.name.endswith("-jobs")}
    assert lags == groups


@pytest.mark.parametrize("name", VALUE_FILES)
def test_no_more_pods_are_asked_for_than_a_topic_has_partitions(name: str) -> None:
    objects = rendered(name)
    made = {topic["spec"]["topicName"]: topic["spec"]["partitions"] for topic in of_kind(objects, "KafkaTopic")}
    for scaled in of_kind(objects, "ScaledObject"):
        lag = scaled["spec"]["triggers"][0]["metadata"]
        partitions = made.get(lag["topic"]) or {"assay.rewards.requested.v1": 24}.get(lag["topic"], 6)
        assert scaled["spec"]["maxReplicaCount"] <= partitions


@pytest.mark.parametrize("name", VALUE_FILES)
def test_an_autoscaler_alone_says_how_many_pods_there_are(name: str) -> None:
    objects = rendered(name)
    scalers = of_kind(objects, "ScaledObject", "HorizontalPodAutoscaler")
    assert len({component_of(one) for one in scalers}) == len(scalers)
    for one in scalers:
        target = one["spec"]["scaleTargetRef"]
        assert "replicas" not in named(objects, target["kind"], target["name"])["spec"]


def test_lag_and_queued_tokens_scale_the_reward_service() -> None:
    scaled = named(rendered("ha"), "ScaledObject", "rel-assay-reward")
    kafka, prometheus = scaled["spec"]["triggers"]
    assert kafka["metadata"]["consumerGroup"] == "assay-reward" and kafka["metadata"]["limitToPartitionsWithLag"] == "true"
    assert kafka["metadata"]["sasl"] == "scram_sha512" and kafka["metadata"]["tls"] == "enable"
    assert all(isinstance(value, str) for trigger in scaled["spec"]["triggers"] for value in trigger["metadata"].values())
    assert "assay_reward_queue_tokens" in prometheus["metadata"]["query"]
    assert scaled["spec"]["cooldownPeriod"] >= 900, "no shorter than a model takes to load"
    authentication = named(rendered("ha"), "TriggerAuthentication", kafka["authenticationRef"]["name"])
    assert {entry["parameter"] for entry in authentication["spec"]["secretTargetRef"]} == {"username", "password", "ca"}
    strimzi = named(rendered("strimzi"), "TriggerAuthentication", "rel-assay-cleaning-kafka")
    assert strimzi["spec"]["env"] == [{"parameter": "username", "name": "ASSAY_KAFKA_USERNAME", "containerName": "cleaning"}]


def test_a_pod_autoscaler_looks_at_cpu_or_at_queued_tokens() -> None:
    hpa = named(rendered("external-kafka"), "HorizontalPodAutoscaler", "rel-assay-reward")
    tokens, cpu = hpa["spec"]["metrics"]
    assert tokens["pods"]["target"] == {"type": "AverageValue", "averageValue": "65536"}
    assert cpu["resource"]["target"]["averageUtilization"] == 80
