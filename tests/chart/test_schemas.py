"""Every object is what Kubernetes takes: no unknown field, none missing, on four versions and for every custom resource."""

from __future__ import annotations

import functools
from pathlib import Path

import pytest
from support.chart import VALUE_FILES, Manifest, of_kind, rendered, template, workload
from support.kubernetes_schemas import VERSIONS, CustomSchemas, NoSchema, complaints, is_custom


@pytest.fixture(scope="module")
def custom(shared_data: Path) -> CustomSchemas:
    folder = shared_data / "crds"
    if not folder.is_dir():
        pytest.skip("no definitions of custom resources among the shared data")
    return CustomSchemas(folder)


def _cases() -> list[tuple[str, str]]:
    return [(name, version) for name in VALUE_FILES for version in VERSIONS if name != "gpu-dra" or version in ("1.34", "1.37")]


@pytest.mark.parametrize(("name", "version"), _cases())
def test_built_in_kinds_are_as_this_version_of_kubernetes_declares_them(name: str, version: str) -> None:
    objects = [one for one in template("helm4", name, version) if not is_custom(one)]
    assert objects
    wrong = {f"{one['kind']}/{one['metadata']['name']}": complaints(one, version) for one in objects}
    assert {key: found for key, found in wrong.items() if found} == {}


@pytest.mark.parametrize("name", VALUE_FILES)
def test_custom_resources_are_as_their_definitions_declare_them(name: str, custom: CustomSchemas) -> None:
    wrong = {f"{one['kind']}/{one['metadata']['name']}": custom.complaints(one) for one in rendered(name) if is_custom(one)}
    assert {key: found for key, found in wrong.items() if found} == {}


def test_the_value_files_together_hold_every_kind_of_custom_resource_that_the_chart_can_make(custom: CustomSchemas) -> None:
    kinds = {one["kind"] for name in VALUE_FILES for one in rendered(name) if is_custom(one)}
    assert kinds == {
        "Certificate", "ExternalSecret", "GRPCRoute", "Gateway", "Issuer", "KafkaTopic", "KafkaUser", "PodMonitor", "PrometheusRule",
        "ScaledObject", "ServiceMonitor", "TriggerAuthentication",
    }  # fmt: skip


def _without_replicas(one: Manifest) -> None:
    one["spec"]["replica"] = one["spec"].pop("replicas")


def _misspelt_probe(one: Manifest) -> None:
    container = one["spec"]["template"]["spec"]["containers"][0]
    container["livenessProbee"] = container.pop("livenessProbe")


def _text_for_a_number(one: Manifest) -> None:
    one["spec"]["template"]["spec"]["terminationGracePeriodSeconds"] = "seventy"


def _no_selector(one: Manifest) -> None:
    del one["spec"]["selector"]


@pytest.mark.parametrize("harm", [_without_replicas, _misspelt_probe, _text_for_a_number, _no_selector])
@pytest.mark.parametrize("version", VERSIONS)
def test_a_misspelt_a_mistyped_or_a_missing_field_is_found(harm: functools.partial[None], version: str) -> None:
    one = workload(rendered("default"), "reward")
    assert complaints(one, version) == []
    harm(one)
    assert complaints(one, version)


def test_a_version_of_an_api_that_is_gone_is_found() -> None:
    (one,) = of_kind(rendered("external-kafka"), "HorizontalPodAutoscaler")
    with pytest.raises(NoSchema):
        complaints({**one, "apiVersion": "autoscaling/v2beta2"}, "1.37")
    (claim, *_) = of_kind(rendered("gpu-dra"), "ResourceClaimTemplate")
    with pytest.raises(NoSchema):
        complaints(claim, "1.33")


def test_a_misspelt_field_of_a_custom_resource_is_found(custom: CustomSchemas) -> None:
    (topic, *_) = of_kind(rendered("strimzi"), "KafkaTopic")
    topic["spec"]["partitions"] = "6"
    assert custom.complaints(topic)
    (scaled, *_) = of_kind(rendered("strimzi"), "ScaledObject")
    scaled["spec"]["minReplicaCountt"] = scaled["spec"].pop("minReplicaCount")
    assert custom.complaints(scaled)
    (monitor, *_) = of_kind(rendered("ha"), "ServiceMonitor")
    monitor["spec"]["endpoints"][0]["intervall"] = "30s"
    assert custom.complaints(monitor)
