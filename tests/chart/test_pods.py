"""What holds of every pod of the chart, whatever the values."""

from __future__ import annotations

import itertools
from typing import Any

import pytest
from support.chart import (
    COMPONENTS,
    VALUE_FILES,
    Manifest,
    component_of,
    container_of,
    environment,
    named,
    of_kind,
    pod_of,
    render,
    rendered,
    values_of,
    workload,
)

WITH_PODS = ("Deployment", "StatefulSet", "Job")


def workloads(name: str) -> list[Manifest]:
    return of_kind(rendered(name), "Deployment", "StatefulSet")


def containers(one: Manifest) -> list[dict[str, Any]]:
    return [*pod_of(one).get("initContainers", []), *pod_of(one)["containers"]]


@pytest.mark.parametrize("name", VALUE_FILES)
def test_every_pod_keeps_the_restricted_standard(name: str) -> None:
    for one in of_kind(rendered(name), *WITH_PODS):
        pod = pod_of(one)
        assert pod["securityContext"]["runAsNonRoot"] is True
        assert pod["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
        assert not {"hostNetwork", "hostPID", "hostIPC"} & set(pod)
        for container in containers(one):
            context = container["securityContext"]
            assert context["readOnlyRootFilesystem"] is True and context["allowPrivilegeEscalation"] is False
            assert context["capabilities"] == {"drop": ["ALL"]} and context["runAsNonRoot"] is True
        for volume in pod["volumes"]:
            assert not {"hostPath", "nfs"} & set(volume)


def test_users_are_named_except_on_openshift_which_names_its_own() -> None:
    assert pod_of(workload(rendered("default"), "reward"))["securityContext"]["runAsUser"] == 10001
    for one in of_kind(rendered("openshift"), *WITH_PODS):
        assert not {"runAsUser", "runAsGroup", "fsGroup"} & set(pod_of(one)["securityContext"])


@pytest.mark.parametrize("name", VALUE_FILES)
def test_every_container_asks_for_cpu_and_memory_and_has_limits(name: str) -> None:
    for one in of_kind(rendered(name), *WITH_PODS):
        for container in containers(one):
            for side in ("requests", "limits"):
                assert {"cpu", "memory"} <= set(container["resources"][side]), f"{one['metadata']['name']} {container['name']} {side}"


@pytest.mark.parametrize("name", VALUE_FILES)
def test_every_service_is_started_checked_and_ended_by_its_own_probes(name: str) -> None:
    for one in workloads(name):
        container = container_of(one)
        component = component_of(one)
        service = f"assay.{component}.v1.{component.capitalize()}Service"
        assert container["command"] == ["python", "-m", f"assay_{component}"]
        assert container["startupProbe"]["grpc"] == container["readinessProbe"]["grpc"] == {"port": 50052, "service": service}
        assert container["livenessProbe"]["grpc"] == {"port": 50052}, "liveness depends on nobody: neither on Kafka nor on a model"
        assert {"name": "health", "containerPort": 50052} in container["ports"]


def test_the_startup_budget_is_what_a_pod_gets_before_it_is_started_again_and_a_rollout_waits_longer() -> None:
    one = workload(render({"reward": {"probes": {"startupSeconds": 1234}}}), "reward")
    probe = container_of(one)["startupProbe"]
    assert 1234 <= probe["periodSeconds"] * probe["failureThreshold"] < 1240
    assert one["spec"]["progressDeadlineSeconds"] > 1234


@pytest.mark.parametrize("name", VALUE_FILES)
def test_a_pod_has_the_time_to_end_that_its_service_takes(name: str) -> None:
    for one in workloads(name):
        pre_stop = container_of(one)["lifecycle"]["preStop"]["sleep"]["seconds"]
        drain = float(environment(one)["ASSAY_DRAIN_SECONDS"])
        assert pod_of(one)["terminationGracePeriodSeconds"] >= pre_stop + drain + 10


def test_the_grace_period_follows_the_component_s_own_drain() -> None:
    values = {
        "drain": {"preStopSeconds": 7, "marginSeconds": 20},
        "settings": {"drain_seconds": 40},
        "reward": {"settings": {"drain_seconds": 90.5}},
    }
    objects = render(values)
    assert pod_of(workload(objects, "reward"))["terminationGracePeriodSeconds"] == 7 + 91 + 20
    assert pod_of(workload(objects, "policy"))["terminationGracePeriodSeconds"] == 7 + 40 + 20


@pytest.mark.parametrize("name", VALUE_FILES)
def test_no_pod_has_a_token_or_the_variables_of_services(name: str) -> None:
    for one in of_kind(rendered(name), *WITH_PODS):
        expected = component_of(one) == "training" and (values_of(name).get("training") or {}).get("batch", "none") != "none"
        assert pod_of(one)["automountServiceAccountToken"] is expected
        # A Service called assay-reward would else give ASSAY_REWARD_SERVICE_HOST, at which the service refuses to start.
        assert pod_of(one)["enableServiceLinks"] is False


def test_training_may_run_jobs_of_the_kind_it_was_told_and_nothing_else() -> None:
    for name, group, resource in (("gpu", "jobset.x-k8s.io", "jobsets"), ("gpu-dra", "trainer.kubeflow.org", "trainjobs")):
        objects = rendered(name)
        (role,) = of_kind(objects, "Role")
        assert {tuple(rule["apiGroups"]) for rule in role["rules"]} == {(group,)}
        assert {resource.split("/")[0] for rule in role["rules"] for resource in rule["resources"]} == {resource}
        assert not any("*" in rule["verbs"] + rule["resources"] for rule in role["rules"])
        (binding,) = of_kind(objects, "RoleBinding")
        assert binding["subjects"] == [{"kind": "ServiceAccount", "name": "rel-assay-training", "namespace": "ns"}]
    assert of_kind(rendered("ha"), "Role", "RoleBinding", "ClusterRole", "ClusterRoleBinding") == []


@pytest.mark.parametrize("name", VALUE_FILES)
def test_a_disruption_budget_guards_where_there_are_several_pods_and_never_forbids_every_eviction(name: str) -> None:
    objects = rendered(name)
    budgets = {component_of(one): one for one in of_kind(objects, "PodDisruptionBudget")}
    for one in workloads(name):
        scalers = [s for s in of_kind(objects, "ScaledObject", "HorizontalPodAutoscaler") if component_of(s) == component_of(one)]
        least = one["spec"]["replicas"] if not scalers else scalers[0]["spec"].get("minReplicas", scalers[0]["spec"].get("minReplicaCount"))
        assert (component_of(one) in budgets) is (least > 1)
    for budget in budgets.values():
        assert budget["spec"]["maxUnavailable"] == 1 and "minAvailable" not in budget["spec"]
        assert budget["spec"]["unhealthyPodEvictionPolicy"] == "AlwaysAllow"


@pytest.mark.parametrize("name", VALUE_FILES)
def test_selectors_choose_the_pods_of_one_component_and_only_those(name: str) -> None:
    objects = rendered(name)
    pods = {one["metadata"]["name"]: one["spec"]["template"]["metadata"]["labels"] for one in of_kind(objects, *WITH_PODS)}
    for one in of_kind(objects, "Service", "PodDisruptionBudget"):
        selector = one["spec"]["selector"].get("matchLabels", one["spec"]["selector"])
        chosen = [pod for pod, labels in pods.items() if selector.items() <= labels.items()]
        assert chosen == [f"rel-assay-{component_of(one)}"]
    for one in of_kind(objects, "Deployment", "StatefulSet"):
        assert one["spec"]["selector"]["matchLabels"].items() <= one["spec"]["template"]["metadata"]["labels"].items()
        assert "helm.sh/chart" not in one["spec"]["template"]["metadata"]["labels"], "a new chart would start every pod again"


@pytest.mark.parametrize("name", VALUE_FILES)
def test_everything_that_a_pod_names_is_made_by_the_chart_or_named_in_the_values(name: str) -> None:
    objects = rendered(name)
    made: dict[str, set[str]] = {}
    for one in objects:
        made.setdefault(one["kind"], set()).add(one["metadata"]["name"])
    # Secrets that operators make of objects of the chart.
    secrets = (
        {one["spec"]["secretName"] for one in of_kind(objects, "Certificate")}
        | made.get("ExternalSecret", set())
        | made.get("KafkaUser", set())
    )
    values = str(values_of(name))
    for one in of_kind(objects, *WITH_PODS):
        pod = pod_of(one)
        if one["kind"] != "Job":
            assert pod["serviceAccountName"] in made["ServiceAccount"]
        if one["kind"] == "StatefulSet":
            assert one["spec"]["serviceName"] in made["Service"]
        for claim in pod.get("resourceClaims", []):
            assert claim["resourceClaimTemplateName"] in made["ResourceClaimTemplate"]
        for secret in _secrets_of(pod):
            assert secret in secrets or secret in values or secret == "kafka-cluster-ca-cert", secret
        own = {template["metadata"]["name"] for template in one["spec"].get("volumeClaimTemplates", [])}
        volumes = {volume["name"] for volume in pod["volumes"]} | own
        for volume in pod["volumes"]:
            claim = volume.get("persistentVolumeClaim", {}).get("claimName")
            assert claim is None or claim in made.get("PersistentVolumeClaim", set()) or claim in values
        for container in containers(one):
            assert {mount["name"] for mount in container["volumeMounts"]} <= volumes
            paths = [mount["mountPath"] for mount in container["volumeMounts"]]
            assert len(set(paths)) == len(paths)


def _secrets_of(pod: Manifest) -> set[str]:
    found = {volume["secret"]["secretName"] for volume in pod["volumes"] if "secret" in volume}
    found |= {source["secret"]["name"] for volume in pod["volumes"] for source in volume.get("projected", {}).get("sources", [])}
    for container in pod["containers"]:
        for entry in container["env"]:
            reference = entry.get("valueFrom", {}).get("secretKeyRef")
            found |= {reference["name"]} if reference else set()
    return found


def test_a_pod_with_a_device_goes_before_its_successor_comes_and_another_after() -> None:
    gpu = workload(rendered("gpu"), "reward")["spec"]["strategy"]["rollingUpdate"]
    assert gpu == {"maxSurge": 0, "maxUnavailable": 1}, "a successor would wait for the device that its predecessor holds"
    cpu = workload(rendered("default"), "reward")["spec"]["strategy"]["rollingUpdate"]
    assert cpu == {"maxSurge": 1, "maxUnavailable": 0}
    kept = workload(render({"reward": {"persistence": {"enabled": True}}}), "reward")["spec"]["strategy"]["rollingUpdate"]
    assert kept == gpu


@pytest.mark.parametrize("resource", ["nvidia.com/gpu", "nvidia.com/mig-1g.10gb", "amd.com/gpu"])
def test_devices_are_asked_for_by_the_name_they_have_on_the_cluster(resource: str) -> None:
    objects = render({"accelerator": {"resourceName": resource}, "reward": {"accelerator": {"enabled": True, "count": 2}}})
    reward = workload(objects, "reward")
    for side in ("requests", "limits"):
        assert container_of(reward)["resources"][side][resource] == 2
        assert resource not in container_of(workload(objects, "policy"))["resources"][side]
    assert {"key": "nvidia.com/gpu", "operator": "Exists", "effect": "NoSchedule"} in pod_of(reward)["tolerations"]
    assert "tolerations" not in pod_of(workload(objects, "policy"))
    shared = [volume for volume in pod_of(reward)["volumes"] if volume["name"] == "shared-memory"]
    assert shared == [{"name": "shared-memory", "emptyDir": {"medium": "Memory", "sizeLimit": "2Gi"}}]


def test_a_dynamic_claim_takes_the_place_of_the_device_resource() -> None:
    objects = rendered("gpu-dra")
    training = workload(objects, "training")
    assert container_of(training)["resources"]["claims"] == [{"name": "devices"}]
    assert "nvidia.com/gpu" not in container_of(training)["resources"]["limits"]
    template = named(objects, "ResourceClaimTemplate", "rel-assay-training-devices")
    (request,) = template["spec"]["spec"]["devices"]["requests"]
    assert request["exactly"]["count"] == 2 and request["exactly"]["deviceClassName"] == "gpu.nvidia.com"
    assert "cel" in request["exactly"]["selectors"][0]


def test_placement_is_said_once_for_all_and_again_where_one_differs() -> None:
    values = {
        "defaults": {"placement": {"nodeSelector": {"pool": "cpu"}, "priorityClassName": "low"}},
        "accelerator": {"nodeSelector": {"gpu": "yes"}},
        "reward": {"accelerator": {"enabled": True}, "placement": {"nodeSelector": {"pool": "gpu"}, "priorityClassName": "high"}},
    }
    objects = render(values)
    assert pod_of(workload(objects, "reward"))["nodeSelector"] == {"pool": "gpu", "gpu": "yes"}
    assert pod_of(workload(objects, "reward"))["priorityClassName"] == "high"
    for component in set(COMPONENTS) - {"reward"}:
        assert pod_of(workload(objects, component))["nodeSelector"] == {"pool": "cpu"}
        assert pod_of(workload(objects, component))["priorityClassName"] == "low"


def test_spread_constraints_look_at_the_component_s_own_pods() -> None:
    for one in workloads("ha"):
        for constraint in pod_of(one)["topologySpreadConstraints"]:
            assert constraint["labelSelector"]["matchLabels"] == one["spec"]["selector"]["matchLabels"]
        keys = [constraint["topologyKey"] for constraint in pod_of(one)["topologySpreadConstraints"]]
        assert keys == ["topology.kubernetes.io/zone", "kubernetes.io/hostname"]


def test_the_model_volume_is_filled_by_one_job_and_only_read_by_the_services() -> None:
    objects = rendered("gpu")
    (job,) = of_kind(objects, "Job")
    (download,) = pod_of(job)["containers"]
    for model in values_of("gpu")["modelCache"]["models"]:
        assert f"fetch {model['name']} {model['repository']} {model['revision']}" in download["args"][0]
    for component in ("reward", "policy", "training"):
        one = workload(objects, component)
        (mount,) = [mount for mount in container_of(one)["volumeMounts"] if mount["name"] == "models"]
        assert mount["readOnly"] is True
        assert environment(one)["HF_HUB_OFFLINE"] == "1"
        (wait,) = pod_of(one)["initContainers"]
        assert all(f"{model['name']}/{model['revision']}" in wait["args"][0] for model in values_of("gpu")["modelCache"]["models"])
    assert "/models/skywork/0123456789abcdef0123456789abcdef01234567" in environment(workload(objects, "reward"))["ASSAY_REWARD_PRELOAD"]


def test_two_releases_share_no_name() -> None:
    mine = {(one["kind"], one["metadata"]["name"]) for one in render(values_of("mtls"), release="one")}
    theirs = {(one["kind"], one["metadata"]["name"]) for one in render(values_of("mtls"), release="two")}
    assert not mine & theirs


def test_names_are_of_the_release_and_never_too_long() -> None:
    assert workload(render(release="assay"), "reward")["metadata"]["name"] == "assay-reward"
    assert workload(render(release="my-assay"), "reward")["metadata"]["name"] == "my-assay-reward"
    assert workload(render({"fullnameOverride": "scores"}), "reward")["metadata"]["name"] == "scores-reward"
    long = "a" * 53
    assert all(len(one["metadata"]["name"]) <= 63 for one in itertools.chain(render(release=long), render(values_of("gpu"), release=long)))
