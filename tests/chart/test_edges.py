"""TLS inside and at the edge, monitoring, secrets from elsewhere, images: what joins a release to the rest of a cluster."""

from __future__ import annotations

import json
import re

import pytest
import yaml
from support.chart import (
    CHART,
    COMPONENTS,
    VALUE_FILES,
    container_of,
    environment,
    helm,
    named,
    of_kind,
    pod_of,
    render,
    rendered,
    values_of,
    workload,
)

DIGEST = re.compile(r"@sha256:[0-9a-f]{64}$")


def images(name: str) -> set[str]:
    pods = [pod_of(one) for one in of_kind(rendered(name), "Deployment", "StatefulSet", "Job")]
    return {container["image"] for pod in pods for container in [*pod.get("initContainers", []), *pod["containers"]]}


def test_each_certificate_has_the_names_that_its_service_is_called_by_and_lies_where_the_service_looks() -> None:
    objects = rendered("mtls")
    called = {value.removeprefix("dns:///").removesuffix(":50051") for component in COMPONENTS
              for key, value in environment(workload(objects, component)).items() if key.endswith("_TARGET")}  # fmt: skip
    for component in COMPONENTS:
        certificate = named(objects, "Certificate", f"rel-assay-{component}")
        names = certificate["spec"]["dnsNames"]
        assert {f"rel-assay-{component}.ns.svc", f"rel-assay-{component}-headless.ns.svc", f"rel-assay-{component}"} <= set(names)
        called -= set(names)
        assert {"server auth", "client auth"} <= set(certificate["spec"]["usages"])
        one = workload(objects, component)
        assert environment(one)["ASSAY_TLS_DIR"] == "/etc/assay/tls"
        assert {"name": "tls", "secret": {"secretName": certificate["spec"]["secretName"]}} in pod_of(one)["volumes"]
        assert container_of(one)["readinessProbe"]["grpc"]["port"] == 50052, "a kubelet shows no certificate"
        (grpc, *_) = named(objects, "Service", f"rel-assay-{component}")["spec"]["ports"]
        assert "appProtocol" not in grpc, "a gateway would speak plaintext to it"
        named(objects, certificate["spec"]["issuerRef"]["kind"], certificate["spec"]["issuerRef"]["name"])
    assert called == set()


def test_the_release_s_own_ca_signs_and_is_signed_by_itself() -> None:
    objects = rendered("mtls")
    ca = named(objects, "Certificate", "rel-assay-ca")
    assert ca["spec"]["isCA"] is True and ca["spec"]["issuerRef"]["name"] == "rel-assay-self-signed"
    assert named(objects, "Issuer", "rel-assay-ca")["spec"] == {"ca": {"secretName": ca["spec"]["secretName"]}}
    given = render({"tls": {"enabled": True, "certManager": {"issuerRef": {"name": "corp", "kind": "ClusterIssuer"}}}})
    assert of_kind(given, "Issuer") == []
    assert {one["spec"]["issuerRef"]["name"] for one in of_kind(given, "Certificate")} == {"corp"}


def test_certificates_made_by_somebody_else_are_mounted() -> None:
    secrets = {component: f"{component}-cert" for component in COMPONENTS}
    objects = render({"tls": {"enabled": True, "mode": "existingSecrets", "secrets": secrets}})
    assert of_kind(objects, "Certificate", "Issuer") == []
    for component in COMPONENTS:
        assert {"name": "tls", "secret": {"secretName": f"{component}-cert"}} in pod_of(workload(objects, component))["volumes"]


def test_a_route_of_the_gateway_opens_a_component_s_services_and_reflection_where_it_is_asked_for() -> None:
    objects = rendered("mtls")
    (route,) = of_kind(objects, "GRPCRoute")
    assert route["spec"]["hostnames"] == ["reward.assay.example.com"]
    (rule,) = route["spec"]["rules"]
    services = [match["method"]["service"] for match in rule["matches"]]
    assert "assay.reward.v1.RewardService" in services and "grpc.reflection.v1.ServerReflection" in services
    assert rule["backendRefs"] == [{"name": "rel-assay-reward", "port": 50051}]
    gateway = named(objects, "Gateway", route["spec"]["parentRefs"][0]["name"])
    (listener,) = gateway["spec"]["listeners"]
    assert listener["protocol"] == "HTTPS" and listener["tls"]["certificateRefs"] == [{"kind": "Secret", "name": "rel-assay-edge"}]
    assert named(objects, "Certificate", "rel-assay-edge")["spec"]["secretName"] == "rel-assay-edge"


