"""The control plane, the nodes and the tools that the tests of this folder share; `make test-cluster` runs them."""

from __future__ import annotations

import contextlib
import os
import subprocess
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from cluster.control_plane import ControlPlane
from cluster.folder_volumes import FolderVolumes
from cluster.helm import REPOSITORY, Tools
from cluster.kubernetes_api import KubernetesApi, until
from cluster.pools import add_pools
from cluster.running_node import RunningNode


def _script(name: str) -> str:
    done = subprocess.run([REPOSITORY / "scripts" / name], capture_output=True, text=True)
    assert done.returncode == 0, f"scripts/{name}: {done.stderr}"
    return done.stdout


@pytest.fixture(scope="session")
def control_plane(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ControlPlane]:
    programs = Path(_script("control_plane.sh").split()[-1])
    with ControlPlane(programs, tmp_path_factory.mktemp("control-plane")) as plane:
        yield plane


@pytest.fixture(scope="session")
def api(control_plane: ControlPlane) -> Iterator[KubernetesApi]:
    """The API as an administrator sees it."""
    with contextlib.closing(control_plane.api()) as api:
        yield api


@pytest.fixture(scope="session")
def tools(control_plane: ControlPlane, tmp_path_factory: pytest.TempPathFactory) -> Tools:
    _script("chart_tools.sh")
    return Tools(folder=REPOSITORY / ".tools" / "bin", kubeconfig=control_plane.kubeconfig, home=tmp_path_factory.mktemp("home"))


@pytest.fixture(scope="session")
def pools(api: KubernetesApi) -> None:
    """One CPU pool and two GPU pools."""
    add_pools(api)


@pytest.fixture(scope="session")
def volumes(control_plane: ControlPlane, tmp_path_factory: pytest.TempPathFactory) -> Iterator[FolderVolumes]:
    with contextlib.closing(control_plane.api()) as api, FolderVolumes(api, tmp_path_factory.mktemp("volumes")) as volumes:
        yield volumes


@pytest.fixture(scope="session")
def node(control_plane: ControlPlane, api: KubernetesApi, tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningNode]:
    """A node whose pods are real processes."""
    assert os.geteuid() == 0, "the test node makes namespaces, mounts and a bridge: run it as root"
    with RunningNode(control_plane, api, tmp_path_factory.mktemp("node")) as node:
        yield node


@pytest.fixture(scope="session")
def custom_resources(tools: Tools) -> None:
    """The custom resource definitions of the operators that the chart speaks to, where the shared data has them."""
    folder = Path(os.environ.get("ASSAY_SHARED_DATA") or REPOSITORY.parent / "shared" / "data") / "crds"
    if folder.is_dir():
        tools.kubectl("apply", "--server-side", "-f", str(folder))
        tools.kubectl("wait", "--for=condition=Established", "crd", "--all", "--timeout=60s")


@pytest.fixture
def new_namespace(api: KubernetesApi) -> Iterator[Callable[[], str]]:
    """Makes namespaces that demand restricted pods; after the test they go with all that is in them."""
    made: list[str] = []

    def make() -> str:
        name = f"test-{uuid.uuid4().hex[:8]}"
        labels = {"pod-security.kubernetes.io/enforce": "restricted", "pod-security.kubernetes.io/enforce-version": "latest"}
        api.create("/api/v1/namespaces", {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name, "labels": labels}})
        made.append(name)
        until("the namespace has its service account", lambda: api.find(f"/api/v1/namespaces/{name}/serviceaccounts/default"))
        return name

    yield make
    for name in made:
        api.delete(f"/api/v1/namespaces/{name}")


@pytest.fixture
def namespace(new_namespace: Callable[[], str]) -> str:
    return new_namespace()
