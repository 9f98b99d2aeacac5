"""Network policies: everything closed, and exactly the edges open that the services use."""

from __future__ import annotations

import ast
from pathlib import Path
from typing import Any

import pytest
import yaml
from support.chart import (
    CHART,
    COMPONENTS,
    ROOT,
    VALUE_FILES,
    Manifest,
    component_of,
    environment,
    named,
    of_kind,
    render,
    rendered,
    workload,
)

CALLS = yaml.safe_load((CHART / "files" / "components.yaml").read_text())
EDGES = {
    ("evaluation", "cleaning"),
    ("evaluation", "reward"),
    ("evaluation", "policy"),
    ("evaluation", "training"),
    ("training", "reward"),
    ("policy", "reward"),
}
"""Who calls whose gRPC server."""


def policy_of(objects: list[Manifest], component: str) -> Manifest:
    return named(objects, "NetworkPolicy", f"rel-assay-{component}")


def component_peers(rules: list[Manifest], side: str, port: int) -> set[str]:
    found = set()
    for rule in rules:
        if any(entry["port"] == port for entry in rule.get("ports", [])):
            for peer in rule.get(side, []):
                found.add(peer.get("podSelector", {}).get("matchLabels", {}).get("app.kubernetes.io/component", ""))
    return found - {""}


def egress_ports(policy: Manifest) -> set[int]:
    return {entry["port"] for rule in policy["spec"]["egress"] for entry in rule["ports"]}


@pytest.mark.parametrize("name", [name for name in VALUE_FILES if name != "minimal"])
def test_every_pod_of_the_release_is_closed_both_ways(name: str) -> None:
    deny = named(rendered(name), "NetworkPolicy", "rel-assay-default-deny")
    assert deny["spec"]["policyTypes"] == ["Ingress", "Egress"]
    assert "ingress" not in deny["spec"] and "egress" not in deny["spec"]
    for one in of_kind(rendered(name), "Deployment", "StatefulSet", "Job"):
        labels = one["spec"]["template"]["metadata"]["labels"]
        assert deny["spec"]["podSelector"]["matchLabels"].items() <= labels.items()


@pytest.mark.parametrize("name", [name for name in VALUE_FILES if name != "minimal"])
def test_services_call_each_other_by_the_edges_of_the_table_and_no_other(name: str) -> None:
    objects = rendered(name)
    out = {
        (caller, callee) for caller in COMPONENTS for callee in component_peers(policy_of(objects, caller)["spec"]["egress"], "to", 50051)
    }
    into = {
        (caller, callee)
        for callee in COMPONENTS
        for caller in component_peers(policy_of(objects, callee)["spec"]["ingress"], "from", 50051)
    }
    assert out == into == EDGES


def test_the_table_is_what_the_services_are_given_addresses_for_and_what_they_use() -> None:
    given = {
        (component, other)
        for component in COMPONENTS
        for other in COMPONENTS
        if f"ASSAY_{other.upper()}_TARGET" in environment(workload(rendered("default"), component))
    }
    assert given == EDGES
    used = {(component, other) for component in COMPONENTS for other in _targets_read(ROOT / "services" / component)}
    assert used == EDGES
    assert {(caller, callee) for caller, facts in CALLS.items() for callee in facts["calls"]} == EDGES


def _targets_read(service: Path) -> set[str]:
    """Components whose `<component>_target` setting the service's code reads."""
    found = set()
    for path in service.rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Attribute) and node.attr.removesuffix("_target") in COMPONENTS and node.attr.endswith("_target"):
                found.add(node.attr.removesuffix("_target"))
    return found


def test_an_address_is_a_headless_service_of_the_release_which_gives_a_client_every_pod() -> None:
    objects = rendered("default")
    for component in COMPONENTS:
        for key, value in environment(workload(objects, component)).items():
            if key.endswith("_TARGET"):
                name = value.removeprefix("dns:///").removesuffix(".ns.svc:50051")
                service = named(objects, "Service", name)
                assert service["spec"]["clusterIP"] == "None"
                assert {"name": "grpc", "port": 50051, "targetPort": "grpc", "appProtocol": "kubernetes.io/h2c"} in service["spec"]["ports"]