def test_the_services_of_a_route_are_those_that_the_component_serves() -> None:
    facts = yaml.safe_load((CHART / "files" / "components.yaml").read_text())
    protos = {
        f"{package[1]}.{service}"
        for path in (CHART.parents[1] / "protos").rglob("*.proto")
        if (package := re.search(r"^package ([\w.]+);", path.read_text(), re.M))
        for service in re.findall(r"^service (\w+)", path.read_text(), re.M)
    }
    assert {service for one in facts.values() for service in one["services"]} == protos


def test_an_ingress_speaks_grpc_with_tls() -> None:
    found = of_kind(rendered("ha"), "Ingress")
    assert {one["spec"]["rules"][0]["host"] for one in found} == {"reward.assay.example.com", "policy.assay.example.com"}
    for one in found:
        assert one["metadata"]["annotations"]["nginx.ingress.kubernetes.io/backend-protocol"] == "GRPC"
        assert one["spec"]["tls"] == [{"hosts": [one["spec"]["rules"][0]["host"]], "secretName": "rel-assay-edge"}]
    assert of_kind(rendered("default"), "Ingress", "GRPCRoute", "Gateway") == []


@pytest.mark.parametrize(
    ("name", "kind", "key"), [("ha", "ServiceMonitor", "endpoints"), ("external-kafka", "PodMonitor", "podMetricsEndpoints")]
)
def test_every_component_is_scraped_once(name: str, kind: str, key: str) -> None:
    objects = rendered(name)
    for component in COMPONENTS:
        monitor = named(objects, kind, f"rel-assay-{component}")
        (endpoint,) = monitor["spec"][key]
        assert endpoint["port"] == "metrics" and endpoint["interval"] == "30s"
        if kind == "ServiceMonitor":
            wanted = monitor["spec"]["selector"]["matchLabels"]
            chosen = [one["metadata"]["name"] for one in of_kind(objects, "Service") if wanted.items() <= one["metadata"]["labels"].items()]
            assert chosen == [f"rel-assay-{component}"]
            assert monitor["metadata"]["labels"]["release"] == "kube-prometheus-stack"


def test_the_rules_are_the_files_that_promtool_tests() -> None:
    files = {path.stem: yaml.safe_load(path.read_text()) for path in (CHART / "rules").glob("*.yaml")}
    made = {one["metadata"]["name"].removeprefix("rel-assay-"): one["spec"] for one in of_kind(rendered("ha"), "PrometheusRule")}
    assert made == files and files
    assert all(one["metadata"]["labels"]["release"] == "kube-prometheus-stack" for one in of_kind(rendered("ha"), "PrometheusRule"))


def test_every_dashboard_is_a_config_map_that_grafana_finds() -> None:
    files = {path.name: json.loads(path.read_text()) for path in (CHART / "dashboards").glob("*.json")}
    maps = [one for one in of_kind(rendered("ha"), "ConfigMap") if "dashboard" in one["metadata"]["name"]]
    assert {name: json.loads(text) for one in maps for name, text in one["data"].items()} == files
    assert all(one["metadata"]["labels"]["grafana_dashboard"] == "1" for one in maps)


def test_secrets_come_from_an_external_store_and_never_from_the_chart() -> None:
    (external,) = of_kind(rendered("strimzi"), "ExternalSecret")
    assert external["spec"]["target"]["name"] == "assay-postgres"
    assert external["spec"]["data"] == [{"secretKey": "uri", "remoteRef": {"key": "assay/postgres", "property": "uri"}}]
    assert all(of_kind(rendered(name), "Secret") == [] for name in VALUE_FILES)


