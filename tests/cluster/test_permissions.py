"""What each service account may do, asked of the real authorizer: exactly what its component needs, and nothing else."""

from __future__ import annotations

import pytest
from cluster.helm import CHART, RELEASE, Tools
from cluster.kubernetes_api import KubernetesApi

COMPONENTS = ("cleaning", "reward", "policy", "training", "evaluation")
_FORBIDDEN = (
    ("get", "secrets"),
    ("list", "configmaps"),
    ("create", "pods"),
    ("create", "pods/exec"),
    ("patch", "deployments.apps"),
    ("create", "jobs.batch"),
    ("get", "nodes"),
    ("create", "clusterrolebindings.rbac.authorization.k8s.io"),
)

pytestmark = pytest.mark.usefixtures("pools", "volumes", "custom_resources")


def install(tools: Tools, namespace: str, *arguments: str) -> None:
    values = str(CHART / "ci" / "default-values.yaml")
    tools.helm("install", RELEASE, str(CHART), "--namespace", namespace, "-f", values, *arguments)


def accounts_with_tokens(api: KubernetesApi, namespace: str) -> set[str]:
    """Components whose pods are handed a token."""
    return {
        pod["metadata"]["labels"]["app.kubernetes.io/component"]
        for pod in api.list(f"/api/v1/namespaces/{namespace}/pods")
        for volume in pod["spec"]["volumes"]
        if any("serviceAccountToken" in source for source in volume.get("projected", {}).get("sources", []))
    }


def test_services_that_need_nothing_of_the_api_may_nothing(tools: Tools, api: KubernetesApi, namespace: str) -> None:
    install(tools, namespace)
    everybody = tools.rights("default", namespace)
    for component in COMPONENTS:
        assert tools.rights(f"{RELEASE}-{component}", namespace) == everybody
        for verb, resource in _FORBIDDEN:
            assert not tools.can(f"{RELEASE}-{component}", namespace, verb, resource), (component, verb, resource)
    assert accounts_with_tokens(api, namespace) == set()


@pytest.mark.parametrize(("kind", "resource"), [("JobSet", "jobsets.jobset.x-k8s.io"), ("TrainJob", "trainjobs.trainer.kubeflow.org")])
def test_training_in_batches_may_run_such_jobs_in_its_namespace_and_nothing_else(
    kind: str, resource: str, tools: Tools, api: KubernetesApi, namespace: str
) -> None:
    install(tools, namespace, "--set", f"training.batch={kind}")
    account = f"{RELEASE}-training"
    for verb in ("create", "get", "list", "watch", "delete"):
        assert tools.can(account, namespace, verb, resource)
        assert not tools.can(account, namespace, verb, resource, where="default"), "another namespace is none of its business"
        assert not tools.can(f"{RELEASE}-reward", namespace, verb, resource)
    assert tools.can(account, namespace, "get", f"{resource}/status")
    for verb in ("update", "patch", "deletecollection"):
        assert not tools.can(account, namespace, verb, resource)
    for verb, other in _FORBIDDEN:
        assert not tools.can(account, namespace, verb, other)
    more = tools.rights(account, namespace) - tools.rights("default", namespace)
    assert {line.split()[0] for line in more} == {resource, f"{resource}/status"}
    assert accounts_with_tokens(api, namespace) == {"training"}
