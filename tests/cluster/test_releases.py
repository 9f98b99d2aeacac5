"""The chart on a real control plane: every value file is admitted, scheduled where it should be, changed, taken back and removed."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml
from cluster.folder_volumes import FolderVolumes
from cluster.helm import CHART, RELEASE, Tools
from cluster.inventory import inventory, passing_objects
from cluster.kubernetes_api import KubernetesApi, Object, until
from cluster.pools import POOL, pool_of_nodes
from cluster.prerequisites import provide

VALUE_FILES = sorted((CHART / "ci").glob("*-values.yaml"))
COMPONENT = "app.kubernetes.io/component"
WAIT = ("--wait", "--timeout", "300s")

pytestmark = pytest.mark.usefixtures("pools", "volumes", "custom_resources")


class Release:
    """One release of the chart in a namespace of its own."""

    def __init__(self, api: KubernetesApi, tools: Tools, volumes: FolderVolumes, namespace: str, values: Path) -> None:
        self.api, self.tools, self.namespace, self.values = api, tools, namespace, values
        self._where = ("--namespace", namespace)
        self.objects = tools.rendered(namespace, "-f", str(values))
        missing = {one["apiVersion"].partition("/")[0] for one in self.objects if "/" in one["apiVersion"]} - api.groups()
        if missing:
            pytest.skip(f"no custom resource definitions of {', '.join(sorted(missing))}: they are part of the shared data")
        provide(api, volumes, namespace, self.objects)

    def install(self, chart: Path = CHART) -> None:
        self.tools.helm("install", RELEASE, str(chart), *self._where, "-f", str(self.values), "--wait-for-jobs", *WAIT)

    def upgrade(self, *changes: str) -> None:
        self.tools.helm("upgrade", RELEASE, str(CHART), *self._where, "-f", str(self.values), *changes, *WAIT)

    def rollback(self) -> None:
        self.tools.helm("rollback", RELEASE, *self._where, *WAIT)

    def uninstall(self) -> None:
        self.tools.helm("uninstall", RELEASE, *self._where, *WAIT)

    def pods(self) -> list[Object]:
        """Those that are to stay."""
        return [one for one in self.api.list(f"/api/v1/namespaces/{self.namespace}/pods") if "deletionTimestamp" not in one["metadata"]]

    def log_levels(self) -> set[str]:
        """What the services' pods are told."""
        return {
            variable.get("value", "")
            for pod in self.pods()
            for container in pod["spec"]["containers"]
            for variable in container.get("env", [])
            if variable["name"] == "ASSAY_LOG_LEVEL"
        }

    def kept(self) -> set[str]:
        """What stays by intent: the claims of StatefulSets that keep theirs, and what is marked to be kept."""
        found = set()
        for one in self.objects:
            meta, spec = one["metadata"], one.get("spec", {})
            if meta.get("annotations", {}).get("helm.sh/resource-policy") == "keep":
                found.add(one["kind"].lower() + "s/" + meta["name"])
            policy = spec.get("persistentVolumeClaimRetentionPolicy", {})
            if one["kind"] == "StatefulSet" and policy.get("whenDeleted", "Retain") == "Retain":
                for template in spec.get("volumeClaimTemplates", []):
                    claims = f"persistentvolumeclaims/{template['metadata']['name']}-{meta['name']}"
                    found |= {f"{claims}-{number}" for number in range(spec.get("replicas", 1))}
        return found


def pools_for(values: dict[str, Any], component: str) -> set[str]:
    """The only pools where pods of the component belong, by what the value file says in plain words."""
    said = values.get(component, {})
    if not said.get("accelerator", {}).get("enabled", False):
        return {"cpu"}
    chosen = said.get("placement", {}).get("nodeSelector", {}).get(POOL)
    if chosen:
        return {chosen}
    if values.get("accelerator", {}).get("dra", {}).get("enabled", False):
        return {"gpu"}  # the only pool whose devices have the memory that is asked for
    return {"gpu", "mig"}


