"""The chart as helm renders it: the same with Helm 3 and Helm 4, every time, with nothing that depends on the cluster or the hour."""

from __future__ import annotations

import hashlib
import os
import re
import subprocess
from pathlib import Path

import pytest
from support.chart import CHART, NAMESPACE, RELEASE, VALUE_FILES, helm, of_kind, render, rendered, template, tool, values_of


@pytest.mark.parametrize("name", VALUE_FILES)
def test_helm_3_and_helm_4_render_the_same_objects(name: str) -> None:
    assert template("helm3", name, "1.37") == template("helm4", name, "1.37")


@pytest.mark.parametrize("program", ["helm3", "helm4"])
def test_lint_has_nothing_to_say_about_any_value_file(program: str) -> None:
    for name in VALUE_FILES:
        values = str(CHART / "ci" / f"{name}-values.yaml")
        done = helm(program, "lint", "--strict", "--kube-version", "1.34", str(CHART), "-f", values)
        assert done.returncode == 0, done.stdout
        assert "WARNING" not in done.stdout and "ERROR" not in done.stdout


def test_no_template_asks_the_cluster_the_clock_or_chance() -> None:
    forbidden = re.compile(
        r"\b(lookup|now|date|randAlpha\w*|randNumeric|randBytes|randInt|uuidv4|genCA|genSelfSignedCert|genSignedCert|genPrivateKey|htpasswd|bcrypt|getHostByName|shuffle)\b"
    )
    for path in [*(CHART / "templates").rglob("*.yaml"), *(CHART / "templates").rglob("*.tpl"), *(CHART / "templates").rglob("*.txt")]:
        for action in re.findall(r"\{\{.*?\}\}", re.sub(r"\{\{-? ?/\*.*?\*/ ?-?\}\}", "", path.read_text(), flags=re.S), flags=re.S):
            words = re.sub(r'"[^"]*"', "", action)
            assert not forbidden.search(words), f"{path.name}: {action}"


@pytest.mark.parametrize("name", VALUE_FILES)
def test_no_object_needs_a_hook(name: str) -> None:
    hooks = [one["metadata"]["name"] for one in rendered(name) if any("hook" in key for key in one["metadata"].get("annotations", {}))]
    assert hooks == []


@pytest.mark.parametrize("name", VALUE_FILES)
def test_every_object_has_a_name_of_its_own_a_namespace_and_the_release_s_labels(name: str) -> None:
    objects = [one for one in rendered(name) if not one["metadata"]["name"].endswith("-note")]
    keys = [(one["kind"], one["metadata"]["name"]) for one in objects]
    assert len(set(keys)) == len(keys)
    for one in objects:
        assert one["metadata"]["namespace"] == NAMESPACE
        assert len(one["metadata"]["name"]) <= 63
        labels = one["metadata"]["labels"]
        assert labels["app.kubernetes.io/name"] == "assay" and labels["app.kubernetes.io/instance"] == RELEASE
        assert labels["app.kubernetes.io/managed-by"] == "Helm" and labels["helm.sh/chart"].startswith("assay-")


def test_a_job_s_name_changes_with_what_it_does_and_with_nothing_else() -> None:
    names = {one["metadata"]["name"] for one in of_kind(rendered("gpu"), "Job")}
    assert names == {one["metadata"]["name"] for one in of_kind(template("helm4", "gpu", "1.37"), "Job")}
    values = values_of("gpu")
    values["modelCache"]["models"][0]["revision"] = "f" * 40
    other = {one["metadata"]["name"] for one in of_kind(render(values), "Job")}
    assert len(names) == len(other) == 1 and names != other


def test_a_package_of_the_chart_is_the_same_every_time_and_holds_only_what_belongs_to_it(tmp_path: Path) -> None:
    environment = {**os.environ, "SOURCE_DATE_EPOCH": "1700000000"}
    digests = set()
    for attempt in ("a", "b"):
        target = tmp_path / attempt
        done = subprocess.run([tool("helm4"), "package", str(CHART), "-d", str(target)], capture_output=True, text=True, env=environment)
        assert done.returncode == 0, done.stderr
        (archive,) = target.glob("*.tgz")
        listing = subprocess.run(["tar", "tzf", str(archive)], capture_output=True, text=True, check=True).stdout.splitlines()
        content = subprocess.run(["tar", "xzOf", str(archive)], capture_output=True, check=True).stdout
        digests.add(hashlib.sha256("\n".join(listing).encode() + content).hexdigest())
    assert len(digests) == 1
    assert "assay/values.schema.json" in listing and "assay/README.md" in listing
    assert not [path for path in listing if "/ci/" in path or path.endswith("values.schema.yaml")]


def test_an_installed_package_renders_as_the_folder_does(tmp_path: Path) -> None:
    assert helm("helm3", "package", str(CHART), "-d", str(tmp_path)).returncode == 0
    (archive,) = tmp_path.glob("*.tgz")
    values = str(CHART / "ci" / "ha-values.yaml")
    texts = {helm("helm3", "template", RELEASE, where, "-n", NAMESPACE, "-f", values).stdout for where in (str(archive), str(CHART))}
    assert len(texts) == 1
