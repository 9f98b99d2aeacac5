"""The chart, rendered: in this process for most questions, with the helm programs where their version matters."""

from __future__ import annotations

import functools
import importlib.util
import json
import shutil
import subprocess
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from types import ModuleType
from typing import Any

import helm_python
import pytest
import yaml

ROOT = Path(__file__).parents[2]
CHART = ROOT / "helm" / "assay"
VALUE_FILES = tuple(sorted(path.name.removesuffix("-values.yaml") for path in (CHART / "ci").glob("*-values.yaml")))
COMPONENTS = ("cleaning", "reward", "policy", "training", "evaluation")
RELEASE, NAMESPACE = "rel", "ns"

Manifest = dict[str, Any]


@functools.cache
def chart() -> helm_python.Chart:
    """The chart as it lies on disk."""
    return helm_python.Chart.load(CHART)


def values_of(name: str) -> dict[str, Any]:
    """The values of one file of ci/."""
    return yaml.safe_load((CHART / "ci" / f"{name}-values.yaml").read_text()) or {}


def render(values: Mapping[str, Any] | None = None, *, release: str = RELEASE, namespace: str = NAMESPACE) -> list[Manifest]:
    """The objects of a release with these values.

    Raises:
        helm_python.HelmError: the values are refused.
    """
    texts = chart().render(dict(values or {}), name=release, namespace=namespace)
    return list(_objects(text for path, text in sorted(texts.items()) if path.endswith(".yaml")))


@functools.cache
def _rendered(name: str) -> str:
    return json.dumps(render(values_of(name)))


def rendered(name: str) -> list[Manifest]:
    """The objects of one file of ci/; each caller has a copy of its own."""
    objects: list[Manifest] = json.loads(_rendered(name))
    return objects


def _objects(texts: Iterator[str]) -> Iterator[Manifest]:
    for text in texts:
        yield from (document for document in yaml.safe_load_all(text) if document)


def helm(program: str, *arguments: str, cwd: Path | None = None) -> subprocess.CompletedProcess[str]:
    """Runs helm3 or helm4 of .tools/bin; skips where they are not there."""
    return subprocess.run([tool(program), *arguments], capture_output=True, text=True, cwd=cwd, stdin=subprocess.DEVNULL)


def tool(name: str) -> str:
    """Path of a program that scripts/chart_tools.sh puts into .tools/bin; skips where it is not there."""
    path = ROOT / ".tools" / "bin" / name
    if path.exists():
        return str(path)
    found = shutil.which(name)
    if found is None:
        pytest.skip(f"no {name}; make tools brings it")
    return found


@functools.cache
def _template(program: str, name: str, kubernetes: str) -> str:
    done = helm(
        program,
        "template",
        RELEASE,
        str(CHART),
        "-n",
        NAMESPACE,
        "-f",
        str(CHART / "ci" / f"{name}-values.yaml"),
        "--kube-version",
        kubernetes,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def template(program: str, name: str, kubernetes: str) -> list[Manifest]:
    """The objects of one file of ci/ as a helm program renders them for a version of Kubernetes."""
    return list(_objects(iter([_template(program, name, kubernetes)])))


def of_kind(objects: list[Manifest], *kinds: str) -> list[Manifest]:
    """The objects of these kinds."""
    return [one for one in objects if one["kind"] in kinds]


def named(objects: list[Manifest], kind: str, name: str) -> Manifest:
    """The one object of that kind and name."""
    (found,) = [one for one in objects if one["kind"] == kind and one["metadata"]["name"] == name]
    return found


def workload(objects: list[Manifest], component: str) -> Manifest:
    """The Deployment or StatefulSet of a component."""
    (found,) = [one for one in of_kind(objects, "Deployment", "StatefulSet") if component_of(one) == component]
    return found


def component_of(one: Manifest) -> str:
    """The component that an object belongs to; "" for those of the whole release."""
    return str(one["metadata"]["labels"].get("app.kubernetes.io/component", ""))


def pod_of(one: Manifest) -> Manifest:
    """The spec of the pods of a Deployment, StatefulSet or Job."""
    spec: Manifest = one["spec"]["template"]["spec"]
    return spec


def container_of(one: Manifest) -> Manifest:
    """The container of a component."""
    (found,) = pod_of(one)["containers"]
    return found


def environment(one: Manifest) -> dict[str, Any]:
    """The environment of a component's container: a text, or where it comes from."""
    pairs = [(entry["name"], entry.get("value", entry.get("valueFrom"))) for entry in container_of(one)["env"]]
    assert len(dict(pairs)) == len(pairs), f"a variable is set twice: {[name for name, _ in pairs]}"
    return dict(pairs)


def generator() -> ModuleType:
    """scripts/generate_chart.py as a module."""
    spec = importlib.util.spec_from_file_location("generate_chart", ROOT / "scripts" / "generate_chart.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module