def test_objects_of_one_s_own_are_rendered_with_the_release() -> None:
    note = [one for one in of_kind(rendered("mtls"), "ConfigMap") if one["data"].get("note")]
    assert [one["metadata"]["name"] for one in note] == ["rel-note"]


def test_an_air_gapped_cluster_pulls_everything_from_its_mirror_by_digest_with_its_secret() -> None:
    assert images("air-gapped")
    for image in images("air-gapped"):
        assert image.startswith("registry.internal.example:5000/assay/") and DIGEST.search(image)
    for one in of_kind(rendered("air-gapped"), "Deployment", "StatefulSet", "Job"):
        assert pod_of(one)["imagePullSecrets"] == [{"name": "mirror"}]
    assert not [rule for policy in of_kind(rendered("air-gapped"), "NetworkPolicy") for rule in policy["spec"].get("egress", [])
                if any(entry["port"] == 443 for entry in rule["ports"])]  # fmt: skip


@pytest.mark.parametrize("name", VALUE_FILES)
def test_every_image_is_of_one_version_and_in_the_chart_s_list(name: str) -> None:
    metadata = yaml.safe_load((CHART / "Chart.yaml").read_text())
    listed = {one["image"] for one in yaml.safe_load(metadata["annotations"]["artifacthub.io/images"])}
    if name != "air-gapped":
        assert images(name) <= listed
    assert not any(image.endswith(":latest") or ":" not in image for image in images(name))


def test_the_list_of_images_is_what_the_value_files_use_together_and_the_version_is_the_project_s() -> None:
    metadata = yaml.safe_load((CHART / "Chart.yaml").read_text())
    listed = {one["image"] for one in yaml.safe_load(metadata["annotations"]["artifacthub.io/images"])}
    assert {image for name in VALUE_FILES if name != "air-gapped" for image in images(name)} == listed
    versions = {re.search(r'^version = "(.*)"', path.read_text(), re.M)[1] for path in CHART.parents[1].glob("services/*/pyproject.toml")}  # type: ignore[index]
    assert versions == {metadata["appVersion"]}


def test_devices_choose_the_image_with_cuda_unless_a_tag_is_named() -> None:
    assert container_of(workload(rendered("gpu"), "reward"))["image"] == "assay/reward:0.1.0-cuda"
    assert container_of(workload(rendered("gpu"), "cleaning"))["image"] == "assay/cleaning:0.1.0"
    values = {"reward": {"accelerator": {"enabled": True}, "image": {"tag": "1.2.3-rocm"}}}
    assert container_of(workload(render(values), "reward"))["image"] == "assay/reward:1.2.3-rocm"


def test_the_notes_say_what_comes_next_and_warn_of_what_is_missing() -> None:
    def notes(*arguments: str) -> str:
        done = helm("helm4", "install", "rel", str(CHART), "--dry-run=client", "-n", "ns", *arguments)
        assert done.returncode == 0, done.stderr
        return done.stdout.partition("NOTES:")[2]

    plain = notes()
    assert "assay doctor --cluster --namespace ns --release rel" in plain and "assay/reward:0.1.0" in plain
    for warned in ("kafka.mode is none", "tls.enabled is false", "database.existingSecret is empty"):
        assert f"WARNING: {warned}" in plain
    assert "reward may have 9 pods" in notes(
        "-f", str(CHART / "ci" / "external-kafka-values.yaml"), "--set", "reward.autoscaling.maxReplicas=9"
    )
    ha = notes("-f", str(CHART / "ci" / "ha-values.yaml"))
    assert "kafka.mode is none" not in ha and "database.existingSecret" not in ha


def test_an_external_server_generates_where_one_is_named() -> None:
    policy = environment(workload(rendered("external-kafka"), "policy"))
    assert json.loads(policy["ASSAY_POLICY_PRELOAD"]) == {"qwen": values_of("external-kafka")["generation"]["external"]["url"]}
    assert policy["ASSAY_POLICY_OPENAI_API_KEY"] == {"secretKeyRef": {"name": "vllm", "key": "api-key"}}