def test_a_component_that_is_not_run_is_neither_called_nor_let_in() -> None:
    objects = render({"reward": {"enabled": False}})
    assert "ASSAY_REWARD_TARGET" not in environment(workload(objects, "policy"))
    assert component_peers(policy_of(objects, "policy")["spec"]["egress"], "to", 50051) == set()
    assert component_peers(policy_of(objects, "training")["spec"]["ingress"], "from", 50051) == {"evaluation"}


def test_only_who_has_the_clients_label_calls_in_and_only_prometheus_reads_metrics() -> None:
    for component in COMPONENTS:
        rules = policy_of(rendered("default"), component)["spec"]["ingress"]
        by_port: dict[int, list[Any]] = {}
        for rule in rules:
            for entry in rule["ports"]:
                by_port.setdefault(entry["port"], []).extend(rule["from"])
        assert set(by_port) == {50051, 9090}, "nobody but the kubelet asks for health, and the HTTP door is shut"
        outsiders = [peer for peer in by_port[50051] if "app.kubernetes.io/component" not in peer["podSelector"]["matchLabels"]]
        assert outsiders == [{"podSelector": {"matchLabels": {"assay/client": "true"}}}]
        assert by_port[9090] == [{"namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": "monitoring"}}}]


def test_what_lies_outside_is_reached_by_who_needs_it() -> None:
    ports = {component: egress_ports(policy_of(rendered("ha"), component)) for component in COMPONENTS}
    for component in COMPONENTS:
        assert {53, 9094, 4317} <= ports[component]
        assert (5432 in ports[component]) is (component in ("cleaning", "training", "evaluation"))
        assert ports[component] <= {53, 50051, 9094, 4317, 5432}
    external = {component: egress_ports(policy_of(rendered("external-kafka"), component)) for component in COMPONENTS}
    assert [component for component in COMPONENTS if 8000 in external[component]] == ["policy"]
    assert all(9093 in ports for ports in external.values())
    assert egress_ports(policy_of(rendered("default"), "cleaning")) == {53}
    assert all(443 in egress_ports(policy_of(rendered("gpu"), component)) for component in COMPONENTS)


def test_kafka_is_the_pods_of_the_strimzi_cluster() -> None:
    for component in COMPONENTS:
        rules = [
            rule
            for rule in policy_of(rendered("strimzi"), component)["spec"]["egress"]
            if rule["ports"] == [{"port": 9093, "protocol": "TCP"}]
        ]
        assert rules == [
            {"ports": [{"port": 9093, "protocol": "TCP"}], "to": [{"podSelector": {"matchLabels": {"strimzi.io/cluster": "kafka"}}}]}
        ]


def test_jobs_reach_what_they_work_on_and_nothing_else() -> None:
    migration = policy_of(rendered("ha"), "migration")
    assert egress_ports(migration) == {53, 5432} and "ingress" not in migration["spec"]
    download = policy_of(rendered("gpu"), "models")
    assert egress_ports(download) == {53, 443} and "ingress" not in download["spec"]


def test_the_gateway_is_let_in_where_there_is_one() -> None:
    peer = {"namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": "envoy-gateway-system"}}}
    rules = policy_of(rendered("mtls"), "reward")["spec"]["ingress"]
    assert any(peer in rule["from"] for rule in rules if rule["ports"][0]["port"] == 50051)


def test_policies_can_be_left_to_somebody_else() -> None:
    assert of_kind(render({"networkPolicy": {"enabled": False}}), "NetworkPolicy") == []


def test_every_policy_is_of_a_component_that_has_pods() -> None:
    for name in VALUE_FILES:
        objects = rendered(name)
        with_pods = {component_of(one) for one in of_kind(objects, "Deployment", "StatefulSet", "Job")}
        assert {component_of(one) for one in of_kind(objects, "NetworkPolicy")} - {""} <= with_pods