@pytest.fixture
def release(api: KubernetesApi, tools: Tools, volumes: FolderVolumes, namespace: str) -> Callable[[Path], Release]:
    return lambda values: Release(api, tools, volumes, namespace, values)


@pytest.mark.parametrize("values", VALUE_FILES, ids=lambda path: path.name.removesuffix("-values.yaml"))
def test_a_value_file_is_installed_where_it_belongs_changed_taken_back_and_removed(
    values: Path, release: Callable[[Path], Release], api: KubernetesApi
) -> None:
    one = release(values)
    before = inventory(api, one.namespace)
    one.install()
    pools, said = pool_of_nodes(api), yaml.safe_load(values.read_text()) or {}
    pods = one.pods()
    assert {pod["metadata"]["labels"][COMPONENT] for pod in pods} >= {"reward"}
    for pod in pods:
        component = pod["metadata"]["labels"][COMPONENT]
        assert pools[pod["spec"].get("nodeName", "")] in pools_for(said, component), pod["metadata"]["name"]

    usual = one.log_levels()
    one.upgrade("--set", "settings.log_level=WARNING")
    until("all pods are told", lambda: one.log_levels() == {"WARNING"})
    one.rollback()
    until("all pods are told otherwise", lambda: one.log_levels() == usual)
    one.uninstall()
    until("no pod is left", lambda: not passing_objects(api, one.namespace))
    assert inventory(api, one.namespace) - before == one.kept()


def test_there_are_value_files_for_all_that_the_chart_promises() -> None:
    names = {path.name.removesuffix("-values.yaml") for path in VALUE_FILES}
    assert names >= {"minimal", "default", "ha", "gpu", "gpu-dra", "external-kafka", "strimzi", "air-gapped", "openshift", "mtls"}


def test_a_second_release_in_another_namespace_does_not_collide(
    api: KubernetesApi, tools: Tools, new_namespace: Callable[[], str], volumes: FolderVolumes
) -> None:
    values = CHART / "ci" / "ha-values.yaml"
    first, second = (Release(api, tools, volumes, new_namespace(), values) for _ in range(2))
    first.install()
    names = {pod["metadata"]["uid"] for pod in first.pods()}
    second.install()
    second.uninstall()
    until("the second one's pods have gone", lambda: not passing_objects(api, second.namespace))
    assert {pod["metadata"]["uid"] for pod in first.pods()} == names


def test_a_release_of_an_older_version_becomes_one_of_this_version(
    release: Callable[[Path], Release], tools: Tools, tmp_path: Path, api: KubernetesApi
) -> None:
    """No version was released before this one: the older one is this chart under an older version and appVersion.

    That is what a patch release looks like, and finds fields that the API server lets nobody change but that hold a version.
    """
    tools.helm("package", str(CHART), "--version", "0.0.1", "--app-version", "0.0.1", "--destination", str(tmp_path))
    [older] = tmp_path.glob("*.tgz")
    one = release(CHART / "ci" / "ha-values.yaml")
    one.install(older)
    assert {_version(pod) for pod in one.pods()} == {"0.0.1"}
    claims = api.list(f"/api/v1/namespaces/{one.namespace}/persistentvolumeclaims")
    one.upgrade()
    now = str(yaml.safe_load((CHART / "Chart.yaml").read_text())["appVersion"])
    until("all pods are of this version", lambda: {_version(pod) for pod in one.pods()} == {now})
    after = api.list(f"/api/v1/namespaces/{one.namespace}/persistentvolumeclaims")
    assert [claim["metadata"]["uid"] for claim in after] == [claim["metadata"]["uid"] for claim in claims]


def _version(pod: Object) -> str:
    image = pod["spec"]["containers"][0]["image"]
    return str(image.rpartition(":")[2]).removesuffix("-cuda")
